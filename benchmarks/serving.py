"""Serving beside ONNX Runtime: `python -m benchmarks.serving`.

Writes ResNet-12 as the SavedModel that `pipelines.train` leaves, and the same network
as ONNX from PyTorch; serves one image, and many, with each in a process of its own and
in turn, and writes results/benchmarks/serving.*. Needs `pip install -e '.[bench]'`.
"""

from __future__ import annotations

import contextlib
import functools
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import measure, plots, runner
from benchmarks.sides import side
from pipelines import saved_model

# TensorFlow after pipelines, which sets it up.
import tensorflow as tf  # isort: skip
import kerasoft  # isort: skip

SIDES = {
    "SavedModel": "benchmarks.serving:savedmodel",
    "ONNX Runtime": "benchmarks.pytorch:onnx_runtime",
}
ROUND_SECONDS = 0.3


def savedmodel(width: int) -> Callable[[int, int], None]:
    """Makes a function that asks a SavedModel about some images a number of times."""
    model = kerasoft.resnet12(width=width, head="log_softmax")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        saved_model.export(model, list(map(str, range(100))), path / "model", path)
        served = tf.saved_model.load(str(path / "model"))
    serve = served.signatures["serving_default"]

    def ask(count: int, calls: int):
        images = measure.pixels(count).images
        for _ in range(calls):
            serve(images=tf.constant(images))["log_probabilities"].numpy()

    ask.keep_alive = served  # a signature alone does not hold its variables
    return ask


def measured(
    rounds: int = 15, width: int = 16, images: Sequence[int] = (1, 256)
) -> dict:
    """Times both sides on each number of images, in turn.

    Args:
        rounds: Measurements of each.
        width: Of ResNet-12.
        images: Images at a time.
    """
    rows = []
    with contextlib.ExitStack() as stack:
        sides = {
            name: stack.enter_context(side(maker, width=width))
            for name, maker in SIDES.items()
        }
        for count in images:
            calls = {name: functools.partial(ask, count) for name, ask in sides.items()}
            times = measure.in_turn(calls, rounds, ROUND_SECONDS)
            rows += [
                {
                    "images": count,
                    "side": name,
                    "seconds": statistics.median(taken),
                    "images a second": count / statistics.median(taken),
                    **measure.ratio("to ONNX Runtime", times["ONNX Runtime"], taken),
                }
                for name, taken in times.items()
            ]
    return {"times": rows}


def plot(result: dict) -> plots.Figure:
    figure, axes = plots.figure(7, 4)
    rows = [row | {"ms": 1000 * row["seconds"]} for row in result["times"]]
    plots.groups(axes, rows, "{images} at a time", "images a second", "{ms:.3g} ms")
    axes.set_ylabel("images a second")
    axes.set_title("Serving ResNet-12: the time of a call above the bars", fontsize=11)
    return figure


def page(result: dict) -> list[str]:
    cells = [
        {
            "images at a time": row["images"],
            "side": row["side"],
            "milliseconds a call": f"{1000 * row['seconds']:.3g}",
            "images a second": f"{row['images a second']:,.0f}",
            "to ONNX Runtime": runner.ratio(row, "to ONNX Runtime"),
        }
        for row in result["times"]
    ]
    return [
        "# Serving, beside ONNX Runtime",
        f"ResNet-12 of width {result['width']} in float32, from uint8 images to "
        f"log-probabilities; medians of {result['rounds']} rounds.",
        "![Images a second](serving.png)",
        runner.table(cells, "side"),
    ]


main = runner.command("serving", measured, page, plot)


if __name__ == "__main__":
    main()
