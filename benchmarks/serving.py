"""Serving beside ONNX Runtime: `python -m benchmarks.serving`.

Writes ResNet-12 as the SavedModel that `pipelines.train` leaves, and the same network
as ONNX from PyTorch; serves one image, and many, with each in a process of its own and
in turn, and writes results/benchmarks/serving.*. Needs `pip install -e '.[bench]'`.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib.figure
import numpy as np

import kerasoft
from benchmarks import measure
from benchmarks.sides import side
from pipelines import saved_model
from pipelines.config import command, parse
from pipelines.figures import COLOURS

# TensorFlow after pipelines, which keeps it quiet.
import tensorflow as tf  # isort: skip

SIDES = {
    "SavedModel": "benchmarks.serving:savedmodel",
    "ONNX Runtime": "benchmarks.pytorch:onnx_runtime",
}
ROUND_SECONDS = 0.3


def savedmodel(width: int) -> Callable[[int, int], None]:
    """Makes a function that asks a SavedModel about images a number of times."""
    model = kerasoft.resnet12(width=width, head="log_softmax")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        saved_model.export(model, list(map(str, range(100))), path / "model", path)
        served = tf.saved_model.load(str(path / "model"))
    serve = served.signatures["serving_default"]

    def ask(calls: int, count: int):
        images = measure.pixels(count).images
        for _ in range(calls):
            serve(images=tf.constant(images))["log_probabilities"].numpy()

    ask.keep_alive = served  # a signature alone does not hold its variables
    return ask


def compare(width: int, counts: Sequence[int], rounds: int) -> list[dict]:
    """Times both sides on each number of images, in turn."""
    found = []
    with contextlib.ExitStack() as stack:
        sides = {
            name: stack.enter_context(side(maker, width=width))
            for name, maker in SIDES.items()
        }
        for count in counts:
            calls = {}
            for name, ask in sides.items():
                ask(3, count)  # compiles
                calls[name] = max(1, round(ROUND_SECONDS * 3 / ask(3, count)))
            times = {name: [] for name in sides}
            for _ in range(rounds):
                for name, ask in sides.items():
                    times[name].append(ask(calls[name], count) / calls[name])
            found += [
                {
                    "images": count,
                    "side": name,
                    "seconds": statistics.median(taken),
                    "images a second": count / statistics.median(taken),
                    "to ONNX Runtime": 1 / measure.ratio(taken, times["ONNX Runtime"]),
                }
                for name, taken in times.items()
            ]
    return found


def plot(found: Sequence[dict]) -> matplotlib.figure.Figure:
    counts = list(dict.fromkeys(row["images"] for row in found))
    made = matplotlib.figure.Figure((7, 4), layout="constrained")
    axes = made.subplots()
    for i, name in enumerate(SIDES):
        rows = [row for row in found if row["side"] == name]
        places = np.arange(len(counts)) + 0.4 * (i - 0.5)
        heights = [row["images a second"] for row in rows]
        bars = axes.bar(places, heights, 0.38, label=name, color=COLOURS[i])
        words = [f"{1000 * row['seconds']:.3g} ms" for row in rows]
        axes.bar_label(bars, words, fontsize="small")
    axes.set_xticks(range(len(counts)), [f"{count} at a time" for count in counts])
    axes.set_ylabel("images a second")
    axes.set_title("Serving ResNet-12: the time of a call above the bars", fontsize=11)
    axes.margins(y=0.1)
    axes.legend(fontsize="small")
    return made


def markdown(result: dict) -> str:
    lines = [
        "# Serving, beside ONNX Runtime",
        "",
        f"`{result['made_by']}`, on {measure.described(result['machine'])}. ResNet-12 "
        f"of width {result['width']} in float32, from uint8 images to "
        f"log-probabilities; medians of {result['rounds']} rounds.",
        "",
        "![Images a second](serving.png)",
        "",
        "| images at a time | side | milliseconds a call | images a second | "
        "to ONNX Runtime |",
        "|---:|---|---:|---:|---:|",
    ]
    lines += [
        f"| {row['images']} | {row['side']} | {1000 * row['seconds']:.3g} "
        f"| {row['images a second']:,.0f} | {row['to ONNX Runtime']:.2f} |"
        for row in result["times"]
    ]
    return "\n".join(lines) + "\n"


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = measure.parser("serving", "Times serving beside ONNX Runtime.", rounds=15)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument(
        "--images", type=list[int], default=[1, 256], help="Images at a time."
    )
    given = parse(parser, argv)
    begun = measure.begun(parser, given)
    found = compare(given.width, given.images, given.rounds)
    result = begun | {"times": found}
    measure.publish(given.out, "serving", result, markdown(result), plot(found))
    return 0


if __name__ == "__main__":
    main()
