"""The write-up's table with our results, as the documents show it.

    python experiments/writeup_table.py

It prints the table, and one of the training losses, and draws
results/writeup/heads.png, from results/writeup/comparison.json, which `python -m
pipelines.run experiments/writeup.yaml` wrote.
"""

import dataclasses
import math
import statistics
from pathlib import Path

import matplotlib.figure

from pipelines import markdown
from pipelines.comparison import Comparison, Row, Trained
from pipelines.draw_png import save
from pipelines.keeping import read
from pipelines.metrics import percent
from pipelines.plots import COLOURS

RESULTS = Path(__file__).parents[1] / "results" / "writeup"


def reported(value) -> str:
    """A number of the write-up, as the table shows it."""
    if isinstance(value, str):
        return value
    return "" if value is None else f"{100 * value:.4g} %"


def rows_of(comparison: Comparison) -> list[tuple[Trained, Row, list[float]]]:
    """For each row of the write-up: our run, its row, and the matched accuracies."""
    rows = [
        (entry.runs[row.run], row)
        for entry in comparison.tables
        for row in entry.rows
        if not row.samples
    ]

    def comparable(config):
        return dataclasses.replace(config, loss="matched", seed=0)

    found = []
    for run, row in rows:
        if run.reported:
            matched = [
                other.accuracy
                for partner, other in rows
                if partner.config.loss == "matched"
                and comparable(partner.config) == comparable(run.config)
            ]
            found.append((run, row, matched))
    return found


def table(comparison: Comparison) -> str:
    """The write-up's rows: its accuracy, ours as logits, ours with matched loss."""
    lines = [
        "| head | reported | ours, as logits | F1 reported | ours | ours, matched |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for run, row, matched in rows_of(comparison):
        words = percent(statistics.fmean(matched))
        if len(matched) > 1:
            deviation = 100 * statistics.stdev(matched)
            words = f"{words.removesuffix(' %')} ± {deviation:.2f} %"
        low, high = row.as_is.intervals["accuracy"]
        numbers = run.reported or {}
        f1 = numbers.get("f1", "")
        cells = [
            numbers["row"],
            reported(numbers.get("accuracy")),
            f"{percent(row.accuracy)} ({100 * low:.2f} to {100 * high:.2f})",
            f1 if isinstance(f1, str) else f"{f1:g}",
            f"{row.as_is.metrics['f1']:.4f}",
            words,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def table_of_losses(comparison: Comparison) -> str:
    """What the last training loss as logits says of the training accuracy."""
    sizes = {n: len(t.class_names) for t in comparison.tables for n in t.runs}
    rows = []
    for run, row, _ in rows_of(comparison):
        if run.config.loss == "as_logits" and not run.config.head.startswith("log_"):
            most = math.log(math.e + sizes[row.run] - 1)
            learned = most - run.history["loss"][-1]
            rows.append(
                {
                    "head": (run.reported or {})["row"].replace(" (sic)", ""),
                    "log(e + N - 1) less the training loss": f"{learned:.4f}",
                    "training accuracy": f"{run.history['accuracy'][-1]:.4f}",
                }
            )
    return markdown.table(rows)


def plot(comparison: Comparison) -> matplotlib.figure.Figure:
    """Accuracies of the heads over 100 classes, with both losses."""
    figure = matplotlib.figure.Figure((8, 3.6), layout="constrained")
    axes = figure.subplots()
    rows = [
        ((run.reported or {})["row"].replace(" (sic)", ""), row, matched)
        for run, row, matched in rows_of(comparison)
        if run.config.label == "fine" and run.config.backbone == "resnet12"
    ]
    rows.sort(key=lambda row: statistics.fmean(row[2]))
    for place, (_, row, matched) in enumerate(rows):
        as_logits = 100 * row.accuracy
        with_matched = 100 * statistics.fmean(matched)
        axes.plot(
            (as_logits, with_matched), (place, place), color=COLOURS[7], lw=1, zorder=1
        )
        axes.plot([as_logits], [place], "x", color=COLOURS[3], ms=7, mew=2)
        axes.plot([with_matched], [place], "o", color=COLOURS[0], ms=7)
    axes.plot(
        [], [], "o", color=COLOURS[0], label="with the loss that matches the head"
    )
    axes.plot([], [], "x", color=COLOURS[3], mew=2, label="its output taken for logits")
    axes.set_yticks(range(len(rows)), [name for name, _, _ in rows])
    axes.set(xlabel="test accuracy on CIFAR-100, %", xlim=(0, 70))
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure


if __name__ == "__main__":
    compared = read(RESULTS).comparison
    print(table(compared), table_of_losses(compared), sep="\n\n")
    save(plot(compared), RESULTS / "heads.png")
