"""What runs answer, judged batch by batch."""

import dataclasses

import numpy as np
import pytest

from pipelines import (
    datasets,
    draw_png,
    evaluate,
    evaluation,
    judging,
    metrics,
    plots,
    saved_model,
)

pytestmark = pytest.mark.usefixtures("few_resamples")


@pytest.fixture
def many(monkeypatch):
    """As if three classes were too many to hold all probabilities."""

    def refused(*_):
        raise AssertionError("a dense matrix was made")

    monkeypatch.setattr(plots, "confusion", refused)
    monkeypatch.setattr(judging, "MANY", 2)
    monkeypatch.setattr(plots, "MOST_CLASSES", 2)
    monkeypatch.setattr(plots, "WORST_CLASSES", 1)
    monkeypatch.setattr(saved_model, "BATCH", 7)


@pytest.mark.parametrize(("each", "has"), [(10, True), (2, False)])
def test_a_mean_over_classes_has_an_interval_around_it_or_none(each, has):
    draws = np.random.default_rng(0)
    labels = np.repeat(np.arange(40), each)
    p = draws.dirichlet(np.ones(40), size=len(labels))
    p[np.arange(len(labels)), labels] += 0.06
    p /= p.sum(axis=1, keepdims=True)
    found = judging.judged(metrics.outcomes(p, labels), None, None)
    assert found.metrics["recall"] == pytest.approx(found.metrics["accuracy"])
    assert "accuracy" in found.intervals
    assert ("recall" in found.intervals) == ("f1" in found.intervals) == has
    for name in ("accuracy", "recall"):
        if name in found.intervals:
            low, high = found.intervals[name]
            assert low < found.metrics[name] < high


def test_many_classes_are_judged_as_few_are(runs, tmp_path, request, monkeypatch):
    load = datasets.load

    def with_superclasses(*given):
        names = ["bg", "r"]
        data = load(*given)
        return dataclasses.replace(data, superclasses=[0, 1, 0], superclass_names=names)

    monkeypatch.setattr(datasets, "load", with_superclasses)
    with monkeypatch.context() as patch:
        patch.setattr(draw_png, "save_all", lambda *_: None)
        few = evaluation.evaluate(runs, tmp_path / "few", timings=False)
    request.getfixturevalue("many")
    found = evaluation.evaluate(runs, tmp_path / "many", timings=False)
    (table,), (whole,) = found.comparison.tables, few.comparison.tables
    for row, other in zip(table.rows, whole.rows, strict=True):
        for judged, expected in ((row.as_is, other.as_is), (row.scaled, other.scaled)):
            numbers = dict(expected.metrics)
            del numbers["classwise_ece"]
            if not row.samples:  # whose noise is that of their batch
                assert judged.metrics == pytest.approx(numbers, rel=1e-4, abs=1e-6)
            assert judged.floors.keys() == expected.floors.keys() - {"classwise_ece"}
    assert all(group.ensemble is None for group in table.groups)
    assert any(group.ensemble for group in whole.groups)
    page = (tmp_path / "many" / "comparison.html").read_text("utf-8")
    assert "Confusion matrix" not in page
    assert "The 1 classes of the lowest F1" in page
    # Without the dense matrix; folded into superclasses it can be shown.
    assert list((tmp_path / "many" / "plots").glob("*confusion*"))


def test_some_validation_images_are_enough_for_many_classes(runs, loaded, monkeypatch):
    asked = []
    answers = judging.answers

    def counted(run, serve, images, samples=0):
        asked.append(len(images))
        yield from answers(run, serve, images, samples)

    monkeypatch.setattr(judging, "answers", counted)
    monkeypatch.setattr(judging, "HELD", 3 * 5)
    run = dataclasses.make_dataclass("Named", ["name"])("run")
    serve, _ = saved_model.load(runs[0])
    judging.judge(run, serve, 0, loaded, loaded.validation)
    assert asked == [5, len(loaded.test.labels)]


def test_every_probability_of_many_classes_is_not_kept(runs, tmp_path, many, capsys):
    argv = [str(runs[0]), "--probabilities", str(tmp_path / "p")]
    with pytest.raises(SystemExit, match=r"^2$"):
        evaluate.main([*argv, "--out", str(tmp_path / "out")])
    assert "of at most 2 classes" in capsys.readouterr().err


def test_harder_images_have_a_column(runs, loaded, tmp_path, monkeypatch):
    load = datasets.load

    def with_harder(*given):
        data = load(*given)
        return dataclasses.replace(data, harder=lambda: 255 - data.test.images)

    monkeypatch.setattr(datasets, "load", with_harder)
    found = evaluation.evaluate(runs[:2], tmp_path / "out", timings=False)
    (table,) = found.comparison.tables
    for row in table.rows:
        (path,) = (run for run in runs if run.name == row.run)
        serve, _ = saved_model.load(path)
        answer = serve(images=255 - loaded.test.images)["class"].numpy()
        if not row.samples:
            expected = np.mean(answer == loaded.test.labels)
            assert row.as_is.metrics["harder_accuracy"] == pytest.approx(expected)
            low, high = row.as_is.intervals["harder_accuracy"]
            assert low <= expected <= high
    text = (tmp_path / "out" / "comparison.md").read_text("utf-8")
    assert "accuracy, harder images" in text
