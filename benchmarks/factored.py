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

import matplotlib.figure
import matplotlib.ticker

from benchmarks import measure
from benchmarks.many_classes import DIM, KERAS, MIB, MODULE, Sides, compare
from benchmarks.sides import side
from pipelines.config import command, parse
from pipelines.figures import COLOURS

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
    with side(f"{MODULE}:refactor", **shape) as seconds:
        seconds(1)
        taken = statistics.median(seconds(1) for _ in range(rounds))
    return [row | {"refactor_seconds": taken} for row in rows]


def table(rows: Sequence[dict]) -> list[str]:
    """The lines of the table of layers that train themselves."""
    lines = [
        "| classes | features | side | ms a step | full softmax to it "
        "| to itself at the fewest classes | with its share of multiplying out "
        "| memory, MiB |",
        "|---:|---:|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        dense = [
            other["seconds"] / row["seconds"]
            for other in rows
            if other["side"] == KERAS and other["classes"] == row["classes"]
        ]
        ours = row["side"] != KERAS
        fewest = min(
            (other for other in rows if other["side"] == row["side"]),
            key=lambda other: other["classes"],
        )
        share = row["seconds"] + row["refactor_seconds"] / REFACTOR_EVERY
        lines.append(
            f"| {row['classes']:,} | {row['dim']} | {row['side']} "
            f"| {1000 * row['seconds']:.2f} "
            f"| {f'{dense[0]:.1f}' if dense and ours else ''} "
            f"| {row['seconds'] / fewest['seconds']:.2f} "
            f"| {f'{1000 * share:.2f}' if ours else ''} "
            f"| {row['bytes'] / MIB:,.0f} |"
        )
    return lines


def markdown(result: dict) -> str:
    lines = [
        "# Losses whose training never meets most classes",
        "",
        f"`{result['made_by']}`, on {measure.described(result['machine'])}. "
        f"{BATCH} rows, float32; medians of {result['rounds']}; the peak of memory of "
        "making and training a layer, its weights included.",
        "",
        "![Time of a step by the number of classes](factored.png)",
        "",
        "Both sides train by plain stochastic gradient descent. `FactoredOutput` "
        f"multiplies its factors out every {REFACTOR_EVERY:,} steps, which is not in "
        "the time of a step; the column before the last has a step's share of it "
        "added.",
        "",
        *table(result["rows"]),
    ]
    return "\n".join(lines) + "\n"


def plot(rows: Sequence[dict]) -> matplotlib.figure.Figure:
    made = matplotlib.figure.Figure((7, 4.5), layout="constrained")
    axes = made.subplots()
    for colour, name in zip(COLOURS, SIDES, strict=False):
        points = [
            (row["classes"], 1000 * row["seconds"])
            for row in rows
            if row["side"] == name and row["dim"] == DIM
        ]
        axes.plot(*zip(*points, strict=True), "o-", label=name, color=colour)
    axes.set(xscale="log", yscale="log", xlabel="classes", ylabel="ms a step")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(matplotlib.ticker.StrMethodFormatter("{x:,.0f}"))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return made


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = measure.parser(
        "factored", "Times losses whose training never meets most classes.", rounds=5
    )
    parser.add_argument(
        "--classes", type=list[int], default=[10_000, 109_031, 1_000_000, 10_000_000]
    )
    given = parse(parser, argv)
    begun = measure.begun(parser, given)
    rows = []
    for classes in given.classes:
        rows += compare_at(classes, given.rounds)
        print(f"{classes:,} classes: done", flush=True)
    result = begun | {"rows": rows}
    measure.publish(given.out, "factored", result, markdown(result), plot(rows))
    return 0


if __name__ == "__main__":
    main()
