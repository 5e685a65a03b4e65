"""How time is taken: of what is compared, in turn, so that all meet a slow moment."""

from __future__ import annotations

import contextlib
import functools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.sides import side
from pipelines import datasets

Timed = Callable[[int], float]  # from a number of calls to the seconds that they take
IMAGES = 50_000  # as many as CIFAR-100 has to train on
ROUND_SECONDS = 0.02  # calls are repeated until a measurement takes as long


def timed(function: Callable[[], object]) -> Timed:
    """Times calls of a function, which returns when its work is done."""

    def seconds(count: int) -> float:
        started = time.perf_counter()
        for _ in range(count):
            function()
        return time.perf_counter() - started

    return seconds


def finished(function: Callable[[], object]) -> Callable[[], None]:
    """A call of a TensorFlow function that waits for its result, without a copy."""
    import tensorflow as tf  # not for the sides of other libraries

    def call():
        function()
        tf.test.experimental.sync_devices()

    return call


def in_turn(
    calls: Mapping[Any, Timed], rounds: int, seconds: float = ROUND_SECONDS
) -> dict[Any, list[float]]:
    """Times calls in turn, so that a slow moment of the machine meets them all.

    Args:
        calls: What to time, by name.
        rounds: How often to go through them all.
        seconds: Calls are repeated until a measurement takes about as long.

    Returns:
        Seconds per call, one number a round, by name.
    """
    counts = {}
    for name, take in calls.items():
        take(1)  # the first call compiles
        counts[name] = max(1, round(seconds / take(1)))
    times = {name: [] for name in calls}
    for _ in range(rounds):
        for name, take in calls.items():
            times[name].append(take(counts[name]) / counts[name])
    return times


def sides_in_turn(
    sides: Mapping[str, tuple[str, dict, int]],
    rounds: int,
    variables: Mapping[str, Mapping[str, str]] | None = None,
) -> dict[str, list[float]]:
    """Starts sides, times a call of each in turn, and ends them.

    Args:
        sides: By name, a side's maker, the maker's options, and what to call it with.
        rounds: How often to go through them all.
        variables: By name, those of the environment that a side has of its own.

    Returns:
        Seconds per call, one number a round, by name.
    """
    with contextlib.ExitStack() as stack:
        calls = {}
        for name, (maker, options, count) in sides.items():
            started = side(maker, (variables or {}).get(name), **options)
            call = functools.partial(stack.enter_context(started), count)
            calls[name] = timed(call)
        return in_turn(calls, rounds)


def pixels(count: int) -> datasets.Split:
    """Random images of CIFAR-100's size, with labels."""
    draws = np.random.default_rng(count)
    images = draws.integers(0, 256, (count, 32, 32, 3), dtype="uint8")
    return datasets.Split(images, draws.integers(0, 100, count).astype("int32"))


def ratio(
    name: str, times: Sequence[float], reference: Sequence[float]
) -> dict[str, float]:
    """How many times as long something takes as a reference, round by round.

    Returns:
        The median under the name, and the least and the largest under `NAME, from` and
        `NAME, to`. Of seven independent rounds, these two enclose the true median with
        a probability of 98 %, of five with 94 %.
    """
    ratios = [one / other for one, other in zip(times, reference, strict=True)]
    return {
        name: statistics.median(ratios),
        f"{name}, from": min(ratios),
        f"{name}, to": max(ratios),
    }
