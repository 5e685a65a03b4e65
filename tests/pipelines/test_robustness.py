import dataclasses
import itertools

import numpy as np
import PIL.Image
import pytest
import sklearn.metrics

from pipelines import (
    datasets,
    evaluate,
    keeping,
    robustness,
    robustness_tables,
    saved_model,
)
from pipelines.corruptions import CORRUPTIONS, SEVERITIES, corrupt

pytestmark = pytest.mark.usefixtures("few_resamples")


@pytest.fixture(scope="module")
def photographs():
    """Smooth images with an edge, as photographs have them."""
    generator = np.random.default_rng(0)
    place = np.linspace(0, 1, 32)
    images = np.stack([place[:, None] * a + b for a, b in generator.random((8, 2)) / 2])
    images = np.repeat(images[..., None], 3, axis=-1)
    images = np.broadcast_to(images, (8, 32, 32, 3)).copy()
    images[:, :, 16:] *= 0.5
    return (255 * images).round().astype("uint8")


def change(images, changed):
    return np.abs(images.astype("float64") - changed).mean()


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_grows_with_its_severity(photographs, name):
    before = photographs.copy()
    changed = [corrupt(photographs, name, severity) for severity in SEVERITIES]
    np.testing.assert_array_equal(photographs, before)
    for images in changed:
        assert images.dtype == np.uint8
        assert images.shape == photographs.shape
    sizes = [change(photographs, images) for images in changed]
    assert sizes == sorted(set(sizes))
    assert sizes[0] > 0.2
    assert sizes[-1] < 110


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_same_seed_gives_the_same_images(photographs, name):
    once, again = (corrupt(photographs, name, 3, seed=5) for _ in range(2))
    np.testing.assert_array_equal(once, again)
    other = corrupt(photographs, name, 3, seed=6)
    assert np.array_equal(once, other) == ("noise" not in name)


def test_many_images_are_changed_as_few_are(photographs, monkeypatch):
    together = corrupt(photographs, "JPEG", 2)
    monkeypatch.setattr("pipelines.corruptions.BATCH", 3)
    np.testing.assert_array_equal(corrupt(photographs, "JPEG", 2), together)


def test_the_noise_has_the_deviation_that_it_says():
    grey = np.full((40, 32, 32, 3), 128, "uint8")
    for severity in SEVERITIES:
        noisy = corrupt(grey, "Gaussian noise", severity) / 255
        assert noisy.std() == pytest.approx(0.03 * severity, rel=0.03)
        photons = 480 / 2**severity
        shot = corrupt(grey, "shot noise", severity) / 255
        assert shot.var() == pytest.approx(128 / 255 / photons, rel=0.1)
        struck = corrupt(grey, "impulse noise", severity) != grey
        assert struck.mean() == pytest.approx(0.02 * severity, rel=0.1)


def test_separation_is_that_of_pairs():
    generator = np.random.default_rng(0)
    ours, theirs = generator.normal(1, size=300), generator.normal(size=200)
    ours[:50], theirs[:50] = 1.0, 1.0  # ties count half
    found = robustness.separation(ours, theirs)
    higher = ours[:, None] > theirs
    ties = ours[:, None] == theirs
    assert found["auroc"] == pytest.approx(np.mean(higher + ties / 2))
    threshold = np.sort(ours)[::-1][int(np.ceil(0.95 * len(ours))) - 1]
    assert found["fpr95"] == np.mean(theirs >= threshold)
    assert robustness.separation(ours + 10, theirs) == {"auroc": 1.0, "fpr95": 0.0}


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """A data set of noise."""
    folder = tmp_path_factory.mktemp("noise")
    draws = np.random.default_rng(0)
    for part, name, number in itertools.product(("train", "test"), "ab", range(6)):
        place = folder / part / name
        place.mkdir(parents=True, exist_ok=True)
        pixels = draws.integers(0, 256, (16, 16, 3), dtype="uint8")
        PIL.Image.fromarray(pixels).save(place / f"{number}.png")
    return f"folder:{folder}"


@pytest.fixture(scope="module")
def judged(runs, noise, tmp_path_factory, without_plots):
    out = tmp_path_factory.mktemp("results") / "beyond"
    given = [str(run) for run in runs[:3]]
    options = ["--shift", "--ood", noise, "--timings", "false"]
    with pytest.raises(SystemExit, match=r"^0$"):
        evaluate.main([*given, "--out", str(out), *options])
    return keeping.read(out), out


def test_runs_are_judged_on_corrupted_images(judged, runs, loaded):
    results, out = judged
    (table,) = results.comparison.tables
    assert len(table.shifted) == 3 * len(CORRUPTIONS)
    row = next(s for s in table.shifted if s.corruption == "contrast")
    (path,) = (run for run in runs if run.name == row.row)
    serve, _ = saved_model.load(path)
    images, labels = loaded.test
    for severity in SEVERITIES:
        served = serve(images=corrupt(images, "contrast", severity))
        p = served["probabilities"].numpy()
        right = sklearn.metrics.accuracy_score(labels, p.argmax(axis=1))
        assert row.metrics["accuracy"][severity - 1] == pytest.approx(right)
        truth = served["log_probabilities"].numpy()[np.arange(len(labels)), labels]
        assert row.metrics["nll"][severity - 1] == pytest.approx(-truth.mean())
    by_severity, by_kind = robustness_tables.shifted(table)
    assert len(by_severity.body) == 3
    assert by_severity.head[-1] == "severity 5"
    assert by_kind.head[1:] == list(CORRUPTIONS)
    means = [
        np.mean([s.metrics["accuracy"][4] for s in table.shifted if s.row == row.row])
    ]
    title = table.runs[row.row].title
    shown = next(line for line in by_severity.body if line[0].text == title)
    assert shown[-1].key == pytest.approx(means[0])
    for name in ("comparison.md", "comparison.html"):
        assert "Corrupted images" in (out / name).read_text("utf-8")


def test_scores_tell_the_test_images_from_others(judged, noise, runs, loaded):
    results, out = judged
    (table,) = results.comparison.tables
    assert [u.score for u in table.unfamiliar] == 3 * ["maximum probability", "energy"]
    (found,) = (u for u in table.unfamiliar[:2] if u.score == "energy")
    (path,) = (run for run in runs if run.name == found.row)
    serve, _ = saved_model.load(path)
    foreign = datasets.find(noise)(16).test
    assert found.images == len(foreign)

    def energies(images):
        (x,) = saved_model.ask(serve, images, "logits")
        return np.log(np.exp(x.astype("float64")).sum(axis=1))

    ours, theirs = energies(loaded.test.images), energies(foreign)
    truth = np.arange(len(ours) + len(theirs)) < len(ours)
    auroc = sklearn.metrics.roc_auc_score(truth, np.concatenate([ours, theirs]))
    assert found.auroc == pytest.approx(auroc)
    assert "Images of another data set" in (out / "comparison.md").read_text("utf-8")


def test_the_logits_are_those_of_the_probabilities(runs, loaded):
    (path,) = (run for run in runs if "-log_softmax-" in run.name and "s1" in run.name)
    serve, _ = saved_model.load(path)
    served = serve(images=loaded.test.images)
    p = np.exp(served["logits"].numpy())
    np.testing.assert_allclose(
        served["probabilities"].numpy(), p / p.sum(axis=1, keepdims=True), rtol=1e-5
    )


@pytest.mark.parametrize("logits", ["none", "log-probabilities"])
def test_what_gives_no_logits_has_no_energy(logits, runs, loaded):
    serve, _ = saved_model.load(runs[0])

    def before(images):
        answer = dict(serve(images=images))
        if logits == "none":
            del answer["logits"]
        else:
            answer["logits"] = answer["log_probabilities"]
        return answer

    run = dataclasses.make_dataclass("Named", ["name"])("old")
    foreign = robustness.Others("other", loaded.test.images)
    found = robustness.unfamiliar(run, before, loaded, foreign)
    assert [u.score for u in found] == ["maximum probability"]
    assert found[0].auroc == pytest.approx(0.5)
    assert found[0].fpr95 == pytest.approx(0.95, abs=0.06)  # of equal sets


def test_the_same_data_set_is_not_another(runs, tiny, tmp_path, capsys, monkeypatch):
    with pytest.raises(SystemExit, match=r"^2$"):
        evaluate.main([str(runs[0]), "--ood", tiny.dataset, "--out", str(tmp_path)])
    assert "name another data set" in capsys.readouterr().err
    monkeypatch.setattr(datasets.prepared, "cifar100_or", lambda _: (tiny.dataset, ""))
    with pytest.raises(SystemExit, match=r"^2$"):
        evaluate.main([str(runs[0]), "--ood", "auto", "--out", str(tmp_path)])
    assert "name another data set" in capsys.readouterr().err
