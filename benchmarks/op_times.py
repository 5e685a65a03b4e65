"""Where the time goes, op by op: `python -m benchmarks.op_times`.

Profiles a training step of ResNet-12 in Keras and in PyTorch, and a serving call of
its SavedModel and of ONNX Runtime, each with the library's own profiler, in a process
of its own. Writes results/benchmarks/op_times.*. Needs `pip install -e '.[bench]'`.
"""

from __future__ import annotations

import collections
import functools
import json
import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import matplotlib.patches

from benchmarks import plots, runner, serving, train_step
from benchmarks.sides import Calls, written
from pipelines.plots import COLOURS

# TensorFlow after pipelines, which sets it up.
import tensorflow as tf  # isort: skip

KINDS = {  # of ops, by their names in TensorFlow, PyTorch and ONNX Runtime
    "convolutions": r"Conv2D$|mkldnn_convolution$|^(Nchwc|Fused)?Conv$",
    "convolutions, gradient": r"Conv2DBackprop|convolution_backward",
    "batch normalisation": r"FusedBatchNorm(V3|Ex)?$|native_batch_norm$|^BatchNorm",
    "batch normalisation, gradient": r"FusedBatchNormGrad|batch_norm_backward",
    "LeakyReLU": r"^LeakyRelu$|leaky_relu_?$",
    "LeakyReLU, gradient": r"LeakyReluGrad|leaky_relu_backward",
    "max-pooling": r"MaxPool|max_pool2d",
}
REST = "all else"
OP = re.compile(r"[^:#]+:(\w+)(#.*)?")  # an event of TensorFlow's profiler: `node:op`
STEP, CALL = "a training step", "a serving call"
TASKS = {
    STEP: {
        "Keras": "benchmarks.op_times:keras_step",
        "PyTorch": "benchmarks.pytorch:step_op_times",
    },
    CALL: {
        "SavedModel": "benchmarks.op_times:savedmodel_call",
        "ONNX Runtime": "benchmarks.pytorch:call_op_times",
    },
}


def by_kind(milliseconds: Mapping[str, float]) -> dict[str, float]:
    """Adds up the times of ops, by their kind."""
    found = dict.fromkeys([*KINDS, REST], 0.0)
    for op, taken in milliseconds.items():
        kinds = [kind for kind, names in KINDS.items() if re.search(names, op)]
        found[kinds[0] if kinds else REST] += taken
    return found


def tensorflow_ops(calls: Calls, count: int) -> dict[str, float]:
    """Milliseconds of each op of TensorFlow, a call."""
    from tensorflow.tsl.profiler.protobuf import (  # pyright: ignore
        xplane_pb2,
    )

    options = tf.profiler.experimental.ProfilerOptions(
        host_tracer_level=2, python_tracer_level=0
    )
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder, options):
            calls(count)
        (path,) = Path(folder).rglob("*.xplane.pb")
        space = xplane_pb2.XSpace.FromString(path.read_bytes())
    taken = collections.Counter()
    for plane in space.planes:
        if "CPU" not in plane.name:
            continue
        for line in plane.lines:
            for event in line.events:
                name = plane.event_metadata[event.metadata_id].name
                if op := OP.fullmatch(name):
                    taken[op[1]] += event.duration_ps / 1e9 / count
    return dict(taken)


def kept(
    calls: Calls, ops: Callable[[Calls, int], dict[str, float]]
) -> Callable[[str, int], None]:
    """Makes a function that times calls, profiles as many, and writes to a file.

    Args:
        calls: Does a number of calls.
        ops: From that and the number to milliseconds of each op, a call.
    """

    def measured(out: str, count: int):
        calls(2 * count)  # compiles, and warms up
        started = time.perf_counter()
        calls(count)
        wall = 1000 * (time.perf_counter() - started) / count
        found = {"wall": wall, "kinds": by_kind(ops(calls, count))}
        Path(out).write_text(json.dumps(found))

    return measured


def keras_step(width: int, precision: str, count: int) -> Callable[[str, int], None]:
    """Makes a function that profiles training steps on `count` images."""
    return kept(train_step.training(width, precision, count), tensorflow_ops)


def savedmodel_call(width: int, count: int) -> Callable[[str, int], None]:
    """Makes a function that profiles calls of a SavedModel with `count` images."""
    return kept(functools.partial(serving.savedmodel(width), count), tensorflow_ops)


def measured(
    width: int = 16,
    precision: str = "mixed_bfloat16",
    images: Sequence[int] = (128, 256),
    calls: int = 20,
) -> dict:
    """Profiles both sides of each task, one after the other.

    Args:
        width: Of ResNet-12.
        precision: Of training.
        images: In a step, and in a call.
        calls: How many to time, and to profile.

    Returns:
        The images, and by task and side the milliseconds of a call, and of each kind of
        op in it.
    """
    found = {}
    counts = dict(zip(TASKS, images, strict=True))
    for task, sides in TASKS.items():
        policy = {"precision": precision} if task == STEP else {}
        options = {"width": width, "count": counts[task], **policy}
        found[task] = {
            name: written(maker, calls, **options) for name, maker in sides.items()
        }
    return {"images": counts, "tasks": found}


def plot(result: dict) -> plots.Figure:
    figure, panels = plots.figure(9, 4.5, nrows=2)
    for axes, (task, sides) in zip(panels, result["tasks"].items(), strict=True):
        for name, taken in sides.items():
            left = 0.0
            for colour, ms in zip(COLOURS, taken["kinds"].values(), strict=True):
                axes.barh(name, ms, left=left, color=colour)
                left += ms
            axes.plot([taken["wall"]], [name], "k|", markersize=24)
        axes.invert_yaxis()
        axes.set_title(f"{task}: milliseconds of ops; the line is the call", size=10)
    kinds = zip(COLOURS, [*KINDS, REST], strict=True)
    handles = [matplotlib.patches.Patch(color=c, label=kind) for c, kind in kinds]
    figure.legend(handles=handles, loc="outside right center", fontsize="small")
    return figure


def page(result: dict) -> list[str]:
    parts = [
        "# Where the time goes, op by op",
        f"ResNet-12 of width {result['width']}; {result['calls']} calls by the clock, "
        "then as many under each library's own profiler. TensorFlow runs two ops at "
        "once where it can, each slower then, so that its ops may add up to more than "
        "the call.",
        "![Milliseconds of each kind of op](op_times.png)",
    ]
    how = {STEP: f"{result['precision']}, PyTorch eager", CALL: "float32"}
    for task, sides in result["tasks"].items():
        columns = {
            name: {
                **side["kinds"],
                "all ops": sum(side["kinds"].values()),
                "the call, by the clock": side["wall"],
            }
            for name, side in sides.items()
        }
        kinds = next(iter(columns.values()))
        rows = [
            {"milliseconds": kind}
            | {name: f"{column[kind]:.1f}" for name, column in columns.items()}
            for kind in kinds
            if any(column[kind] for column in columns.values())
        ]
        parts += [
            f"## {task.capitalize()} of {result['images'][task]} images, {how[task]}",
            runner.table(rows),
        ]
    return parts


main = runner.command("op_times", measured, page, plot)


if __name__ == "__main__":
    main()
