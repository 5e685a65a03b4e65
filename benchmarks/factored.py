"""Losses whose training never meets most classes: `python -m benchmarks.factored`.

Times a training step of `kerasoft.output_layers.FactoredOutput` with each of its three
losses, and of Keras's dense layer with softmax and cross-entropy, both by plain
stochastic gradient descent, over ever more classes; and takes the peak of memory of
making and training each, weights and all. Each side is in a process of its own. Writes
results/benchmarks/factored.*.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import matplotlib.ticker

from benchmarks import plots, runner
from benchmarks.many_classes import KERAS, MIB, Sides, compare
from benchmarks.output_layers import DIM
from benchmarks.sides import side

BATCH = 128
NARROW = 64  # features, where DIM for each class would be too much memory
MOST = 2.5e9  # bytes of weights
REFACTOR_EVERY = 1000  # steps, as by default
SIDES: Sides = {
    KERAS: ("keras_dense_in_fit", {}),
    "kerasoft, Z-loss": ("factored", {"head": "z_loss"}),
    "kerasoft, spherical": ("factored", {"head": "spherical_softmax"}),
    "kerasoft, Taylor": ("factored", {"head": "taylor_softmax"}),
}


def compare_at(classes: int, rounds: int) -> list[dict]:
    """Times the layers that train themselves beside a dense one."""
    dim = DIM if 4 * classes * DIM < MOST else NARROW
    shape = {"batch": BATCH, "classes": classes, "labels": "uniform", "dim": dim}
    # The dense layer needs its weights, their gradient, and logits several times over.
    sides = {
        name: (maker, options)
        for name, (maker, options) in SIDES.items()
        if maker != "keras_dense_in_fit" or 4 * classes * dim < MOST
    }
    rows = compare(sides, rounds, **shape, optimizer="sgd")
    with side("benchmarks.output_layers:refactor", **shape) as seconds:
        seconds(1)
        taken = statistics.median(seconds(1) for _ in range(rounds))
    return [row | {"refactor_seconds": taken} for row in rows]


def page(result: dict) -> list[str]:
    rows = result["rows"]
    dense = {row["classes"]: row for row in rows if row["side"] == KERAS}
    fewest = {
        name: min(of_side, key=lambda row: row["classes"])
        for name, of_side in runner.by("side", rows).items()
    }

    def cells(row: dict) -> dict:
        name, seconds, full = row["side"], row["seconds"], dense.get(row["classes"])
        share = seconds + row["refactor_seconds"] / REFACTOR_EVERY
        ours = name != KERAS
        times = runner.apart(full, row, ".1f") if full and ours else ""
        return {
            "classes": f"{row['classes']:,}",
            "features": row["dim"],
            "side": name,
            "ms a step": f"{1000 * seconds:.2f}",
            "full softmax to it": times,
            "to itself at the fewest classes": runner.apart(row, fewest[name]),
            "with its share of multiplying out": f"{1000 * share:.2f}" if ours else "",
            "memory, MiB": f"{row['bytes'] / MIB:,.0f}",
        }

    return [
        "# Losses whose training never meets most classes",
        f"{BATCH} rows, float32; medians of {result['rounds']} rounds, in brackets "
        "ratios of extreme rounds; the peak of memory of making and training a layer, "
        "its weights included.",
        "![Time of a step by the number of classes](factored.png)",
        "Both sides train by plain stochastic gradient descent. `FactoredOutput` "
        f"multiplies its factors out every {REFACTOR_EVERY:,} steps, which is not in "
        "the time of a step; the column before the last has a step's share of it "
        "added.",
        runner.table(map(cells, rows), "side"),
    ]


def plot(result: dict) -> plots.Figure:
    figure, axes = plots.figure(7, 4.5)
    wide = [row for row in result["rows"] if row["dim"] == DIM]
    plots.by_classes(axes, wide, "side", "seconds", 1000, ylabel="ms a step")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(matplotlib.ticker.StrMethodFormatter("{x:,.0f}"))
    axes.legend(fontsize="small")
    return figure


def measured(
    rounds: int = 5, classes: Sequence[int] = (10_000, 109_031, 1_000_000, 10_000_000)
) -> dict:
    """Times losses whose training never meets most classes.

    Args:
        rounds: Measurements of each.
        classes: How many, each number in turn.
    """
    rows = []
    for count in classes:
        rows += compare_at(count, rounds)
        print(f"{count:,} classes: done", flush=True)
    return {"rows": rows}


main = runner.command("factored", measured, page, plot)


if __name__ == "__main__":
    main()
