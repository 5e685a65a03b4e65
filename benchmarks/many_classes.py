"""Losses over many classes: `python -m benchmarks.many_classes`.

Times a training step (loss, gradients, update) of an output layer on features, and
takes the peak of memory of its making and training: Keras's dense layer with its own
cross-entropy, `kerasoft.output_layers`, and PyTorch's and TensorFlow's ways, each in a
process of its own. First the exact losses, on labels that are all alike frequent; then
those that gain where labels are skewed, by Zipf's law or as the words of a text
(`--text`). Then samples. Writes results/benchmarks/many_classes.*. Needs
`pip install -e '.[bench]'`.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.ticker

from benchmarks import measure, plots, runner
from benchmarks.output_layers import DIM, DRAWN, counts_of
from benchmarks.sides import side, written

SECONDS = 0.5  # steps are repeated until a measurement takes as long
OURS = "kerasoft, chunked"
KERAS = "Keras, Dense and softmax"
BY_ITSELF = "PyTorch, linear_cross_entropy"
MODULE = "benchmarks.output_layers"
Sides = Mapping[str, tuple[str, dict]]
SIDES: Sides = {
    KERAS: ("keras_dense", {}),
    OURS: ("chunked", {}),
    "PyTorch, linear and cross_entropy": ("torch_linear", {}),
    BY_ITSELF: ("torch_fused", {}),
    "PyTorch, linear_cross_entropy of 256 rows": ("torch_fused", {"rows": 256}),
    "PyTorch, linear_cross_entropy of 512 rows": ("torch_fused", {"rows": 512}),
}
SKEWED: Sides = {
    KERAS: ("keras_dense", {}),
    OURS: ("chunked", {}),
    "kerasoft, adaptive": ("adaptive", {}),
    "PyTorch, AdaptiveLogSoftmaxWithLoss": ("torch_adaptive", {}),
    f"kerasoft, sampled {DRAWN:,}": ("sampled", {}),
    f"TensorFlow, sampled_softmax_loss {DRAWN:,}": ("tensorflow_sampled", {}),
    "kerasoft, two-level": ("two_level", {}),
}
BY_NOISE = "argmax of logits and Gumbel noise"
SAMPLES: Sides = {
    BY_NOISE: ("noise_argmax", {}),
    "kerasoft, sample": ("sample", {}),
}
MIB = 2**20
MEASURED = ("side", "seconds", "fastest", "slowest", "bytes")


def compare(sides: Sides, rounds: int, **shape) -> list[dict]:
    """Times every side by itself, one after the other, and takes its memory.

    A side that the machine's memory does not hold is left out, and so is PyTorch's loss
    at its own choice of chunks where it takes a row or two at a time, and minutes.
    """
    batch, classes = shape["batch"], shape["classes"]
    whole = ("keras_dense", "torch_linear", "noise_argmax")
    sides = {
        name: (maker, options)
        for name, (maker, options) in sides.items()
        if (4 * batch * classes < 2.5e9 or maker not in whole)
        and (classes <= 2**14 or name != BY_ITSELF)
    }
    taken: dict[str, list[float]] = {}
    for name, (maker, options) in sides.items():
        with side(f"{MODULE}:{maker}", **shape, **options) as seconds:
            taken |= measure.in_turn({name: seconds}, rounds, SECONDS)
    return [
        {
            **shape,
            "side": name,
            "seconds": statistics.median(taken[name]),
            "fastest": min(taken[name]),
            "slowest": max(taken[name]),
            "bytes": written(
                f"{MODULE}:memory", maker=f"{MODULE}:{maker}", **shape, **options
            )["bytes"],
        }
        for name, (maker, options) in sides.items()
    ]


def table(rows: Sequence[dict], first: str) -> str:
    """A table in which times stand beside those of the side named first."""

    def shape(row: dict) -> tuple:
        return tuple(row[key] for key in row if key not in MEASURED)

    def cells(row: dict) -> dict:
        reference = firsts.get(shape(row))
        labels = {}
        if "labels" in row:
            labels = {"labels": Path(row["labels"]).name, "optimiser": row["optimizer"]}
        return {
            "batch": f"{row['batch']:,}",
            "classes": f"{row['classes']:,}",
            **labels,
            "side": row["side"],
            "seconds": f"{row['seconds']:.3f}",
            "to the first": runner.apart(row, reference, ".3f") if reference else "",
            "memory, MiB": f"{row['bytes'] / MIB:,.0f}",
        }

    firsts = {shape(row): row for row in rows if row["side"] == first}
    return runner.table(map(cells, rows), "labels", "optimiser", "side")


def page(result: dict) -> list[str]:
    parts = [
        "# Losses over many classes",
        f"{DIM} features, float32; medians of {result['rounds']} rounds, in brackets "
        "ratios of extreme rounds; the peak of memory of making and training a "
        "layer, weights and the optimiser's state included.",
        "![Time and memory by the number of classes](many_classes.png)",
        "## Exact losses",
        "A training step by SGD; all classes are alike frequent.",
        table(result["rows"], KERAS),
    ]
    if result["skewed"]:
        parts += [
            "## Losses for skewed labels",
            "A training step; labels by Zipf's law, or as the words of a text. Both "
            "adaptive ones have the cutoffs that `cheapest_cutoffs` gives.",
            table(result["skewed"], KERAS),
        ]
    if result["samples"]:
        parts += [
            "## Samples",
            "A class for each row, the product of features and weights included.",
            table(result["samples"], BY_NOISE),
        ]
    return parts


def plot(result: dict) -> plots.Figure:
    figure, panels = plots.figure(10, 4.5, ncols=2)
    largest = max(row["batch"] for row in result["rows"])
    rows = [row for row in result["rows"] if row["batch"] == largest]
    told = {"seconds": "seconds a step", "bytes": "bytes, weights and all"}
    for axes, (key, words) in zip(panels, told.items(), strict=True):
        plots.by_classes(axes, rows, "side", key, ylabel=words)
        axes.xaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
    panels[0].legend(fontsize="small")
    return figure


def measured(
    rounds: int = 5,
    batches: Sequence[int] = (256, 2048),
    classes: Sequence[int] = (1024, 16384, 262144, 1048576),
    skewed: Sequence[int] = (262144,),
    text: Path | None = None,
    samples: Sequence[int] = (262144,),
) -> dict:
    """Times losses over many classes, and takes memory.

    Args:
        rounds: Measurements of each.
        batches: Rows of features, each number in turn.
        classes: How many are alike frequent.
        skewed: Classes of Zipf's law.
        text: A text whose words are classes.
        samples: Classes to draw from.
    """
    found = {"rows": [], "skewed": [], "samples": []}
    laws = [("zipf", count) for count in skewed]
    if text is not None:
        laws.append((str(text), len(counts_of(str(text), 0))))
    for batch in batches:
        shape = {"batch": batch}
        for count in classes:
            alike = {"labels": "uniform", "optimizer": "sgd"}
            rows = compare(SIDES, rounds, **shape, classes=count, **alike)
            found["rows"] += [
                {k: v for k, v in row.items() if k not in alike} for row in rows
            ]
            print(f"{batch} rows, {count:,} classes: done", flush=True)
        for labels, count in laws:
            for optimizer in ("adam", "sgd"):
                how = {"labels": labels, "optimizer": optimizer}
                found["skewed"] += compare(
                    SKEWED, rounds, **shape, classes=count, **how
                )
                print(f"{batch} rows, {labels}, {optimizer}: done", flush=True)
        for count in samples:
            found["samples"] += compare(SAMPLES, rounds, **shape, classes=count)
    return found


main = runner.command("many_classes", measured, page, plot)


if __name__ == "__main__":
    main()
