"""A table and the plot of docs/why-softmax-scored-8-percent.md on the mechanism.

    python experiments/mechanism.py

It draws results/mechanism/mechanism.png, from results/mechanism/comparison.json, which
`python -m pipelines.run experiments/mechanism.yaml` wrote. document_tables.py writes
the table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib.figure
import numpy as np
from matplotlib.axes import Axes

from pipelines import document, draw_png, markdown
from pipelines.comparison import Table, Trained
from pipelines.keeping import read
from pipelines.plots import COLOURS

RESULTS = Path(__file__).parents[1] / "results" / "mechanism"
AS_LOGITS, MATCHED = "as_logits", "matched"
RECOVERS = "as_logits for 4 epochs, then matched"
KEEPS = "matched for 4 epochs, then as_logits"
DOSES = {f"generalized:{q}": float(q) for q in ("0.1", "0.3", "0.7", "1")}
WORDS = {
    MATCHED: "matched loss",
    KEEPS: "matched, from epoch 5 as logits",
    RECOVERS: "as logits, from epoch 5 matched",
    AS_LOGITS: "as logits",
    "generalized:1": "mean absolute error",
}
PREDICTED = "val_classes_predicted"
SHORT = {"sgd": "SGD", "adam": "Adam", "muon": "Muon"}


def members(table: Table, loss: str, optimizer: str = "sgd") -> list[Trained]:
    """The runs of a loss and an optimiser, by seed."""
    found = [
        run
        for run in table.runs.values()
        if (str(run.config.loss), run.config.optimizer) == (loss, optimizer)
    ]
    return sorted(found, key=lambda run: run.config.seed)


def accuracies(table: Table, runs: Sequence[Trained]) -> list[float]:
    """Their test accuracies."""
    accuracy = {row.run: row.accuracy for row in table.rows}
    return [accuracy[name] for name, run in table.runs.items() if run in runs]


def last(runs: Sequence[Trained], curve: str) -> list[float]:
    return [run.history[curve][-1] for run in runs]


def table_of_runs(table: Table) -> str:
    """Accuracy, classes predicted and the end of the training loss, by loss."""
    kinds = [(loss, "sgd") for loss in (MATCHED, *DOSES, AS_LOGITS, RECOVERS, KEEPS)]
    kinds += [(loss, o) for o in ("adam", "muon") for loss in (MATCHED, AS_LOGITS)]
    rows = [
        {
            "loss": loss.replace("_", " "),
            "optimiser": SHORT[optimizer],
            "seeds": len(runs),
            "accuracy, %": document.mean(accuracies(table, runs), ".2f", 100),
            "classes predicted": document.mean(
                last(runs, "val_classes_predicted"), ".0f"
            ),
            "last loss": document.mean(last(runs, "loss"), ".3f"),
        }
        for loss, optimizer in kinds
        if (runs := members(table, loss, optimizer))
    ]
    return markdown.table(rows, "loss", "optimiser")


def bound(classes: int) -> tuple[float, float]:
    """The least and the largest log-sum-exp of a point of the simplex."""
    return math.log(classes) + 1 / classes, math.log(math.e + classes - 1)


def by_dose(table: Table, axes: Axes):
    """Test accuracy by the power q, each seed a point."""
    places = {MATCHED: 0.0, **DOSES}
    for colour, losses in ((COLOURS[0], places), (COLOURS[3], {AS_LOGITS: 1.08})):
        found = {
            place: [100 * a for a in accuracies(table, members(table, loss))]
            for loss, place in losses.items()
        }
        if len(found) > 1:
            axes.plot(list(found), [np.mean(v) for v in found.values()], color=colour)
        for place, values in found.items():
            axes.plot([place] * len(values), values, "o", color=colour, ms=5)
    axes.annotate(
        "softmax\nas logits", (1.08, 14), color=COLOURS[3], ha="right", fontsize=9
    )
    axes.set_xlabel("q of the loss (1 - p**q) / q; 0: cross-entropy")
    axes.set_ylabel("test accuracy, %")
    axes.set_ylim(0, 65)


def by_epoch(table: Table, axes: Axes):
    """The classes predicted at all, by epoch, each seed a line."""
    for colour, (loss, words) in zip(COLOURS, WORDS.items(), strict=False):
        for number, run in enumerate(members(table, loss)):
            epochs = [1 + epoch for epoch in run.history["epoch"]]
            curve = run.history[PREDICTED]
            label = "" if number else words
            axes.plot(epochs, curve, color=colour, label=label, lw=1.5, alpha=0.8)
    axes.set_xlabel("epoch")
    axes.set_ylabel("classes predicted, of 100")
    axes.set_ylim(0, 104)
    axes.legend(fontsize=8, frameon=False, loc="center right")


def draw(table: Table) -> matplotlib.figure.Figure:
    """Accuracy by dose, and the classes predicted by epoch."""
    figure = matplotlib.figure.Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    by_dose(table, left)
    by_epoch(table, right)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    (compared,) = read(RESULTS).comparison.tables
    draw_png.save(draw(compared), RESULTS / "mechanism.png")
