"""The heads beside other libraries': `python -m benchmarks.heads`.

Times every head, forward and with the gradient of a fixed slope, at several numbers of
classes, in turn with PyTorch's `gumbel_softmax`, `keras.ops.log_softmax` and TensorFlow
Probability's relaxed one-hot, and writes results/benchmarks/heads.*. Needs `pip install
-e '.[bench]'`.
"""

from __future__ import annotations

import contextlib
import functools
import statistics
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks import measure, plots, runner
from benchmarks.sides import Calls, repeated, side
from kerasoft import heads

# TensorFlow after pipelines, which sets it up.
import tensorflow as tf  # isort: skip
import keras  # isort: skip

MODULE = "benchmarks.heads"
TORCH = "torch gumbel_softmax"
KERAS = "keras.ops.log_softmax"
PROBABILITY = "tfp RelaxedOneHotCategorical"
ROUND_SECONDS = 0.05


def compiled(function: Callable, classes: int, rows: int) -> Callable[[], object]:
    """A function of logits and its gradient for a fixed slope, compiled."""
    draws = np.random.default_rng(0)
    drawn = draws.normal(size=(2, rows, classes)).astype("float32")
    logits, slope = tf.Variable(drawn[0]), tf.constant(drawn[1])
    function(logits)  # makes its variables, outside the compiled function

    @tf.function
    def both():
        with tf.GradientTape() as tape:
            y = function(logits)
        # Without y, what a straight-through gradient does not need is not computed.
        return y, tape.gradient(y, logits, output_gradients=slope)  # pyright: ignore

    return measure.finished(both)


def head_of(classes: int, rows: int) -> Callable[[str, int], None]:
    """Makes a function that calls a head, by its name, a number of times."""

    @functools.cache
    def calls_of(name: str) -> Calls:
        head = heads.get(name)
        return repeated(compiled(lambda x: head(x, training=True), classes, rows))

    return lambda name, count: calls_of(name)(count)


def keras_own(classes: int, rows: int) -> Calls:
    """Makes a function that calls Keras's own log-softmax."""
    return repeated(compiled(lambda x: keras.ops.log_softmax(x + 0.0), classes, rows))


def probability(classes: int, rows: int) -> Calls:
    """Makes a function that samples TensorFlow Probability's relaxed one-hot."""
    import tensorflow_probability as tfp  # pyright: ignore[reportMissingImports]

    function = compiled(
        lambda x: tfp.distributions.RelaxedOneHotCategorical(1.0, logits=x).sample(),
        classes,
        rows,
    )
    return repeated(function)


def measured(
    rounds: int = 15,
    classes: Sequence[int] = (100, 1_000, 32_000, 1_000_000),
    rows: int = 16,
) -> dict:
    """Times every head and every other at some numbers of classes, in turn.

    Args:
        rounds: Measurements of each.
        classes: How many, each number in turn.
        rows: Rows of logits a call.
    """
    others = {
        TORCH: "benchmarks.pytorch:gumbel_softmax",
        KERAS: f"{MODULE}:keras_own",
        PROBABILITY: f"{MODULE}:probability",
    }
    times = []
    for count in classes:
        shape = {"classes": count, "rows": rows}
        with contextlib.ExitStack() as stack:
            ours = stack.enter_context(side(f"{MODULE}:head_of", **shape))
            calls: dict[str, measure.Timed] = {
                name: functools.partial(ours, name) for name in heads.HEADS
            }
            for name, maker in others.items():
                calls[name] = stack.enter_context(side(maker, **shape))
            found = measure.in_turn(calls, rounds, ROUND_SECONDS)
        times += [
            {
                "classes": count,
                "name": name,
                "seconds": statistics.median(taken),
                **measure.ratio("to torch", taken, found[TORCH]),
            }
            for name, taken in found.items()
        ]
        print(f"{count:,} classes: done", flush=True)
    return {"times": times}


def plot(result: dict) -> plots.Figure:
    figure, axes = plots.figure(9, 5)
    words = "milliseconds, forward and gradient"
    plots.by_classes(axes, result["times"], "name", "seconds", 1000, ylabel=words)
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def page(result: dict) -> list[str]:
    return [
        "# The heads beside other libraries'",
        f"Milliseconds forward and with the gradient, of {result['rows']} rows of "
        f"float32 logits, medians of {result['rounds']} rounds; the ratio to PyTorch's "
        "`gumbel_softmax`, with its range over the rounds.",
        "![Time by the number of classes](heads.png)",
        runner.table(runner.times_by_classes(result["times"], "name", "to torch")),
    ]


main = runner.command("heads", measured, page, plot)


if __name__ == "__main__":
    main()
