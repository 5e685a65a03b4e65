"""Serving in each format: `python -m benchmarks.serving`.

Writes ResNet-12 as the SavedModel that `pipelines.train` leaves, in the formats of
`pipelines.export`, and, for comparison, as PyTorch exports the same network for ONNX
Runtime; serves one image, and many, with each in a process of its own and in turn, and
writes results/benchmarks/serving.*. Needs `pip install -e '.[bench]'`.
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
from pipelines import formats, saved_model

# TensorFlow after pipelines, which sets it up.
import keras  # isort: skip
import tensorflow as tf  # isort: skip
import kerasoft  # isort: skip

REFERENCE = "PyTorch's ONNX"
SIDES = {
    "SavedModel of a run": ("benchmarks.serving:savedmodel", {}),
    **{
        f"export, {kind}": ("benchmarks.serving:exported", {"kind": kind})
        for kind in formats.FORMATS
    },
    REFERENCE: ("benchmarks.pytorch:onnx_runtime", {}),
}
ROUND_SECONDS = 0.3


def network(width: int) -> keras.Model:
    keras.utils.set_random_seed(0)
    return kerasoft.resnet12(width=width, head="log_softmax")


def savedmodel(width: int) -> Callable[[int, int], None]:
    """Makes a function that asks a SavedModel about some images a number of times."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        classes = list(map(str, range(100)))
        saved_model.export(network(width), classes, path / "model", path)
        served = tf.saved_model.load(str(path / "model"))
    serve = served.signatures["serving_default"]

    def ask(count: int, calls: int):
        images = measure.pixels(count).images
        for _ in range(calls):
            serve(images=tf.constant(images))["log_probabilities"].numpy()

    ask.keep_alive = served  # a signature alone does not hold its variables
    return ask


def exported(width: int, kind: str) -> Callable[[int, int], None]:
    """Makes a function that asks an export about some images a number of times."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, formats.FORMATS[kind].file)
        formats.FORMATS[kind].write(formats.Network(network(width)), file)
        opened = formats.FORMATS[kind].open(file)

    def ask(count: int, calls: int):
        images = measure.pixels(count).images
        for _ in range(calls):
            opened.ask(images)

    return ask


def sizes(width: int) -> dict[str, int]:
    """The bytes of each format's files."""
    model, found = formats.Network(network(width)), {}
    for kind, form in formats.FORMATS.items():
        with tempfile.TemporaryDirectory() as folder:
            form.write(model, Path(folder, form.file))
            files = filter(Path.is_file, Path(folder).rglob("*"))
            found[kind] = sum(file.stat().st_size for file in files)
    return found


def measured(
    rounds: int = 15, width: int = 16, images: Sequence[int] = (1, 256)
) -> dict:
    """Times the sides on each number of images, in turn.

    Args:
        rounds: Measurements of each.
        width: Of ResNet-12.
        images: Images at a time.
    """
    rows = []
    with contextlib.ExitStack() as stack:
        sides = {
            name: stack.enter_context(side(maker, width=width, **options))
            for name, (maker, options) in SIDES.items()
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
                    **measure.ratio("to PyTorch's ONNX", times[REFERENCE], taken),
                }
                for name, taken in times.items()
            ]
    return {"times": rows, "bytes": sizes(width)}


def plot(result: dict) -> plots.Figure:
    figure, axes = plots.figure(7, 4)
    rows = [row | {"ms": 1000 * row["seconds"]} for row in result["times"]]
    plots.groups(axes, rows, "{images} at a time", "images a second", "{ms:.3g} ms")
    axes.margins(y=0.3)  # room for the legend
    axes.legend(fontsize="small", ncols=2, loc="upper center")
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
            "to PyTorch's ONNX": runner.ratio(row, "to PyTorch's ONNX"),
        }
        for row in result["times"]
    ]
    return [
        "# Serving in each format",
        f"ResNet-12 of width {result['width']} in float32, from uint8 images to "
        "probabilities; PyTorch's ONNX is the same network, exported by PyTorch for "
        f"ONNX Runtime; medians of {result['rounds']} rounds.",
        "![Images a second](serving.png)",
        runner.table(cells, "side"),
        "The files, in MB:",
        runner.table(
            [
                {"format": kind, "MB": f"{size / 1e6:.2f}"}
                for kind, size in result["bytes"].items()
            ]
        ),
    ]


main = runner.command("serving", measured, page, plot)


if __name__ == "__main__":
    main()
