"""What a head costs by the number of classes: `python -m benchmarks.classes`.

Times every head forward, and with its matched loss and gradient, on a few rows of
logits over 10 to 1,000,000 classes, and writes results/benchmarks/classes.*.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks import measure, plots, runner
from kerasoft import heads, losses

# TensorFlow after pipelines, which sets it up.
import tensorflow as tf  # isort: skip

REFERENCE = "softmax"
LINEAR_FROM = 100_000  # below, much of the time is that of a call


def passes(name: str, logits: tf.Tensor, labels: tf.Tensor) -> dict[str, Callable]:
    """A head's work on logits, compiled: alone, and with its loss and gradient."""
    head = heads.get(name)
    loss = losses.matched_loss(head)
    head(logits)  # makes its variables, outside the compiled functions

    @tf.function
    def forward():
        return head(logits, training=True)

    @tf.function
    def with_gradient():
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = loss(labels, head(logits, training=True))
        return tape.gradient(value, logits)

    return {"forward": forward, "with gradient": with_gradient}


def measured(rounds: int = 15, rows: int = 8, most: int = 1_000_000) -> dict:
    """Times every head by the number of classes.

    Args:
        rounds: Measurements of each.
        rows: Rows of logits a call.
        most: The largest number of classes.
    """
    tf.get_logger().setLevel("ERROR")  # it warns of functions compiled in a loop
    times = []
    for count in (10**power for power in range(1, 19) if 10**power <= most):
        draws = np.random.default_rng(0)
        logits = tf.constant(draws.normal(size=(rows, count)), tf.float32)
        labels = tf.constant(draws.integers(count, size=rows))
        work = {
            (name, part): measure.timed(measure.finished(function))
            for name in heads.HEADS
            for part, function in passes(name, logits, labels).items()
        }
        taken = measure.in_turn(work, rounds)
        times += [
            {
                "head": name,
                "pass": part,
                "classes": count,
                "seconds": statistics.median(seconds),
                "fastest": min(seconds),
                **measure.ratio("to softmax", seconds, taken[REFERENCE, part]),
            }
            for (name, part), seconds in taken.items()
        ]
        print(f"{count:,} classes: done", flush=True)
    return {"times": times, "exponents": exponents(times)}


def exponents(times: Sequence[dict]) -> list[dict]:
    """The b of time = a N^b by least squares on logarithms, for many classes."""
    slopes = []
    for name, of_head in runner.by("head", times).items():
        for part, rows in runner.by("pass", of_head).items():
            many = [row for row in rows if row["classes"] >= LINEAR_FROM]
            if len(many) > 1:
                points = [(row["classes"], row["seconds"]) for row in many]
                counts, seconds = np.log(points).T
                slope, _ = np.polyfit(counts, seconds, 1)
                slopes.append({"head": name, "pass": part, "exponent": float(slope)})
    return slopes


def plot(result: dict) -> plots.Figure:
    figure, panels = plots.figure(11, 5, ncols=2, sharey=True)
    passes = runner.by("pass", result["times"])
    scale = 1e6 / result["rows"]
    for axes, (part, rows) in zip(panels, passes.items(), strict=True):
        plots.by_classes(axes, rows, "head", "seconds", scale, title=part)
    panels[0].set_ylabel("microseconds a row of logits")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False)
    return figure


def page(result: dict) -> list[str]:
    parts = [
        "# Time by the number of classes",
        f"Medians of {result['rounds']} rounds, {result['rows']} rows of float32 "
        "logits a call; Gumbel heads with their noise.",
        "![Time by the number of classes](classes.png)",
    ]
    slopes = {
        (r["head"], r["pass"]): f"{r['exponent']:.2f}" for r in result["exponents"]
    }
    for part, rows in runner.by("pass", result["times"]).items():
        cells = [
            row | {"exponent": slopes.get((row[""], part), "")}
            for row in runner.times_by_classes(rows, "head", "to softmax")
        ]
        names = ["head", *list(cells[0])[1:]]
        parts += [
            f"## {part.capitalize()}",
            "Milliseconds a call; the ratio to softmax, with its range over the "
            "rounds. The exponent is b in time ∝ N^b, from "
            f"{LINEAR_FROM:,} classes on.",
            runner.table(cells, names=names),
        ]
    return parts


main = runner.command("classes", measured, page, plot)


if __name__ == "__main__":
    main()
