"""Batches from arrays: shuffled and augmented, or in order.

A training batch is a function of the seed and the step alone, so a resumed run sees
what an uninterrupted one would have seen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from pipelines.augmentation import crop_and_flip, cutout, mixup, shuffled
from pipelines.config import BUILT_IN, USUAL, Config
from pipelines.datasets import Split
from pipelines.errors import InputError
from pipelines.pixels import rgb

LEAST_STEPS = 16  # that a pass holds by default, where a batch of the least size fits
LEAST_BATCH = 8


class Pace(NamedTuple):
    """What a run is trained with, given or by the number of its training images.

    A pass over the training images is an epoch, unless the config gives its steps.
    """

    batch_size: int
    steps_per_pass: int
    steps_per_epoch: int
    learning_rate: float
    momentum: float


def pace(split: Split, config: Config) -> Pace:
    """Fills in what a config does not give, by the number of training images.

    The batch is the largest power of two, from 8 to 128, of which a pass holds 16,
    and 8 where there is none; the learning rate is in proportion to the batch, up to
    the usual one at 128. Batch normalisation averages over the last tenth of the run's
    steps, up to 10: with a momentum of at most 0.9, which the built-in data sets have.

    Raises:
        InputError: If a pass does not hold a whole execution of whole batches.
    """
    count = len(split.labels)
    # An execution may reach from one pass into the next, where epochs do not end there.
    in_one = 1 if config.steps_per_epoch else config.steps_per_execution
    usual = USUAL["batch_size"]
    fitting = max(count // in_one, 1)
    own = min(usual, max(count // LEAST_STEPS, LEAST_BATCH), fitting)
    own = 2 ** (own.bit_length() - 1)
    size = config.batch_size or own
    executions = count // (size * in_one)
    if not executions:
        way = f"--batch_size {own}" if in_one <= count else "--steps_per_execution 1"
        raise InputError(
            "batch_size * steps_per_execution must be at most the number of training "
            f"images, {count}. Received: {size} * {in_one}; {way} fits."
        )
    a_pass = executions * in_one
    steps = config.steps_per_epoch or a_pass
    memory = min(config.epochs * steps / 10, 10)
    if config.dataset in BUILT_IN:
        memory = 10
    return Pace(
        batch_size=size,
        steps_per_pass=a_pass,
        steps_per_epoch=steps,
        learning_rate=config.learning_rate
        or USUAL["learning_rate"] * min(size / usual, 1),
        momentum=1 - 1 / max(memory, 1),
    )


def steps_per_epoch(split: Split, config: Config) -> int:
    """The steps of an epoch: if not given, the whole executions that a pass holds.

    Raises:
        InputError: If a pass holds none.
    """
    return pace(split, config).steps_per_epoch


def with_wrong_labels(
    labels: np.ndarray, num_classes: int, share: float, seed: int
) -> np.ndarray:
    """Labels of which a share is replaced, each by one of the other classes."""
    generator = np.random.default_rng(seed)
    rows = generator.choice(len(labels), round(share * len(labels)), replace=False)
    labels = labels.copy()
    labels[rows] += generator.integers(1, max(num_classes, 2), len(rows))
    return labels % num_classes


def batches(
    split: Split, num_classes: int | None, batch_size: int = 250
) -> tf.data.Dataset:
    """Batches of images and labels, in order and as they are.

    The labels are one-hot, or integers if there is no number of classes.
    """
    return (
        tf.data.Dataset.from_tensor_slices(tuple(split))
        .batch(batch_size)
        .map(lambda images, labels: (rgb(images), _targets(labels, num_classes)))
        .prefetch(2)
        .with_options(_options())
    )


def training_batches(
    split: Split,
    num_classes: int | None,
    config: Config,
    first_epoch: int = 0,
    augment: Callable = crop_and_flip,
) -> tf.data.Dataset:
    """Shuffled, augmented batches without end, from the start of `first_epoch`.

    Args:
        split: The training images.
        num_classes: The number of classes, for one-hot labels; `None` for integers.
        config: Describes the run.
        first_epoch: Where to begin.
        augment: From images, the padding and a seed to changed images.
    """
    given = pace(split, config)
    size, steps = given.batch_size, given.steps_per_pass
    first_pass, done = divmod(first_epoch * given.steps_per_epoch, steps)
    images, labels = tf.constant(split.images), tf.constant(split.labels)

    def pass_of(number):
        order = shuffled(len(split.labels), tf.stack([config.seed, number]))
        rows = tf.reshape(order[: steps * size], (steps, size))
        step = number * steps + tf.range(steps, dtype=tf.int64)
        return tf.data.Dataset.from_tensor_slices((rows, step))

    def batch_of(rows, step):
        x, y = tf.gather(images, rows), tf.gather(labels, rows)
        y = _targets(y, num_classes)
        seeds = tf.random.split(tf.stack([config.seed, step]), 3)
        x = rgb(augment(x, config.padding, seeds[0]))
        if config.cutout:
            x = cutout(x, config.cutout, seeds[1])
        if config.mixup:
            x, y = mixup(x, y, config.mixup, seeds[2])
        return x, y

    return (
        tf.data.Dataset.range(first_pass, np.iinfo("int64").max)
        .flat_map(pass_of)
        .skip(done)
        .map(batch_of)
        .prefetch(2)
        .with_options(_options())
    )


def _targets(labels, num_classes: int | None):
    return labels if num_classes is None else tf.one_hot(labels, num_classes)


def _options() -> tf.data.Options:
    """Without the autotuner: the end of an iterator may wait for it to wake up.

    It sleeps for 10 ms, 20, 40 and so on. One thread is far ahead of any training.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return options
