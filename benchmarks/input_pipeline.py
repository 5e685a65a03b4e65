"""The input pipeline, alone and under training: `python -m benchmarks.input_pipeline`.

Counts the images that are shuffled, cropped and flipped a second on one core by
`pipelines.batching`, by Keras's preprocessing layers and by PyTorch's own ops; then
what training consumes, from the pipeline and from one batch again and again; then how
long the end of an iterator takes with TensorFlow's autotuner and without. Writes
results/benchmarks/input_pipeline.*. Needs `pip install -e '.[bench]'`.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterable, Sequence

import keras
import matplotlib.figure
import numpy as np

from benchmarks import measure
from pipelines import batching
from pipelines.config import Config, command, parse
from pipelines.figures import COLOURS

# TensorFlow after pipelines, which keeps it quiet.
import tensorflow as tf  # isort: skip

PIPELINES = {
    "kerasoft": "benchmarks.input_pipeline:ours",
    "Keras layers": "benchmarks.input_pipeline:keras_layers",
    "PyTorch": "benchmarks.pytorch:input_pipeline",
}
FEEDS = ("one batch", "the pipeline")


def one_core():
    """Keeps this process, and the threads that it will start, to one core."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def batches_of(batches: Iterable) -> Callable[[int], None]:
    """A function that draws a number of batches."""
    drawn = iter(batches)

    def draw(count: int):
        for _ in range(count):
            next(drawn)

    return draw


def ours(batch_size: int) -> Callable[[int], None]:
    """Makes a function that draws batches as `pipelines.train` does."""
    one_core()
    config = Config(dataset="cifar100", batch_size=batch_size)
    return batches_of(
        batching.training_batches(measure.pixels(measure.IMAGES), 100, config)
    )


def keras_layers(batch_size: int) -> Callable[[int], None]:
    """Makes a function that draws batches augmented by Keras's layers."""
    one_core()
    crop = keras.layers.RandomCrop(32, 32, seed=0)
    flip = keras.layers.RandomFlip("horizontal", seed=1)
    around = [[0, 0], [Config.padding] * 2, [Config.padding] * 2, [0, 0]]

    def augmented(images, labels):
        wide = tf.pad(images, around, "REFLECT")
        return flip(crop(wide, training=True), training=True), tf.one_hot(labels, 100)

    split = tf.data.Dataset.from_tensor_slices(tuple(measure.pixels(measure.IMAGES)))
    shuffled = split.shuffle(measure.IMAGES, seed=0).repeat().batch(batch_size)
    return batches_of(
        shuffled.map(augmented, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
    )


def compare(batch_size: int, batches: int, rounds: int) -> list[dict]:
    """Images a second of each pipeline, in turn."""
    options = {"batch_size": batch_size}
    taken = measure.sides_in_turn(
        {name: (maker, options, batches) for name, maker in PIPELINES.items()}, rounds
    )
    return [
        {
            "pipeline": name,
            "images a second": batches * batch_size / statistics.median(seconds),
            "to kerasoft": 1 / measure.ratio(seconds, taken["kerasoft"]),
        }
        for name, seconds in taken.items()
    ]


def training(
    width: int, precision: str, batch_size: int, steps: int, rounds: int
) -> dict:
    """Images a second of training from each feed, and what the pipeline costs it."""
    shared = {"width": width, "precision": precision, "batch_size": batch_size}
    maker = "benchmarks.train_step:training"
    taken = measure.sides_in_turn(
        {feed: (maker, {**shared, "feed": feed}, steps) for feed in FEEDS}, rounds
    )
    speeds = {
        feed: steps * batch_size / statistics.median(seconds)
        for feed, seconds in taken.items()
    }
    slower = measure.ratio(*(taken[feed] for feed in reversed(FEEDS)))
    return {"images a second": speeds, "loss": 1 - 1 / slower}


def ends(autotuned: bool, count: int) -> list[float]:
    """Seconds that the ends of iterators take, each after up to a second of use."""
    options = tf.data.Options()
    options.autotune.enabled = autotuned
    batches = batching.batches(measure.pixels(1000), 100).with_options(options)
    taken = []
    for used in np.random.default_rng(0).uniform(0, 1, count):
        drawn = iter(batches)
        next(drawn)
        time.sleep(used)
        started = time.perf_counter()
        del drawn
        taken.append(time.perf_counter() - started)
    return taken


def plot(result: dict) -> matplotlib.figure.Figure:
    speeds = {row["pipeline"]: row["images a second"] for row in result["pipelines"]}
    trained = result["training"]["images a second"]
    speeds |= {f"training,\nfrom {feed}": speed for feed, speed in trained.items()}
    made = matplotlib.figure.Figure((8, 4), layout="constrained")
    axes = made.subplots()
    colours = [COLOURS[0]] * len(PIPELINES) + [COLOURS[1]] * len(FEEDS)
    bars = axes.barh(list(speeds), list(speeds.values()), color=colours)
    axes.bar_label(bars, [f"{speed:,.0f}" for speed in speeds.values()], padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("images a second: a pipeline on one core, training on all")
    return made


def markdown(result: dict) -> str:
    trained = result["training"]
    consumed = trained["images a second"]["one batch"]
    lines = [
        "# The input pipeline",
        "",
        f"`{result['made_by']}`, on {measure.described(result['machine'])}. Medians of "
        f"{result['rounds']} rounds, batches of {result['batch_size']}, shuffled, "
        "padded by reflection, cropped and flipped. Each pipeline has one core.",
        "",
        "![Images a second](input_pipeline.png)",
        "",
        "| pipeline | images a second on one core | to kerasoft's | "
        "to what training consumes |",
        "|---|---:|---:|---:|",
    ]
    lines += [
        f"| {row['pipeline']} | {row['images a second']:,.0f} "
        f"| {row['to kerasoft']:.2f} | {row['images a second'] / consumed:.1f} |"
        for row in result["pipelines"]
    ]
    lines += [
        "",
        f"Training at width {result['width']} in {result['precision']}, on all cores:",
        "",
        "| fed from | images a second |",
        "|---|---:|",
    ]
    lines += [
        f"| {feed} | {speed:,.0f} |"
        for feed, speed in trained["images a second"].items()
    ]
    lines += [
        "",
        f"The pipeline costs training {trained['loss']:.1%} of its speed.",
        "",
        "Seconds that the end of an iterator takes, after up to a second of use:",
        "",
        "| TensorFlow's autotuner | mean | longest |",
        "|---|---:|---:|",
    ]
    lines += [
        f"| {side} | {statistics.mean(taken):.3f} | {max(taken):.3f} |"
        for side, taken in result["ends of iterators"].items()
    ]
    return "\n".join(lines) + "\n"


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = measure.parser(
        "input_pipeline", "Times the input pipeline, alone and under training.", 7
    )
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--precision", type=str, default="mixed_bfloat16")
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--batches", type=int, default=100, help="Of a measurement.")
    parser.add_argument(
        "--steps", type=int, default=50, help="Of a measurement of training."
    )
    parser.add_argument("--ends", type=int, default=40, help="Iterators to end.")
    given = parse(parser, argv)
    begun = measure.begun(parser, given)
    pipelines = compare(given.batch_size, given.batches, given.rounds)
    trained = training(
        given.width, given.precision, given.batch_size, given.steps, given.rounds
    )
    result = begun | {
        "pipelines": pipelines,
        "training": trained,
        "ends of iterators": {
            "on": ends(True, given.ends),
            "off, as in kerasoft": ends(False, given.ends),
        },
    }
    measure.publish(given.out, "input_pipeline", result, markdown(result), plot(result))
    return 0


if __name__ == "__main__":
    main()
