import csv
import dataclasses
import functools
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import matplotlib.figure
import numpy as np
import PIL.Image
import pytest
import sklearn.metrics
import tensorflow as tf
from records import HEADS, ended, leave, pretend, with_more

from pipelines import (
    between_runs,
    checks,
    comparison,
    datasets,
    draw_plotly,
    draw_png,
    evaluate,
    evaluation,
    files,
    judging,
    keeping,
    metrics,
    plots,
    publishing,
    report,
    run_folder,
    saved_model,
    search,
    tables,
    titles,
    training,
    wording,
)
from pipelines.config import Annealing, Config
from pipelines.errors import InputError

pytestmark = pytest.mark.usefixtures("few_resamples")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)


@pytest.fixture(scope="module")
def superclassed(loaded):
    """Loads the photos as if two of their classes formed a superclass."""

    def load(*given):
        return dataclasses.replace(
            whole(*given), superclasses=[0, 1, 0], superclass_names=["bg", "r"]
        )

    whole = datasets.load
    return load


@pytest.fixture(scope="module")
def compared(runs, superclassed, tmp_path_factory):
    """The comparison of all the runs, and the folder that it was written to."""
    out = tmp_path_factory.mktemp("results") / "comparison"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "load", superclassed)
        reported = {runs[0].name: {"row": "theirs", "accuracy": "0.396 (sic)"}}
        made = evaluation.evaluate(
            runs,
            out,
            reported,
            probabilities=out.parent / "probabilities",
            made_by="the command",
        )
    return made, out


def rows_of(out, name):
    with (out / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_file_is_written(compared):
    _, out = compared
    assert {path.name for path in out.iterdir()} == {
        *("comparison.json", "comparison.csv", "comparison.md", "comparison.html"),
        *("confusion.npz", "timings.json", "classes.csv", "pairs.csv", "plots"),
        *("outcomes", "contrasts.csv"),
    }
    for plot in ("test_accuracy", "reliability", "val_accuracy"):
        with PIL.Image.open(out / "plots" / f"photos-fine-{plot}.png") as image:
            assert image.width > 300
    assert not list(out.parent.glob(".*"))
    shown = re.findall(r"!\[.*?\]\((.*?)\)", (out / "comparison.md").read_text("utf-8"))
    assert shown
    assert all((out / path).exists() for path in shown)


def test_the_metrics_agree_with_those_of_the_saved_probabilities(compared):
    made, out = compared
    (table,) = made.comparison.tables
    read = keeping.read(out).confusions
    assert len(table.rows) == len(HEADS) + 2  # one more seed, one noisy head
    for row in table.rows:
        with np.load(out.parent / "probabilities" / f"{row.id}.npz") as saved:
            p, labels = saved["probabilities"].astype("float64"), saved["labels"]
        predicted = p.argmax(axis=1)
        expected = dict(
            zip(
                ("precision", "recall", "f1"),
                sklearn.metrics.precision_recall_fscore_support(
                    labels, predicted, average="macro", zero_division=0.0
                ),
                strict=False,
            ),
            accuracy=sklearn.metrics.accuracy_score(labels, predicted),
            superclass_accuracy=np.mean((predicted == 1) == (labels == 1)),
            brier=((p - np.eye(3)[labels]) ** 2).sum(axis=1).mean(),
        )
        confidence, right = p.max(axis=1), predicted == labels
        place = np.ceil(confidence * 15).astype(int)
        expected["ece"] = sum(
            abs(np.sum(confidence[place == i]) - np.sum(right[place == i]))
            for i in range(1, 16)
        ) / len(labels)
        for name, value in expected.items():
            # Outcomes are kept in float32.
            off = 1e-7 if name in ("brier", "ece") else 1e-9
            assert row.as_is.metrics[name] == pytest.approx(value, abs=off), name
        matrix = sklearn.metrics.confusion_matrix(labels, predicted, labels=range(3))
        np.testing.assert_array_equal(read[row.id].toarray(), matrix)


def test_the_kept_outcomes_give_the_metrics_again(compared):
    made, out = compared
    (table,) = made.comparison.tables
    for row in table.rows:
        facts = keeping.read_outcomes(out / "outcomes" / f"{row.id}.npz")
        right = facts["predicted"] == facts["label"]
        assert row.accuracy == pytest.approx(right.mean(), abs=1e-9)
        assert row.as_is.metrics["nll"] == pytest.approx(facts["nll"].mean(), abs=1e-9)
        f1 = sklearn.metrics.f1_score(
            facts["label"], facts["predicted"], average="macro", zero_division=0.0
        )
        assert row.as_is.metrics["f1"] == pytest.approx(f1, abs=1e-9)
        again = metrics.summary(facts, table.superclasses)
        known = dict(row.as_is.metrics)
        del known["classwise_ece"]  # of all the probabilities
        assert again == pytest.approx(known, abs=1e-9)
        ends = metrics.bootstrap(
            facts, lambda f: {"nll": float(np.mean(f["nll"]))}, judging.RESAMPLES
        )
        assert ends["nll"] == pytest.approx(row.as_is.intervals["nll"], abs=1e-9)


def test_everything_is_made_again_of_what_is_kept(compared, tmp_path, capsys):
    _, out = compared
    copy = tmp_path / "copy"
    kept = ("comparison.json", "timings.json", "confusion.npz", "outcomes")
    shutil.copytree(out, copy)
    for path in copy.iterdir():
        if path.is_dir() and path.name not in kept:
            shutil.rmtree(path)
        elif path.name not in kept:
            path.unlink()
    with pytest.raises(SystemExit, match=r"^0$"):
        report.main([str(copy)])
    assert "comparison.html in a browser" in capsys.readouterr().out
    files = {p.relative_to(out) for p in out.rglob("*") if p.is_file()}
    assert {p.relative_to(copy) for p in copy.rglob("*") if p.is_file()} == files
    for file in files:
        assert (copy / file).read_bytes() == (out / file).read_bytes(), file


def without(name):
    def harm(folder):
        kept = json.loads((folder / "comparison.json").read_text("utf-8"))
        del kept[name]
        (folder / "comparison.json").write_text(json.dumps(kept))

    return harm


def of_another(folder):
    with np.load(folder / "confusion.npz") as matrices:
        other = dict(matrices)
    other["table0-predicted"] = other["table0-true"]
    np.savez_compressed(folder / "confusion.npz", **other)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda c: (c / "comparison.json").unlink(), "comparison.json is missing"),
        (lambda c: (c / "confusion.npz").unlink(), "confusion.npz is missing"),
        (lambda c: (c / "confusion.npz").write_bytes(b"PK"), "is damaged"),
        (lambda c: (c / "confusion.npz").write_bytes(b""), "is damaged"),
        (lambda c: os.truncate(c / "confusion.npz", 200), "is damaged"),
        (lambda c: os.truncate(c / "timings.json", 3), "is damaged"),
        (without("made"), "is damaged: made"),
        (of_another, "confusion.npz is of another comparison"),
        (lambda c: (c / "comparison.json").write_text("{"), "is damaged"),
        (lambda c: (c / "comparison.json").write_text("{}"), "of another version"),
        (lambda c: (c / "comparison.json").write_text("[]"), "is damaged"),
        (lambda c: (c / "comparison.json").write_text('{"format": 3}'), "is damaged"),
        (
            lambda c: (c / "comparison.json").write_text('{"format": 1}'),
            "its format is 1",
        ),
    ],
)
def test_a_damaged_comparison_is_refused_in_one_line(
    compared, tmp_path, capsys, harm, words
):
    copy = tmp_path / "copy"
    shutil.copytree(compared[1], copy)
    harm(copy)
    before = {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()}
    with pytest.raises(SystemExit, match=r"^2$"):
        report.main([str(copy)])
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()} == before


def test_dollars_in_names_are_no_formulas(tmp_path):
    names = ["$a_$", r"$\foo$", "5 $"]
    heatmap = plots.Heatmap(np.eye(3), names)
    series = [plots.Series(n, [0.5], [0.5], [0.1], [0.1]) for n in names]
    figures = {
        "dots": draw_png.dots(plots.Dots("accuracy", series)),
        "curves": draw_png.curves(plots.Lines("x", "y", series)),
    }
    figures["matrix"] = matplotlib.figure.Figure()
    draw_png.draw_heatmap(heatmap, figures["matrix"].subplots())
    for name, figure in figures.items():
        draw_png.save(figure, tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 1_000


def test_a_png_shows_at_most_a_dozen_rows():
    (first, *_) = table_of_temperatures().rows
    rows = [
        dataclasses.replace(
            first, as_is=dataclasses.replace(first.as_is, metrics={"accuracy": n / 40})
        )
        for n in np.random.permutation(40)
    ]
    accuracies = [row.accuracy for row in plots.drawn(rows)]
    drawn = accuracies
    assert len(drawn) == 12
    assert accuracies == sorted(accuracies)
    assert accuracies[0] == 0
    assert accuracies[-1] == 39 / 40


def test_of_scores_nothing_is_told_of_calibration_before_scaling(compared):
    made, out = compared
    text = (out / "comparison.md").read_text("utf-8")
    assert "Heads that put out scores have no probabilities until" in text
    lines = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    head = next(line for line in lines if "NLL, scaled" in line)
    for name, blank in (("z_loss", True), ("log_softmax", False)):
        title = next(r.title for r in made.comparison.tables[0].rows if name in r.run)
        row = next(r for r in lines if r[0] == f"| {title}" and len(r) == len(head))
        for column in ("NLL", "Brier", "ECE"):
            assert (row[head.index(column)].strip() == "") == blank
            assert row[head.index(f"{column}, scaled")].strip()


def test_the_same_runs_give_the_same_bytes(compared, runs, superclassed, monkeypatch):
    _, out = compared
    monkeypatch.setattr(datasets, "load", superclassed)
    again = out.with_name("again")
    reported = {runs[0].name: {"row": "theirs", "accuracy": "0.396 (sic)"}}
    evaluation.evaluate(
        runs[::-1], again, reported, timings=False, made_by="the command"
    )
    for name in ("comparison.json", "confusion.npz", "comparison.csv", "classes.csv",
                 "pairs.csv", "plots/photos-fine-test_accuracy.png"):  # fmt: skip
        assert (again / name).read_bytes() == (out / name).read_bytes(), name
    assert json.loads((again / "timings.json").read_text())["runs"] == {}


def test_a_noisy_head_is_judged_without_noise_and_by_the_mean_of_samples(
    compared, runs, loaded
):
    made, out = compared
    rows = [r for r in made.comparison.tables[0].rows if "gumbel" in r.run]
    assert [row.samples for row in rows] == [0, 16]
    serve, _ = saved_model.load(runs[2])
    images = tf.constant(loaded.test.images)
    draws = [
        serve.sample(images=images, seeds=tf.constant([seed], tf.int64))
        for seed in range(16)
    ]
    mean = np.mean([draw["probabilities"].numpy()[0] for draw in draws], axis=0)
    with np.load(out.parent / "probabilities" / f"{rows[1].id}.npz") as saved:
        np.testing.assert_allclose(saved["probabilities"], mean, atol=1e-6)


def test_samples_are_a_function_of_their_seeds_and_of_the_distribution(runs):
    serve, _ = saved_model.load(runs[2])
    assert saved_model.load(runs[1])[0].sample is None
    images = tf.zeros((1, 16, 16, 3), tf.uint8)
    seeds = tf.range(4000, dtype=tf.int64)
    drawn, again = (
        serve.sample(images=images, seeds=s)["probabilities"].numpy()[:, 0]
        for s in (seeds, tf.reverse(seeds, [0]))
    )
    # Not to the bit: a vectorised exponential may round its last elements otherwise.
    np.testing.assert_allclose(drawn, again[::-1], rtol=1e-5, atol=1e-6)
    # The argmax of logits with Gumbel noise is a sample of their softmax.
    temperature = 0.5
    logits = temperature * serve(images=images)["log_probabilities"].numpy()[0]
    expected = np.exp(logits) / np.exp(logits).sum()
    found = np.bincount(drawn.argmax(axis=1), minlength=3) / len(drawn)
    np.testing.assert_allclose(found, expected, atol=4 * 0.5 / np.sqrt(len(drawn)))


def test_temperature_scaling_is_fitted_on_the_validation_images_of_the_seed(
    compared, runs, tiny
):
    for run, seed in ((runs[1], 0), (runs[-1], 1)):
        (row,) = (r for r in compared[0].comparison.tables[0].rows if r.run == run.name)
        validation = training.load_data(dataclasses.replace(tiny, seed=seed)).validation
        serve, _ = saved_model.load(run)
        log_p = serve(images=tf.constant(validation.images))["log_probabilities"]
        fitted = metrics.fit_temperature(log_p.numpy(), validation.labels)
        assert row.temperature == fitted


def test_each_run_is_calibrated_on_the_images_that_it_held_out(
    tiny, tmp_path, monkeypatch
):
    monkeypatch.setattr(draw_png, "save_all", lambda *_: None)
    shares = (0.1, 0.5)
    configs = [
        dataclasses.replace(tiny, epochs=1, validation_share=share) for share in shares
    ]
    paths = [training.train(config, tmp_path) for config in configs]
    made = evaluation.evaluate(paths, tmp_path / "out", timings=False)
    rows = {row.run: row for row in made.comparison.tables[0].rows}
    for config, path in zip(configs, paths, strict=True):
        validation = training.load_data(config).validation
        serve, _ = saved_model.load(path)
        log_p = serve(images=tf.constant(validation.images))["log_probabilities"]
        fitted = metrics.fit_temperature(log_p.numpy(), validation.labels)
        assert rows[path.name].temperature == pytest.approx(fitted)


def test_runs_that_differ_by_their_seed_alone_have_a_mean_and_a_deviation(compared):
    table = compared[0].comparison.tables[0]
    (group,) = table.groups
    values = [row.as_is.metrics["nll"] for row in table.rows if row.run in group.runs]
    assert group.title == "log_softmax, matched"
    spread = group.as_is["nll"]
    assert spread.mean == pytest.approx(np.mean(values))
    assert spread.std == pytest.approx(np.std(values, ddof=1))


def test_every_pair_of_runs_is_tested(compared):
    made, out = compared
    pairs = rows_of(out, "pairs.csv")
    accuracy = {r.run: r.accuracy for r in made.comparison.tables[0].rows
                if not r.samples}  # fmt: skip
    assert len(pairs) == 10  # of 5 runs
    for pair in pairs:
        a, b = accuracy[pair["a"]], accuracy[pair["b"]]
        assert float(pair["difference"]) == pytest.approx(a - b)
        assert float(pair["p"]) <= float(pair["p_holm"]) <= 1


def test_the_markdown_shows_ours_beside_the_reported(compared):
    made, out = compared
    text = (out / "comparison.md").read_text("utf-8")
    row = made.comparison.tables[0].rows[-1]
    assert f"{100 * row.accuracy:.2f} %" in text
    assert re.search(r"\| theirs \| softmax, as_logits, .* \| 0.396 \(sic\) \|", text)
    assert "`the command`" in text


def test_names_are_shown_as_they_are_in_markdown_and_csv(compared, tmp_path):
    results, _ = compared
    (table,) = results.comparison.tables
    hostile = "<img src=x>|a\nb"
    dataset = dataclasses.replace(table.dataset, name=hostile)
    names = ["=1+1", "-2", "@x"]
    table = dataclasses.replace(table, dataset=dataset, class_names=names)
    changed = dataclasses.replace(results.comparison, tables=[table])
    results = results._replace(comparison=changed)
    text = files.markdown(results)
    assert "&lt;img src=x&gt;\\|a b, 3 classes" in text
    assert "<img" not in text
    files.write(results, tmp_path)
    shown = {row["class"] for row in rows_of(tmp_path, "classes.csv")}
    assert shown == {"'=1+1", "'-2", "'@x"}


def table_of_temperatures():
    """Two heads at some temperatures, one of them judged by samples too."""
    temperatures = [3.0, -1.5, 10.0, None, "learned"]
    configs = [
        Config(head="gumbel_softmax", temperature=temperature)
        for temperature in [*temperatures, Annealing("cosine", 3.0, 0.5)]
    ]
    configs += [Config(), Config(head="log_gumbel_softmax", loss="as_logits")]
    device = run_folder.Device("CPU", "a processor", 2)
    runs = {
        str(i): comparison.Trained(str(i), c, 1, "float32", 1.0, device, {}, None)
        for i, c in enumerate(configs)
    }
    bins = comparison.Bins([], [], [], [], [])
    rows = [
        comparison.Row(
            id=f"{name}-{samples}",
            run=name,
            title=name,
            samples=samples,
            scores=False,
            as_is=comparison.Judgement(
                {"accuracy": 0.1 * i, "nll": 1.0 + i, "ece": 0.5},
                {"accuracy": [0.1 * i - 0.01, 0.1 * i + 0.02]},
                bins,
            ),
            temperature=1.0,
            scaled=comparison.Judgement({"nll": 0.9, "ece": 0.1}, {}, bins),
        )
        for i, name in enumerate(runs)
        for samples in ((0, 16) if i == 0 else (0,))
    ]
    dataset = comparison.Tested("cifar100", "fine", "0" * 64, 100, 100)
    return comparison.Table(dataset, ["a"], None, None, runs, rows, [], [])


def test_no_configuration_is_the_most_accurate_of_equals():
    table = table_of_temperatures()
    assert "the most accurate" in wording.findings(table)
    rows = []
    for row in table.rows:
        numbers = row.as_is.metrics | {"accuracy": 1.0}
        as_is = dataclasses.replace(row.as_is, metrics=numbers)
        rows.append(dataclasses.replace(row, as_is=as_is))
    words = wording.findings(dataclasses.replace(table, rows=rows))
    assert words.startswith("All 8 configurations have 100.00 % right on 100 test")
    assert "the most accurate" not in words


def test_metrics_are_shown_by_temperature():
    table = table_of_temperatures()
    order = ["-1.5", "1", "3", "10", "3 to 0.5 cosine", "learned"]
    assert plots.temperatures(table) == order
    lines = plots.by_temperature(table, "test accuracy")
    found = {series.name: series for series in lines.series}
    assert found.keys() == {
        *("gumbel_softmax, matched", "gumbel_softmax, matched, 16 samples"),
        "log_gumbel_softmax, as_logits",
    }
    line = found["gumbel_softmax, matched"]
    points = list(zip(line.x, line.y, line.below, line.above, strict=True))
    shown = [point for point in points if not np.isnan(point[1])]
    assert [point[0] for point in shown] == order
    assert shown[2] == pytest.approx(("3", 0.0, 0.01, 0.02))
    # Lines lead from number to number of one sign, and nowhere else.
    broken = [point[0] for point in points if np.isnan(point[1])]
    assert broken == ["1", "3 to 0.5 cosine", "learned"]
    assert points[0][1] == pytest.approx(0.1)
    shown = draw_plotly.draw(plots.by_temperature(table, "ECE"))
    assert list(dict.fromkeys(shown["data"][0]["x"])) == order
    drawn = draw_png.by_temperature(table)
    assert [len(axes.containers) for axes in drawn.axes] == [3, 3, 3]


def test_seeds_of_one_temperature_are_one_point():
    table = table_of_temperatures()
    row = next(row for row in table.rows if not row.samples)
    run = table.runs[row.run]
    seed = dataclasses.replace(run.config, seed=1)
    judged = comparison.Judgement(
        {"accuracy": 0.4, "nll": 1.0, "ece": 0.1}, {}, row.as_is.reliability
    )
    other = dataclasses.replace(row, id="again", run="again", as_is=judged)
    again = {"again": dataclasses.replace(run, config=seed)}
    table = with_more(table, [other], again)
    lines = plots.by_temperature(table, "test accuracy").series
    line = next(s for s in lines if s.name == "gumbel_softmax, matched")
    place = list(line.x).index(plots.name_of_temperature(run))
    mean = (row.accuracy + 0.4) / 2
    assert line.y[place] == pytest.approx(mean)
    assert line.below[place] == pytest.approx(mean - row.accuracy)
    assert line.above[place] == pytest.approx(0.4 - mean)


def test_what_differs_beside_the_temperature_is_another_line():
    table = table_of_temperatures()
    row = next(row for row in table.rows if not row.samples)
    run = table.runs[row.run]
    longer = dataclasses.replace(run.config, epochs=99)
    more = {"longer": dataclasses.replace(run, config=longer), "export": run}
    rows = [dataclasses.replace(row, id=name, run=name) for name in more]
    table = with_more(table, rows, more)
    before = plots.by_temperature(table_of_temperatures(), "test accuracy").series
    found = plots.by_temperature(table, "test accuracy").series
    names = {series.name for series in found}
    assert names == {s.name for s in before} | {"gumbel_softmax, matched, epochs 99"}
    for series in before:
        (same,) = (s for s in found if s.name == series.name)
        np.testing.assert_array_equal(same.y, series.y)
        np.testing.assert_array_equal(same.above, series.above)


def test_one_temperature_a_head_is_no_curve():
    table = table_of_temperatures()
    runs = {name: table.runs[name] for name in ("0", "6", "7")}
    assert plots.temperatures(dataclasses.replace(table, runs=runs)) == []


def test_runs_on_other_data_have_a_table_of_their_own(
    runs, tiny, tmp_path, monkeypatch
):
    other = tmp_path / "other"
    shutil.copytree(tiny.dataset.removeprefix("folder:"), other)
    (other / "train" / "red").rename(other / "train" / "yellow")
    (other / "test" / "red").rename(other / "test" / "yellow")
    next((other / "test" / "blue").iterdir()).unlink()
    config = dataclasses.replace(tiny, dataset=f"folder:{other}")
    run = pretend(config, training.load_data(config), tmp_path / "runs")
    monkeypatch.setattr(draw_png, "save_all", lambda *_: None)
    made = evaluation.evaluate([runs[0], run], tmp_path / "out", timings=False)
    assert [len(table.runs) for table in made.comparison.tables] == [1, 1]
    text = (tmp_path / "out" / "comparison.md").read_text("utf-8")
    assert text.count("### Results") == 2


def test_labels_or_data_that_differ_part_the_tables():
    def run(name, label, checksum):
        record = ended(Config("softmax", dataset=name, label=label))
        dataset = dataclasses.replace(record.dataset, name=name, checksum=checksum)
        record = dataclasses.replace(record, dataset=dataset)
        return run_folder.Run(name, Path(name), record)

    runs = [
        run("cifar100", "fine", "a"),
        run("cifar100", "coarse", "b"),
        run("cifar100", "coarse", "a"),
        run("shapes100", "fine", "a"),
        run("cifar100", "fine", "a"),
    ]
    assert between_runs.comparable(runs) == [
        [runs[0], runs[4]],
        *([r] for r in runs[1:4]),
    ]


def test_changed_data_is_refused(runs, tiny, tmp_path, capsys):
    photos = tmp_path / "photos"
    shutil.copytree(tiny.dataset.removeprefix("folder:"), photos)
    config = dataclasses.replace(tiny, dataset=f"folder:{photos}")
    run = pretend(config, training.load_data(config), tmp_path / "runs")
    next((photos / "test" / "blue").iterdir()).unlink()
    assert "is not what" in refusal(capsys, str(run), "--out", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    shutil.copytree(tiny.dataset.removeprefix("folder:"), photos, dirs_exist_ok=True)
    for split in ("train", "test"):
        (photos / split / "red").rename(photos / split / "rose")
    assert "other names" in refusal(capsys, str(run), "--out", str(tmp_path / "out"))


def refusal(capsys, *argv):
    """The one sentence with which the command ends."""
    with pytest.raises(SystemExit) as ended:
        evaluate.main(argv)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_bad_input_ends_in_one_sentence(runs, tmp_path, capsys):
    file, empty = tmp_path / "file", tmp_path / "empty"
    file.touch()
    empty.mkdir()
    assert "no runs to compare" in refusal(capsys, str(file))
    assert "There is no run in" in refusal(capsys, str(empty))
    assert "is a file" in refusal(capsys, str(runs[0]), "--out", str(file))
    copy = tmp_path / "copy"
    shutil.copytree(runs[0], copy)
    record = json.loads((copy / run_folder.EXTRA / "run.json").read_text())
    record["config"]["colour"] = "red"
    (copy / run_folder.EXTRA / "run.json").write_text(json.dumps(record))
    assert "of another version" in refusal(capsys, str(copy))
    shutil.copy(runs[0] / run_folder.EXTRA / "run.json", copy / run_folder.EXTRA)
    (copy / run_folder.EXTRA / "history.csv").write_text("")
    assert "history" in refusal(capsys, str(copy))


def test_what_else_lies_in_the_folder_stays(tmp_path):
    out = tmp_path / "out"
    work = publishing.start(out)
    for folder, names in {out: ("notes.md", "a.csv"), work: ("a.csv",)}.items():
        (folder / "plots").mkdir(parents=True)
        (folder / "plots" / f"{folder.name}.png").touch()
        for name in names:
            (folder / name).write_text(folder.name)
    (out / "mine").mkdir()
    (out / "mine" / "data").write_text("mine")
    files.publish(out)
    assert (out / "notes.md").read_text() == "out"
    assert (out / "a.csv").read_text() == "new"
    assert (out / "mine" / "data").read_text() == "mine"
    assert [path.name for path in (out / "plots").iterdir()] == ["new.png"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_titles_tell_what_differs():
    made = functools.partial(Config, dataset="cifar100")
    assert titles.titles([made("softmax")]) == ["softmax"]
    annealed = Annealing("linear", 3.0, 0.5)
    configs = [
        made("gumbel_softmax", temperature=-1.5, seed=1, loss="as_logits"),
        made("gumbel_softmax", temperature=annealed, weight_decay=0.0),
        made("gumbel_softmax", temperature="learned"),
        made("gumbel_softmax", temperature=Annealing("jang", 3.0, 1.0, 500)),
        made("gumbel_softmax", temperature=1.0000001),
    ]
    assert titles.titles(configs) == [
        "gumbel_softmax t -1.5, as_logits, seed 1",
        "gumbel_softmax t 3 to 0.5 linear, matched, weight decay 0, seed 0",
        "gumbel_softmax t learned, matched, seed 0",
        "gumbel_softmax t 3 to 1 jang every 500, matched, seed 0",
        "gumbel_softmax t 1.0000001, matched, seed 0",
    ]


def test_runs_of_one_name_are_told_apart(runs, tmp_path):
    copy = tmp_path / "elsewhere" / runs[0].name
    shutil.copytree(runs[0], copy)
    found = run_folder.find([runs[0], copy, runs[0]])
    assert len({run.name for run in found}) == len(found) == 2
    configs = {run.name: run.config for run in found}
    assert len(set(titles.headings(configs).values())) == 2


@pytest.mark.skipif(
    CHROMIUM is None and "KERASOFT_REQUIRE_CHROMIUM" not in os.environ,
    reason="there is no Chromium to open the page",
)
def test_the_page_opens_in_a_browser_without_a_network(compared, tmp_path):
    made, out = compared
    (table,) = made.comparison.tables
    opened = subprocess.run(
        [
            *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu"),
            *("--disable-background-networking", "--no-first-run"),
            *(f"--user-data-dir={tmp_path}", "--host-resolver-rules=MAP * ~NOTFOUND"),
            *("--enable-logging=stderr", "--virtual-time-budget=10000", "--dump-dom"),
            (out / "comparison.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    console = [line for line in opened.stderr.splitlines() if "CONSOLE" in line]
    assert not console  # an error, or a request that the page's policy refused
    dom = opened.stdout
    for row in table.rows:
        cell = f'<td data-key="{row.accuracy}" class=" g g0">'
        assert f"{cell}{100 * row.accuracy:.2f} %<small>" in dom
    # What the page's script wrote: the classes of the first run, and the plots.
    line = metrics.class_lines(made.confusions[table.rows[0].id], table.class_names)[0]
    drawn = re.search(r'<table class="classes">.*?<tbody>(.*?)</tr>', dom, re.DOTALL)
    assert drawn
    cells = re.findall(r"<td[^>]*>(.*?)</td>", drawn[1])
    assert cells[0] == line["class"]
    assert float(cells[3]) == pytest.approx(line["recall"], abs=1e-4)
    assert dom.count('class="plot-container plotly"') == 6
    assert dom.count("heatmaplayer") >= 2


def test_a_metric_is_added_by_one_registration(runs, tmp_path, monkeypatch):
    def sure(facts, *_):
        return np.mean(facts["confidence"] > 0.5)

    monkeypatch.setitem(metrics.METRICS, "sure", metrics.Metric(sure, "how sure"))
    out = tmp_path / "out"
    made = evaluation.evaluate(runs[:2], out, timings=False)
    (first, *_) = rows_of(out, "comparison.csv")
    row = next(r for r in made.comparison.tables[0].rows if r.run == first["run"])
    facts = keeping.read_outcomes(out / "outcomes" / f"{row.id}.npz")
    assert float(first["sure"]) == np.mean(facts["confidence"] > 0.5)
    assert float(first["sure_low"]) <= float(first["sure"]) <= float(first["sure_high"])
    for name in ("comparison.md", "comparison.html"):
        assert "how sure" in (out / name).read_text("utf-8")
    checks.check_objective(search.Search(objective="sure"))


def test_configurations_are_compared_over_seeds(compared):
    (results, _) = compared
    (table,) = results.comparison.tables
    once = [row for row in table.rows if not row.samples]
    again = {f"{row.run}-again": row for row in once}
    seeds = {
        name: dataclasses.replace(
            table.runs[row.run],
            config=dataclasses.replace(
                table.runs[row.run].config, seed=7 + table.runs[row.run].config.seed
            ),
        )
        for name, row in again.items()
    }
    more = [dataclasses.replace(r, id=n, run=n) for n, r in again.items()]
    table = dataclasses.replace(table, rows=once + more, runs=table.runs | seeds)
    generator = np.random.default_rng(0)
    label = np.arange(1000) % 3

    def drawn(row):
        good = table.runs[row.run].config.head == "log_softmax"
        right = generator.random(1000) < (0.9 if good else 0.5)
        return {"label": label, "predicted": np.where(right, label, 3)}

    outcomes = {row.id: drawn(row) for row in table.rows}
    configs = {
        run.config.head: dataclasses.replace(run.config, seed=0)
        for run in table.runs.values()
    }
    best, other = configs["log_softmax"], configs["softmax"]

    chosen = between_runs.against_each_other(table, outcomes, [], 0.01)
    assert len(chosen) == len(configs) - 1
    assert not any(contrast.declared for contrast in chosen)
    assert {contrast.b for contrast in chosen} == {"log_softmax, matched"}

    declared = [(best, other), (other, configs["z_loss"])]
    found = between_runs.against_each_other(table, outcomes, declared, 0.05)
    first, second = found
    right = {row.id: metrics.right(outcomes[row.id]) for row in table.rows}
    means = [
        np.mean([right[r.id] for r in table.rows if r.run.find(f"-{head}-") > 0])
        for head in ("log_softmax", "softmax")
    ]
    assert first.difference == pytest.approx(means[0] - means[1])
    assert first.verdict == "different"
    assert (len(first.runs_a), len(first.runs_b)) == (4, 2)
    assert second.verdict != "different"
    assert first.p is not None
    assert second.p is not None
    assert [first.p_holm, second.p_holm] == metrics.holm([first.p, second.p])
    section = tables.contrasts(dataclasses.replace(table, contrasts=found))
    assert section.body[0][-1].text == "different"
    assert "less than 5 points" in section.note
    assert "No contrasts were declared" not in section.note
    words = wording.findings(dataclasses.replace(table, contrasts=found))
    assert words.endswith("over seeds: 1 different, 1 equivalent.")
    section = tables.contrasts(dataclasses.replace(table, contrasts=chosen))
    assert "No contrasts were declared" in section.note


def test_an_ensemble_answers_with_the_mean_of_the_probabilities(compared):
    results, out = compared
    (table,) = results.comparison.tables
    (group,) = (group for group in table.groups if not group.samples)
    answers = [np.load(out.parent / "probabilities" / f"{n}.npz") for n in group.runs]
    labels = answers[0]["labels"]
    mean = np.mean([answer["probabilities"] for answer in answers], axis=0)
    assert group.ensemble is not None
    found = group.ensemble.metrics
    assert found["accuracy"] == np.mean(mean.argmax(axis=1) == labels)
    assert found["nll"] == pytest.approx(
        sklearn.metrics.log_loss(labels, mean, labels=range(3)), rel=1e-5
    )
    for name in ("comparison.md", "comparison.html"):
        assert "ensemble" in (out / name).read_text("utf-8")


def test_one_seed_is_compared_with_nothing(compared):
    (results, _) = compared
    (table,) = results.comparison.tables
    assert not table.contrasts  # one configuration alone has two seeds
    configs = [run.config for run in table.runs.values()]
    a, b = (c for c in configs if c.seed == 0 and c.head in ("softmax", "log_softmax"))
    (found,) = between_runs.against_each_other(table, results.outcomes, [(a, b)], 0.01)
    assert found.interval is None
    assert found.verdict == "cannot tell"
    section = tables.contrasts(dataclasses.replace(table, contrasts=[found]))
    assert section.body[0][-1].text == "cannot tell (one seed)"


def test_a_declared_contrast_without_runs_is_named(runs, tiny, tmp_path, capsys):
    a, b = (dataclasses.replace(tiny, head=head) for head in ("softmax", "entmax15"))
    made = evaluation.evaluate(
        runs[1:2], tmp_path / "out", timings=False, contrasts=[(a, b)]
    )
    assert not made.comparison.tables[0].contrasts
    assert "left out: softmax and entmax15 are not compared" in capsys.readouterr().err


def test_a_request_is_refused_before_any_run_is_judged(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "judge_all", lambda *_: pytest.fail("judged"))
    other = dataclasses.replace(
        run_folder.read_record(runs[0]).dataset, name="shapes100", checksum="f" * 64
    )
    record = dataclasses.replace(run_folder.read_record(runs[0]), dataset=other)
    shutil.copytree(runs[0], tmp_path / "runs" / "last")
    leave(record, tmp_path / "runs" / "last")
    paths = [*runs[1:3], tmp_path / "runs" / "last"]
    with pytest.raises(InputError, match="judged on shapes100"):
        evaluation.evaluate(paths, tmp_path / "out", ood="shapes100")
    large = dataclasses.replace(
        record, dataset=dataclasses.replace(other, classes=9999)
    )
    leave(large, tmp_path / "runs" / "last")
    with pytest.raises(InputError, match=r"of at most 1,000 classes.* 9,999"):
        evaluation.evaluate(paths, tmp_path / "out", probabilities=tmp_path / "p")
    assert not list(tmp_path.glob("out/*"))
