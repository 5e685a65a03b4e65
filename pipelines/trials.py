"""The trials of a search: their table, their plot, and the config of the best."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.figure

from pipelines import draw_png, publishing
from pipelines.config import Annealing, Config
from pipelines.metrics import METRICS
from pipelines.plots import COLOURS
from pipelines.search import Search, config_of_trial
from pipelines.typed_json import write_text

BEST = "best.yaml"


def row_of(base: Config, trial) -> dict[str, Any]:
    """A trial as a row of the table; what it does not have is `None`."""
    config = config_of_trial(base, trial.hyperparameters.values)
    match config.temperature:
        case Annealing(kind, start, end):
            curve = {"kind": kind, "start": start, "end": end}
        case constant:
            curve = {"kind": "constant", "start": constant, "end": constant}

    def metric(name):
        known = trial.status == "COMPLETED" and trial.metrics.exists(name)
        return trial.metrics.get_best_value(name) if known else None

    return {
        "trial": trial.trial_id,
        "status": trial.status.lower(),
        **curve,
        "learning_rate": config.learning_rate,
        "epochs": config.epochs,
        **{name: metric(name) for name in METRICS},
    }


COLUMNS: dict[str, tuple[int, Callable[[Any], str]]] = {
    "trial": (5, str),
    "status": (9, str),
    "kind": (11, str),
    "start": (8, "{:.3f}".format),
    "end": (8, "{:.3f}".format),
    "learning_rate": (13, "{:.4f}".format),
    "epochs": (6, str),
}
ALWAYS = ("accuracy", "nll", "ece")  # shown beside the objective


def line(objective: str, row: Mapping[str, Any] | None = None) -> str:
    """A row of the table of trials, or its heading."""
    shown = {n: (max(8, len(n)), "{:.4f}".format) for n in (*ALWAYS, objective)}
    cells = []
    for name, (width, words) in {**COLUMNS, **shown}.items():
        value = name.replace("_", " ") if row is None else row[name]
        text = value if row is None else "" if value is None else words(value)
        cells.append(text.rjust(width))
    return "  ".join(cells).rstrip()


def plot(rows: Sequence[dict], search: Search, best: dict) -> matplotlib.figure.Figure:
    """The objective against the temperature, each trial by itself."""
    figure = matplotlib.figure.Figure((8, 4.5), layout="constrained")
    axes = figure.subplots()
    kinds = sorted({row["kind"] for row in rows})
    for row in rows:
        colour = COLOURS[kinds.index(row["kind"])]
        value = row[search.objective]
        if value is None:
            foot = axes.get_xaxis_transform()
            axes.plot(row["end"], 0.02, "x", color=COLOURS[3], transform=foot)
            continue
        if row["start"] != row["end"]:
            ends = row["start"], row["end"]
            axes.plot(ends, (value, value), color=colour, alpha=0.5)
        axes.plot(row["end"], value, "o", color=colour, gid=f"trial-{row['trial']}")
    axes.plot(best["end"], best[search.objective], "o", ms=14, mfc="none", mec="k")
    for kind, colour in zip(kinds, COLOURS, strict=False):
        axes.plot([], [], "o", color=colour, label=kind)
    failed = sum(row[search.objective] is None for row in rows)
    if failed:
        axes.plot([], [], "x", color=COLOURS[3], label=f"failed ({failed})")
    axes.plot([], [], "o", ms=14, mfc="none", mec="k", label=f"trial {best['trial']}")
    if search.both_signs:
        axes.set_xscale("symlog", linthresh=search.lowest)
    else:
        axes.set_xscale("log")
    axes.set(
        xlabel="temperature" + " at the end" * (search.search == "schedule"),
        ylabel=f"validation {search.objective}",
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return figure


def report(
    trials: Sequence,
    base: Config,
    search: Search,
    folder: Path,
    epochs: int | None = None,
) -> Path:
    """Writes the table of trials, the plot and the best config.

    Args:
        trials: Keras Tuner's.
        base: What they share.
        search: What they vary.
        folder: Where to.
        epochs: Those of the best config, if not those of its trial.
    """
    rows = [row_of(base, trial) for trial in trials]
    ended = [trial for trial in trials if trial.status == "COMPLETED"]
    if not ended:
        raise RuntimeError("No trial ended well.")
    choose = max if METRICS[search.objective].best == "max" else min
    best = choose(ended, key=lambda trial: trial.score)
    table = io.StringIO()
    writer = csv.DictWriter(table, [*COLUMNS, *METRICS], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    # A table without a best config is one that was not written to its end.
    (folder / BEST).unlink(missing_ok=True)
    write_text(folder / "trials.csv", table.getvalue())
    with publishing.whole(folder / "trials.png") as partial:
        draw_png.save(plot(rows, search, row_of(base, best)), partial)
    config = config_of_trial(base, best.hyperparameters.values)
    config = dataclasses.replace(config, epochs=epochs or config.epochs)
    write_text(folder / BEST, config.to_yaml())
    print(f"best: trial {best.trial_id}, {search.objective} {best.score:.4f}")
    return folder / BEST
