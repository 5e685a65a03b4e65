"""What an output layer costs in a whole network: `python -m benchmarks.output_share`.

Times a training step of ResNet-12 on one batch of images, as `pipelines.train` takes
it, with a dense layer and with each of the laboratory's output layers for many classes,
by the number of classes; and takes the peak of memory of making and training each. The
two levels are as many groups as each has classes, about the root of their number.
What a step takes beyond that of the same network with two classes is the output layer's
share. Each side is in a process of its own. Writes results/benchmarks/output_share.*.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import matplotlib.ticker
import numpy as np

from benchmarks import measure, plots, runner
from benchmarks.many_classes import MIB
from benchmarks.sides import Calls, written
from benchmarks.train_step import steps_of
from pipelines import datasets
from pipelines.config import Config
from pipelines.training import dtype_policy

MAKER = "benchmarks.output_share:training"
ALONE = "two classes"  # the network, with next to nothing at its end
NETWORK = "network to it"  # the time of a step of that, as a share
FACTORED = {"output": "factored", "learning_rate": 0.01}
SIDES = {
    "dense, log-softmax": {},
    "sampled": {"output": "sampled"},
    "two-level": {"output": "two_level:{groups}"},
    "adaptive": {"output": "adaptive"},
    "factored, Z-loss": {"head": "z_loss", **FACTORED},
    "factored, spherical": {"head": "spherical_softmax", "epsilon": 1.0, **FACTORED},
}


def training(batch: int, classes: int, **options) -> Calls:
    """Makes a function that takes training steps, on images of random pixels.

    Args:
        batch: Images in a step.
        classes: How many, each as frequent as the others.
        **options: Others of a config.
    """
    draws = np.random.default_rng(0)
    count = max(batch, classes)
    images = draws.integers(0, 256, (count, 32, 32, 1), dtype="uint8")
    split = datasets.Split(images, np.arange(count, dtype="int32") % classes)
    loaded = datasets.Data(
        name="random",
        train=split,
        validation=split,
        test=split,
        class_names=list(map(str, range(classes))),
        superclasses=None,
        superclass_names=None,
        checksum="",
    )
    config = Config(**{"dataset": "glyphs", "batch_size": batch, **options})
    return steps_of(config, loaded, dtype_policy("auto"))


def compare(classes: int, width: int, batch: int, steps: int, rounds: int):
    """Times all sides in turn, and takes their memory.

    Returns:
        A row for each: seconds a step, and which share of it the network alone takes.
    """
    shape = {"batch": batch, "width": width}
    sides = {ALONE: {"classes": 2, **shape}}
    for name, options in SIDES.items():
        sides[name] = {"classes": classes, **shape, **options}
        if output := options.get("output"):
            groups = round(math.sqrt(classes))
            sides[name]["output"] = output.format(groups=groups)
    taken = measure.sides_in_turn(
        {name: (MAKER, options, steps) for name, options in sides.items()}, rounds
    )
    alone = taken.pop(ALONE)
    return [
        {
            "classes": classes,
            "side": name,
            "seconds": statistics.median(seconds) / steps,
            **measure.ratio(NETWORK, alone, seconds),
            "bytes": written(
                "benchmarks.output_layers:memory", maker=MAKER, **sides[name]
            )["bytes"],
        }
        for name, seconds in taken.items()
    ]


def share(row: dict) -> str:
    """The output layer's share of a step, with its range over the rounds."""
    low, high = (1 - row[f"{NETWORK}, {end}"] for end in ("to", "from"))
    return runner.with_range(1 - row[NETWORK], low, high, ".0%")


def page(result: dict) -> list[str]:
    def cells(row: dict) -> dict:
        return {
            "classes": f"{row['classes']:,}",
            "output layer": row["side"],
            "ms a step": f"{1000 * row['seconds']:.1f}",
            "the output layer's share": share(row),
            "memory, MiB": f"{row['bytes'] / MIB:,.0f}",
        }

    return [
        "# What an output layer costs in a whole network",
        f"ResNet-12 of width {result['width']}, {result['batch']} images in a step; "
        f"medians of {result['rounds']} rounds of {result['steps']} steps, in turn; "
        "the peak of memory of making and training a network, above what the code "
        "holds.",
        "![Time of a step by the number of classes](output_share.png)",
        "The share is what a step takes beyond one of the same network with two "
        "classes, with its range over the rounds; where it is below the noise of the "
        "measurement, it may be negative.",
        runner.table([*map(cells, result["rows"])], "output layer"),
    ]


def plot(result: dict) -> plots.Figure:
    figure, (times, bytes_) = plots.figure(10, 4.5, ncols=2)
    rows = result["rows"]
    plots.by_classes(times, rows, "side", "seconds", 1000, ylabel="ms a step")
    plots.by_classes(bytes_, rows, "side", "bytes", 1 / MIB, ylabel="memory, MiB")
    for axes in (times, bytes_):
        axes.set_yscale("linear")
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_formatter(matplotlib.ticker.StrMethodFormatter("{x:,.0f}"))
    times.legend(fontsize="small")
    return figure


def measured(
    rounds: int = 5,
    classes: Sequence[int] = (10, 100, 1000, 5000, 20902),
    width: int = 16,
    batch: int = 128,
    steps: int = 10,
) -> dict:
    """Times a training step of ResNet-12 by output layer and number of classes.

    Args:
        rounds: Measurements of each.
        classes: How many, each number in turn; at most 20,902.
        width: Of ResNet-12.
        batch: Images in a step.
        steps: Of a measurement.
    """
    rows = []
    for count in classes:
        rows += compare(count, width, batch, steps, rounds)
        print(f"{count:,} classes: done", flush=True)
    return {"rows": rows}


main = runner.command("output_share", measured, page, plot)


if __name__ == "__main__":
    main()
