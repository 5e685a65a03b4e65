"""What the comparison's plots show: series of numbers, whoever draws them.

`draw_plotly` draws them for the page, `draw_png` for Markdown.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from kerasoft.heads import HEADS, takes
from pipelines import metrics, titles
from pipelines.comparison import Bins, Row, Table, Trained, first_of_each
from pipelines.config import Annealing, digits

# Okabe and Ito's colours, those that stand out on white and on black.
COLOURS = ("#3b8fd9", "#e69f00", "#12a883", "#d55e00", "#cc79a7", "#56b4e9", "#9b7fd1",
           "#8c8c8c")  # fmt: skip
CURVES = {
    "val_accuracy": "validation accuracy",
    "val_loss": "validation loss",
    "accuracy": "training accuracy",
    "loss": "training loss",
    "val_classes_predicted": "classes predicted for validation images",
    "temperature": "temperature",
}
BY_TEMPERATURE = {
    "test accuracy": ("accuracy", False),
    "NLL": ("nll", False),
    "ECE": ("ece", False),
    "NLL, scaled": ("nll", True),
    "ECE, scaled": ("ece", True),
}
MOST_CONFUSED = 15
MOST_CLASSES = 1000  # in a confusion matrix
WORST_CLASSES = 100  # in the list of classes, if there are more than that
MOST_DRAWN = 12  # rows in a plot


class Series(NamedTuple):
    """A line of a plot.

    Attributes:
        name: As the legend has it.
        x: Where its points are: numbers, or names of an axis of names.
        y: Their values. NaN parts the line.
        below: How far an interval reaches below each, if there are intervals.
        above: How far above.
        notes: What else is known of each point.
        id: Of the row or run that it is of.
    """

    name: str
    x: Sequence
    y: Sequence[float]
    below: Sequence[float] = ()
    above: Sequence[float] = ()
    notes: Sequence[str] = ()
    id: str = ""


class Lines(NamedTuple):
    """Lines over a common axis.

    Attributes:
        x: What the horizontal axis shows.
        y: What the vertical one does.
        series: The lines.
        names: The places on the horizontal axis, if they are names.
        unit: Whether both axes go from 0 to 1, with the diagonal.
    """

    x: str
    y: str
    series: list[Series]
    names: Sequence[str] = ()
    unit: bool = False


class Dots(NamedTuple):
    """A value for each name, with its interval."""

    x: str
    series: list[Series]  # of one point each


class Bars(NamedTuple):
    """A count for each name."""

    x: str
    names: list[str]
    counts: list[int]


class Heatmap(NamedTuple):
    """A confusion matrix, true classes from above, predicted ones from the left."""

    matrix: np.ndarray
    names: Sequence[str]


def drawn(rows: Sequence[Row]) -> list[Row]:
    """The rows that a plot shows: a dozen, from the least to the most accurate."""
    rows = sorted(rows, key=lambda row: row.accuracy)
    if len(rows) <= MOST_DRAWN:
        return rows
    places = np.linspace(0, len(rows) - 1, MOST_DRAWN).round().astype(int)
    return [rows[place] for place in places]


def accuracy(rows: Iterable[Row]) -> Dots:
    """Accuracies with their intervals, the highest last."""
    series = []
    for row in sorted(rows, key=lambda row: row.accuracy):
        low, high = row.as_is.intervals["accuracy"]
        value = row.accuracy
        series.append(
            Series(
                name=row.title,
                x=[value],
                y=[0],
                below=[value - low],
                above=[high - value],
                id=row.id,
            )
        )
    return Dots("test accuracy", series)


def logged(runs: Iterable[Trained]) -> dict[str, str]:
    """The curves that a run's history has, and what to call them."""
    known = {name for run in runs for name in run.history}
    return {name: words for name, words in CURVES.items() if name in known}


def curves(table: Table, runs: Iterable[str], name: str) -> Lines:
    """A curve of the history of runs."""
    series = [
        Series(
            name=run.title,
            x=[epoch + 1 for epoch in run.history["epoch"]],
            y=run.history[name],
            id=run_name,
        )
        for run_name in runs
        for run in [table.runs[run_name]]
        if name in run.history
    ]
    return Lines("epoch", CURVES[name], series)


def reliability(row: Row) -> Lines:
    """Accuracy by confidence, before and after temperature scaling."""

    def line(bins: Bins, name):
        filled = [i for i, count in enumerate(bins.count) if count]
        return Series(
            name=name,
            x=[bins.confidence[i] for i in filled],
            y=[bins.accuracy[i] or 0.0 for i in filled],
            notes=[f"{bins.count[i]} images" for i in filled],
            id=row.id,
        )

    raw = "softmax of its scores" if row.scores else "as it is"
    ece, scaled = row.as_is.metrics["ece"], row.scaled.metrics["ece"]
    lines = [
        line(row.as_is.reliability, f"{raw}, ECE {ece:.4f}"),
        line(
            row.scaled.reliability,
            f"at temperature {row.temperature:.3f}, ECE {scaled:.4f}",
        ),
    ]
    return Lines("confidence", "accuracy", lines, unit=True)


def confused(matrix: csr_array, names: Sequence[str]) -> Bars:
    """The most frequent errors, the most frequent last."""
    found = metrics.confused_pairs(matrix, MOST_CONFUSED)[::-1]
    return Bars(
        "test images",
        [f"{names[true]} → {names[predicted]}" for true, predicted, _ in found],
        [count for _, _, count in found],
    )


def has_matrix(table: Table) -> bool:
    """Whether a confusion matrix can be shown: of very many classes it cannot."""
    return len(table.class_names) <= MOST_CLASSES


def confusion(matrix: csr_array, table: Table) -> Heatmap:
    """A confusion matrix, the classes of a superclass side by side."""
    dense = matrix.toarray()
    if not table.superclasses:
        return Heatmap(dense, table.class_names)
    order = np.argsort(table.superclasses, kind="stable")
    return Heatmap(dense[np.ix_(order, order)], [table.class_names[i] for i in order])


def classes(matrix: csr_array, table: Table) -> list[dict]:
    """The metrics of classes: of very many, those of the least F1."""
    lines = metrics.class_lines(matrix, table.class_names)
    if has_matrix(table):
        return lines
    return sorted(lines, key=lambda line: line["f1"])[:WORST_CLASSES]


def folded(matrix: csr_array, table: Table) -> Heatmap:
    """A confusion matrix of superclasses."""
    superclasses, names = table.superclasses or [], table.superclass_names or []
    return Heatmap(metrics.fold(matrix, superclasses, len(names)), names)


def temperatures(table: Table) -> list[str]:
    """The temperatures that a head was tried at: numbers in order, then the rest.

    Returns:
        Their names; none if no head was tried at several.
    """
    tried = {
        (run.config.head, name)
        for run in table.runs.values()
        if (name := name_of_temperature(run))
    }
    if len(tried) == len({head for head, _ in tried}):
        return []

    def order(name):
        number = _number(name)
        return (number is None, number or 0.0, name)

    return sorted({name for _, name in tried}, key=order)


def name_of_temperature(run: Trained) -> str:
    """A run's temperature in words; none of a head that has none."""
    match run.config.temperature:
        case Annealing() | str() as temperature:
            return str(temperature)
        case float() | int() as temperature:
            return digits(temperature)
    head = run.config.head
    return "1" if head in HEADS and takes(head, "temperature") else ""


def by_temperature(table: Table, words: str) -> Lines:
    """A metric by temperature: a line for what else differs; exports are left out.

    A point is a run, with the interval over its images; or the mean of several seeds,
    with their range.

    No value stands where no line should lead on: between the signs, and beside a
    temperature that is no number.
    """
    metric, scaled = BY_TEMPERATURE[words]
    order = temperatures(table)
    first = first_of_each(table.configs)
    shown = {
        name: dataclasses.replace(run.config, temperature=None, seed=0)
        for name, run in table.runs.items()
        if name in first and name_of_temperature(run)
    }
    titled = dict(zip(shown, titles.titles(list(shown.values())), strict=True))
    found: dict[str, dict[str, list[tuple]]] = {}
    for row in table.rows:
        if row.run in shown:
            name = name_of_temperature(table.runs[row.run])
            judgement = row.scaled if scaled else row.as_is
            value = judgement.metrics[metric]
            low, high = judgement.intervals.get(metric, (value, value))
            noise = f", {row.samples} samples" if row.samples else ""
            line = found.setdefault(titled[row.run] + noise, {})
            line.setdefault(name, []).append((value, low, high))
    series = []
    for name, by_name in found.items():
        line = [
            (place, *_with_range(by_name[place])) for place in order if place in by_name
        ]
        for i in reversed(range(1, len(line))):
            if _line_of(line[i - 1][0]) != _line_of(line[i][0]):
                line.insert(i, (line[i][0], math.nan, math.nan, math.nan))
        x, y, below, above = map(list, zip(*line, strict=True))
        series.append(Series(name, x, y, below, above))
    return Lines("temperature", words, series, names=order)


def _with_range(runs: Sequence[tuple[float, float, float]]) -> tuple:
    """A value, and how far its interval reaches below and above."""
    if len(runs) == 1:
        ((value, low, high),) = runs
    else:
        values = [value for value, _, _ in runs]
        value, low, high = statistics.fmean(values), min(values), max(values)
    return value, max(value - low, 0), max(high - value, 0)


def _line_of(temperature: str) -> str | bool:
    """What a line through temperatures keeps to: a sign, or one that is no number."""
    number = _number(temperature)
    return temperature if number is None else number > 0


def _number(temperature: str) -> float | None:
    """A temperature's number, from its name; none of a schedule and a learned one."""
    try:
        return float(temperature)
    except ValueError:
        return None
