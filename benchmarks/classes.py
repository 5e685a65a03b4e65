"""What a head costs by the number of classes: `python -m benchmarks.classes`.

Times every head forward, and with its matched loss and gradient, on a few rows of
logits over 10 to 1,000,000 classes, and writes results/benchmarks/classes.*.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import matplotlib.figure
import numpy as np

from benchmarks import measure
from kerasoft import heads, losses
from pipelines.config import command, parse
from pipelines.figures import COLOURS, STYLES

# TensorFlow after pipelines, which keeps it quiet.
import tensorflow as tf  # isort: skip

REFERENCE = "softmax"
PASSES = ("forward", "with gradient")
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

    return {
        "forward": lambda: forward().numpy(),
        "with gradient": lambda: tf.convert_to_tensor(with_gradient()).numpy(),
    }


def time_heads(classes: Sequence[int], rows: int, rounds: int) -> list[dict]:
    """Times every head at each number of classes."""
    found = []
    for count in classes:
        draws = np.random.default_rng(0)
        logits = tf.constant(draws.normal(size=(rows, count)), tf.float32)
        labels = tf.constant(draws.integers(count, size=rows))
        work = {
            (name, part): function
            for name in heads.HEADS
            for part, function in passes(name, logits, labels).items()
        }
        times = measure.in_turn(work, rounds)
        for (name, part), taken in times.items():
            found.append(
                {
                    "head": name,
                    "pass": part,
                    "classes": count,
                    "seconds": statistics.median(taken),
                    "fastest": min(taken),
                    "to softmax": measure.ratio(taken, times[REFERENCE, part]),
                }
            )
        print(f"{count:,} classes: done", flush=True)
    return found


def exponents(found: Sequence[dict]) -> list[dict]:
    """The b of time = a N^b by least squares on logarithms, for many classes."""
    made = []
    for name in heads.HEADS:
        for part in PASSES:
            points = [
                (row["classes"], row["seconds"])
                for row in found
                if row["head"] == name
                and row["pass"] == part
                and row["classes"] >= LINEAR_FROM
            ]
            if len(points) > 1:
                counts, seconds = np.log(points).T
                slope, _ = np.polyfit(counts, seconds, 1)
                made.append({"head": name, "pass": part, "exponent": float(slope)})
    return made


def plot(found: Sequence[dict], rows: int) -> matplotlib.figure.Figure:
    made = matplotlib.figure.Figure((11, 5), layout="constrained")
    panels = made.subplots(1, 2, sharey=True)
    for axes, part in zip(panels, PASSES, strict=True):
        for i, name in enumerate(heads.HEADS):
            chosen = [r for r in found if r["head"] == name and r["pass"] == part]
            axes.plot(
                [row["classes"] for row in chosen],
                [1e6 * row["seconds"] / rows for row in chosen],
                color=COLOURS[i % len(COLOURS)],
                linestyle=STYLES[i // len(COLOURS)],
                marker="o",
                markersize=3,
                label=name,
            )
        axes.set(xscale="log", yscale="log", xlabel="classes", title=part)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("microseconds a row of logits")
    handles, labels = panels[0].get_legend_handles_labels()
    made.legend(handles, labels, loc="outside right upper", frameon=False)
    return made


def markdown(result: dict) -> str:
    lines = [
        "# Time by the number of classes",
        "",
        f"`{result['made_by']}`, on {measure.described(result['machine'])}. Medians of "
        f"{result['rounds']} rounds, {result['rows']} rows of float32 logits a call; "
        "Gumbel heads with their noise.",
        "",
        "![Time by the number of classes](classes.png)",
    ]
    counts = sorted({row["classes"] for row in result["times"]})
    slopes = {(r["head"], r["pass"]): r["exponent"] for r in result["exponents"]}
    for part in PASSES:
        lines += [
            "",
            f"## {part.capitalize()}",
            "",
            "Milliseconds a call, and in brackets the ratio to softmax. The exponent "
            f"is b in time ∝ N^b, from {LINEAR_FROM:,} classes on.",
            "",
            "| head | " + " | ".join(f"{n:,}" for n in counts) + " | exponent |",
            "|---" + "|---:" * (len(counts) + 1) + "|",
        ]
        for name in heads.HEADS:
            cells = [
                f"{1e3 * row['seconds']:.3g} ({row['to softmax']:.2f})"
                for row in result["times"]
                if row["head"] == name and row["pass"] == part
            ]
            slope = slopes.get((name, part))
            cells.append("" if slope is None else f"{slope:.2f}")
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = measure.parser(
        "classes", "Times every head by the number of classes.", rounds=15
    )
    parser.add_argument("--rows", type=int, default=8, help="Rows of logits a call.")
    parser.add_argument(
        "--most", type=int, default=1_000_000, help="The largest number of classes."
    )
    given = parse(parser, argv)
    begun = measure.begun(parser, given)
    tf.get_logger().setLevel("ERROR")  # it warns of functions compiled in a loop
    classes = [10**power for power in range(1, 19) if 10**power <= given.most]
    found = time_heads(classes, given.rows, given.rounds)
    result = begun | {"times": found, "exponents": exponents(found)}
    measure.publish(
        given.out, "classes", result, markdown(result), plot(found, given.rows)
    )
    return 0


if __name__ == "__main__":
    main()
