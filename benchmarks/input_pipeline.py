"""The input pipeline, alone and under training: `python -m benchmarks.input_pipeline`.

Counts the images that are shuffled, cropped and flipped a second on one core by
`pipelines.batching`, by Keras's preprocessing layers and by PyTorch's own ops; then
what training consumes, from the pipeline and from one batch again and again; then how
long the end of an iterator takes with TensorFlow's autotuner and without. Writes
results/benchmarks/input_pipeline.*. Needs `pip install -e '.[bench]'`.
"""

from __future__ import annotations

import functools
import os
import statistics
import time
from collections.abc import Iterable

import numpy as np

from benchmarks import measure, plots, runner
from benchmarks.sides import Calls, repeated
from pipelines import batching
from pipelines.config import Config
from pipelines.plots import COLOURS

# TensorFlow after pipelines, which sets it up.
import tensorflow as tf  # isort: skip
import keras  # isort: skip

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


def batches_of(batches: Iterable) -> Calls:
    """A function that draws a number of batches."""
    return repeated(functools.partial(next, iter(batches)))


def ours(batch_size: int) -> Calls:
    """Makes a function that draws batches as `pipelines.train` does."""
    one_core()
    config = Config(dataset="cifar100", batch_size=batch_size)
    return batches_of(
        batching.training_batches(measure.pixels(measure.IMAGES), 100, config)
    )


def keras_layers(batch_size: int) -> Calls:
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
            **measure.ratio("to kerasoft", taken["kerasoft"], seconds),
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
    slow, fast = (taken[feed] for feed in reversed(FEEDS))
    return {"images a second": speeds, **measure.ratio("to one batch", fast, slow)}


def times_of_ends(autotuned: bool, count: int) -> list[float]:
    """Seconds that ending an iterator takes, each after up to a second of use."""
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


def plot(result: dict) -> plots.Figure:
    speeds = {row["pipeline"]: row["images a second"] for row in result["pipelines"]}
    trained = result["training"]["images a second"]
    speeds |= {f"training,\nfrom {feed}": speed for feed, speed in trained.items()}
    words = [f"{speed:,.0f}" for speed in speeds.values()]
    figure, axes = plots.figure(8, 4)
    colours = [COLOURS[0]] * len(PIPELINES) + [COLOURS[1]] * len(FEEDS)
    plots.bars(axes, speeds, words, colours)
    axes.set_xlabel("images a second: a pipeline on one core, training on all")
    return figure


def page(result: dict) -> list[str]:
    trained = result["training"]
    consumed = trained["images a second"]["one batch"]
    pipelines = [
        {
            "pipeline": row["pipeline"],
            "images a second on one core": f"{row['images a second']:,.0f}",
            "to kerasoft's": runner.ratio(row, "to kerasoft"),
            "to what training consumes": f"{row['images a second'] / consumed:.1f}",
        }
        for row in result["pipelines"]
    ]
    feeds = [
        {"fed from": feed, "images a second": f"{speed:,.0f}"}
        for feed, speed in trained["images a second"].items()
    ]
    ends = [
        {
            "TensorFlow's autotuner": autotuner,
            "mean": f"{statistics.mean(taken):.3f}",
            "longest": f"{max(taken):.3f}",
        }
        for autotuner, taken in result["ends of iterators"].items()
    ]
    return [
        "# The input pipeline",
        f"Medians of {result['rounds']} rounds, batches of {result['batch_size']}, "
        "shuffled, padded by reflection, cropped and flipped. Each pipeline has one "
        "core.",
        "![Images a second](input_pipeline.png)",
        runner.table(pipelines),
        f"Training at width {result['width']} in {result['precision']}, on all cores:",
        runner.table(feeds),
        "Fed by the pipeline, training has "
        f"{runner.ratio(trained, 'to one batch', '.3f')} of the speed.",
        "Seconds that the end of an iterator takes, after up to a second of use:",
        runner.table(ends),
    ]


def measured(
    rounds: int = 7,
    width: int = 16,
    precision: str = "mixed_bfloat16",
    batch_size: int = 128,
    batches: int = 100,
    steps: int = 50,
    ends: int = 40,
) -> dict:
    """Times the input pipeline, alone and under training.

    Args:
        rounds: Measurements of each.
        width, precision, batch_size: As in a config.
        batches: Of a measurement.
        steps: Of a measurement of training.
        ends: Iterators to end.
    """
    return {
        "pipelines": compare(batch_size, batches, rounds),
        "training": training(width, precision, batch_size, steps, rounds),
        "ends of iterators": {
            "on": times_of_ends(True, ends),
            "off, as in kerasoft": times_of_ends(False, ends),
        },
    }


main = runner.command("input_pipeline", measured, page, plot)


if __name__ == "__main__":
    main()
