"""The write-up's table with our results, as the documents show it.

    python experiments/writeup_table.py

It draws results/writeup/heads.png, from results/writeup/comparison.json, which `python
-m pipelines.run experiments/writeup.yaml` wrote. document_tables.py writes the table,
and one of the training losses.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib.figure

from pipelines import document, markdown
from pipelines.comparison import Comparison, Row, Trained
from pipelines.config import Config
from pipelines.draw_png import save
from pipelines.keeping import read
from pipelines.plots import COLOURS

RESULTS = Path(__file__).parents[1] / "results" / "writeup"


def reported(value) -> str:
    """A number of the write-up, as the table shows it."""
    if isinstance(value, str):
        return value
    return "" if value is None else f"{100 * value:.4g} %"


class Kind(NamedTuple):
    """A row of the write-up's table, and our runs of it, one a seed.

    Attributes:
        reported: The write-up's figures.
        runs: Our runs, as logits.
        rows: What they answered.
        matched: The accuracies of the same runs with the matched loss.
    """

    reported: dict
    runs: list[Trained]
    rows: list[Row]
    matched: list[float]

    @property
    def name(self) -> str:
        return self.reported["row"].replace(" (sic)", "")

    @property
    def accuracies(self) -> list[float]:
        return [row.accuracy for row in self.rows]


def kinds(comparison: Comparison) -> list[Kind]:
    """The rows of the write-up's table that there are runs of."""
    rows = [
        (entry.runs[row.run], row)
        for entry in comparison.tables
        for row in entry.rows
        if not row.samples
    ]

    def unseeded(run, **changes):
        return dataclasses.replace(run.config, seed=0, **changes)

    found: dict[Config, Kind] = {}
    for run, row in rows:
        if run.reported:
            kind = found.setdefault(unseeded(run), Kind(run.reported, [], [], []))
            kind.runs.append(run)
            kind.rows.append(row)
    for config, kind in found.items():
        kind.matched.extend(
            row.accuracy
            for run, row in rows
            if unseeded(run) == dataclasses.replace(config, loss="matched")
        )
    return list(found.values())


def table(comparison: Comparison) -> str:
    """The write-up's rows: its accuracy, ours as logits, ours with matched loss."""
    lines = []
    for kind in kinds(comparison):
        f1 = kind.reported.get("f1", "")
        lines.append(
            {
                "head": kind.reported["row"],
                "reported": reported(kind.reported.get("accuracy")),
                "ours, as logits": in_percent(kind.accuracies),
                "F1 reported": f1 if isinstance(f1, str) else f"{f1:g}",
                "F1": document.mean([r.as_is.metrics["f1"] for r in kind.rows], ".3f"),
                "ours, matched": in_percent(kind.matched),
            }
        )
    return markdown.table(lines)


def in_percent(accuracies: Sequence[float]) -> str:
    return f"{document.mean(accuracies, '.2f', 100)} %" if accuracies else ""


def table_of_losses(comparison: Comparison) -> str:
    """What the last training loss as logits says of the training accuracy."""
    (entry,) = comparison.tables
    most = math.log(math.e + len(entry.class_names) - 1)
    lines = []
    for kind in kinds(comparison):
        config = kind.runs[0].config
        if config.loss == "as_logits" and not config.head.startswith("log_"):
            histories = [run.history for run in kind.runs]
            learned = [most - history["loss"][-1] for history in histories]
            right = [history["accuracy"][-1] for history in histories]
            lines.append(
                {
                    "head": kind.name,
                    "log(e + N - 1) less the training loss": document.mean(
                        learned, ".4f"
                    ),
                    "training accuracy": document.mean(right, ".4f"),
                }
            )
    return markdown.table(lines)


def plot(comparison: Comparison) -> matplotlib.figure.Figure:
    """Accuracies of the heads over 100 classes, with both losses."""
    figure = matplotlib.figure.Figure((8, 3.6), layout="constrained")
    axes = figure.subplots()
    shown = [k for k in kinds(comparison) if k.runs[0].config.backbone == "resnet12"]
    shown.sort(key=lambda kind: statistics.fmean(kind.matched))
    for place, kind in enumerate(shown):
        as_logits = 100 * statistics.fmean(kind.accuracies)
        with_matched = 100 * statistics.fmean(kind.matched)
        axes.plot(
            (as_logits, with_matched), (place, place), color=COLOURS[7], lw=1, zorder=1
        )
        axes.plot([as_logits], [place], "x", color=COLOURS[3], ms=7, mew=2)
        axes.plot([with_matched], [place], "o", color=COLOURS[0], ms=7)
    axes.plot(
        [], [], "o", color=COLOURS[0], label="with the loss that matches the head"
    )
    axes.plot([], [], "x", color=COLOURS[3], mew=2, label="its output taken for logits")
    axes.set_yticks(range(len(shown)), [kind.name for kind in shown])
    axes.set(xlabel="test accuracy on CIFAR-100, %", xlim=(0, 70))
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure


if __name__ == "__main__":
    save(plot(read(RESULTS).comparison), RESULTS / "heads.png")
