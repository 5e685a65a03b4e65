"""The heads beside other libraries': `python -m benchmarks.heads`.

Times every head, forward and with the gradient of a fixed slope, at several numbers of
classes, in turn with PyTorch's `gumbel_softmax`, `keras.ops.log_softmax` and, where it
is installed, TensorFlow Probability's relaxed one-hot, and writes
results/benchmarks/heads.*. Needs `pip install -e '.[bench]'`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import statistics
from collections.abc import Callable, Sequence

import keras
import matplotlib.figure
import numpy as np

from benchmarks import measure
from benchmarks.sides import side
from kerasoft import heads
from pipelines.config import command, parse
from pipelines.figures import COLOURS, STYLES

# TensorFlow after pipelines, which keeps it quiet.
import tensorflow as tf  # isort: skip

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

    return lambda: tf.convert_to_tensor(both()[1]).numpy()


def repeated(function: Callable[[], object]) -> Callable[[int], None]:
    """A function that makes a number of calls."""

    def calls(count: int):
        for _ in range(count):
            function()

    return calls


def ours(classes: int, rows: int) -> Callable[[int, str], None]:
    """Makes a function that calls a head a number of times."""
    made = {}

    def calls(count: int, name: str):
        if name not in made:
            head = heads.get(name)
            made[name] = repeated(
                compiled(lambda x: head(x, training=True), classes, rows)
            )
        made[name](count)

    return calls


def keras_own(classes: int, rows: int) -> Callable[[int], None]:
    """Makes a function that calls Keras's own log-softmax."""
    return repeated(compiled(lambda x: keras.ops.log_softmax(x + 0.0), classes, rows))


def probability(classes: int, rows: int) -> Callable[[int], None]:
    """Makes a function that samples TensorFlow Probability's relaxed one-hot."""
    import tensorflow_probability as tfp  # pyright: ignore[reportMissingImports]

    function = compiled(
        lambda x: tfp.distributions.RelaxedOneHotCategorical(1.0, logits=x).sample(),
        classes,
        rows,
    )
    return repeated(function)


def compare(classes: int, rows: int, rounds: int) -> list[dict]:
    """Times every head and every other at one number of classes, in turn."""
    shape = {"classes": classes, "rows": rows}
    with contextlib.ExitStack() as stack:
        here = stack.enter_context(side("benchmarks.heads:ours", **shape))
        timed: dict[str, tuple[Callable, tuple]] = {
            name: (here, (name,)) for name in heads.HEADS
        }
        others = {
            TORCH: "benchmarks.pytorch:gumbel_softmax",
            KERAS: "benchmarks.heads:keras_own",
        }
        if importlib.util.find_spec("tensorflow_probability"):
            others[PROBABILITY] = "benchmarks.heads:probability"
        for name, maker in others.items():
            timed[name] = stack.enter_context(side(maker, **shape)), ()
        calls = {}
        for name, (seconds, which) in timed.items():
            seconds(2, *which)  # compiles
            taken = seconds(2, *which) / 2
            calls[name] = max(1, round(ROUND_SECONDS / taken))
        times = {name: [] for name in timed}
        for _ in range(rounds):
            for name, (seconds, which) in timed.items():
                taken = seconds(calls[name], *which)
                times[name].append(taken / calls[name])
    return [
        {
            "classes": classes,
            "name": name,
            "seconds": statistics.median(taken),
            "to torch": measure.ratio(taken, times[TORCH]),
        }
        for name, taken in times.items()
    ]


def plot(found: Sequence[dict]) -> matplotlib.figure.Figure:
    made = matplotlib.figure.Figure((9, 5), layout="constrained")
    axes = made.subplots()
    for i, name in enumerate(dict.fromkeys(row["name"] for row in found)):
        chosen = [row for row in found if row["name"] == name]
        axes.plot(
            [row["classes"] for row in chosen],
            [1000 * row["seconds"] for row in chosen],
            color=COLOURS[i % len(COLOURS)],
            linestyle=STYLES[i // len(COLOURS)],
            marker="o",
            markersize=3,
            label=name,
        )
    axes.set(xscale="log", yscale="log", xlabel="classes")
    axes.set_ylabel("milliseconds, forward and gradient")
    axes.grid(alpha=0.3)
    made.legend(loc="outside right upper", frameon=False)
    return made


def markdown(result: dict) -> str:
    counts = list(dict.fromkeys(row["classes"] for row in result["times"]))
    lines = [
        "# The heads beside other libraries'",
        "",
        f"`{result['made_by']}`, on {measure.described(result['machine'])}. "
        f"Milliseconds forward and with the gradient, of "
        f"{result['rows']} rows of float32 logits, medians of {result['rounds']} "
        "rounds; in brackets the ratio to PyTorch's `gumbel_softmax`.",
        "",
        "![Time by the number of classes](heads.png)",
        "",
        "| | " + " | ".join(f"{count:,}" for count in counts) + " |",
        "|---" + "|---:" * len(counts) + "|",
    ]
    for name in dict.fromkeys(row["name"] for row in result["times"]):
        cells = [
            f"{1000 * row['seconds']:.3g} ({row['to torch']:.2f})"
            for row in result["times"]
            if row["name"] == name
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = measure.parser(
        "heads", "Times the heads beside other libraries'.", rounds=15
    )
    counts = [100, 1_000, 32_000, 1_000_000]
    parser.add_argument("--classes", type=list[int], default=counts)
    parser.add_argument("--rows", type=int, default=16, help="Rows of logits a call.")
    given = parse(parser, argv)
    begun = measure.begun(parser, given)
    found = []
    for count in given.classes:
        found += compare(count, given.rows, given.rounds)
        print(f"{count:,} classes: done", flush=True)
    result = begun | {"times": found}
    measure.publish(given.out, "heads", result, markdown(result), plot(found))
    return 0


if __name__ == "__main__":
    main()
