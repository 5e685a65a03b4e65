"""Losses over many classes: `python -m benchmarks.many_classes`.

Times a training step (loss, gradients, update by SGD) of an output layer on features,
and takes the peak of its memory above the inputs and weights: Keras's dense layer with
its own cross-entropy, `kerasoft.output_layers`, and PyTorch's ways, each in a process
of its own. Writes results/benchmarks/many_classes.*. Needs `pip install -e '.[bench]'`.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib.figure
import matplotlib.ticker
import numpy as np

from benchmarks import measure
from benchmarks.sides import side, written
from pipelines.config import command, parse
from pipelines.figures import COLOURS

DIM = 256
OURS = "kerasoft, chunked"
KERAS = "Keras, Dense and softmax"
BY_ITSELF = "PyTorch, linear_cross_entropy"
MODULE = "benchmarks.many_classes"
SIDES: dict[str, tuple[str, dict]] = {
    KERAS: (f"{MODULE}:keras_dense", {}),
    OURS: (f"{MODULE}:chunked", {}),
    "PyTorch, linear and cross_entropy": (f"{MODULE}:torch_linear", {}),
    BY_ITSELF: (f"{MODULE}:torch_fused", {}),
    "PyTorch, linear_cross_entropy of 256 rows": (
        f"{MODULE}:torch_fused",
        {"rows": 256},
    ),
    "PyTorch, linear_cross_entropy of 512 rows": (
        f"{MODULE}:torch_fused",
        {"rows": 512},
    ),
}
MIB = 2**20


def data(batch: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels."""
    draws = np.random.default_rng(0)
    features = draws.normal(size=(batch, DIM)).astype("float32")
    return features, draws.integers(0, classes, batch).astype("int32")


def keras_dense(batch: int, classes: int) -> Callable[[int], None]:
    """Makes steps of Keras's dense layer, softmax and cross-entropy."""
    import keras

    model = keras.Sequential(
        [keras.Input((DIM,)), keras.layers.Dense(classes, activation="softmax")]
    )
    return _keras_steps(model, batch, classes, "sparse_categorical_crossentropy")


def chunked(batch: int, classes: int) -> Callable[[int], None]:
    """Makes steps of `ChunkedOutput`."""
    import keras

    from kerasoft.output_layers import ChunkedOutput, Classifier

    model = Classifier(keras.layers.Identity(), ChunkedOutput(classes))
    return _keras_steps(model, batch, classes, None)


def _keras_steps(model, batch, classes, loss) -> Callable[[int], None]:
    import keras

    model.compile(optimizer=keras.optimizers.SGD(0.1), loss=loss)
    features, labels = data(batch, classes)
    model(features[:1])  # makes the weights

    def steps(count: int):
        for _ in range(count):
            model.train_on_batch(features, labels)

    return steps


def torch_linear(batch: int, classes: int) -> Callable[[int], None]:
    """Makes steps of PyTorch's linear layer and cross-entropy."""
    from torch.nn import functional

    def loss(x, weight, bias, y):
        return functional.cross_entropy(functional.linear(x, weight, bias), y)

    return _torch_steps(loss, batch, classes)


def torch_fused(
    batch: int, classes: int, rows: int | None = None
) -> Callable[[int], None]:
    """Makes steps of PyTorch's chunked loss, at its own or a given number of rows."""
    import torch
    from torch.nn import functional

    chunks = {} if rows is None else {"batch_chunk_size": rows, "chunking_method": None}
    options = torch.nn.LinearCrossEntropyOptions(**chunks)

    def loss(x, weight, bias, y):
        return functional.linear_cross_entropy(
            x, weight, y, linear_bias=bias, options=options
        )

    return _torch_steps(loss, batch, classes)


def _torch_steps(loss, batch, classes) -> Callable[[int], None]:
    import torch

    torch.manual_seed(0)
    features, labels = map(torch.from_numpy, data(batch, classes))
    layer = torch.nn.Linear(DIM, classes)
    optimizer = torch.optim.SGD(layer.parameters(), 0.1)

    def steps(count: int):
        for _ in range(count):
            optimizer.zero_grad(set_to_none=True)
            total = loss(features, layer.weight, layer.bias, labels.long())
            total.backward()
            optimizer.step()

    return steps


def memory(maker: str, **options) -> Callable[[str], None]:
    """Makes a function that writes the peak of memory of a step to a file, in bytes.

    Above what the process holds before it: inputs, weights, and the code, which steps
    over few classes have loaded.
    """
    globals()[maker](**{**options, "batch": 8, "classes": 64})(2)
    steps = globals()[maker](**options)

    def measured(out: str):
        before, peak, done = _resident(), 0, threading.Event()

        def watch():
            nonlocal peak
            while not done.is_set():
                peak = max(peak, _resident())
                time.sleep(0.001)

        watcher = threading.Thread(target=watch)
        watcher.start()
        steps(1)
        done.set()
        watcher.join()
        Path(out).write_text(f'{{"bytes": {max(peak - before, 0)}}}')

    return measured


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def compare(batch: int, classes: int, rounds: int) -> list[dict]:
    """Times every side in turn, and takes its memory.

    A side that the machine's memory does not hold is left out, and so is PyTorch's loss
    at its own choice of chunks where it takes a row or two at a time, and minutes.
    """
    shape = {"batch": batch, "classes": classes}
    logits = 4 * batch * classes
    sides = {
        name: (maker, options)
        for name, (maker, options) in SIDES.items()
        if (logits < 2.5e9 or "chunked" in name or "linear_cross" in name)
        and (classes <= 2**14 or name != BY_ITSELF)
    }
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for name, (maker, options) in sides.items():
        with side(maker, **shape, **options) as seconds:
            seconds(1)
            taken[name] = [seconds(1) for _ in range(rounds)]
    rows = []
    for name, (maker, options) in sides.items():
        kept = written(
            f"{MODULE}:memory", maker=maker.split(":")[1], **shape, **options
        )
        rows.append(
            {
                **shape,
                "side": name,
                "seconds": statistics.median(taken[name]),
                "bytes": kept["bytes"],
            }
        )
    return rows


def markdown(result: dict) -> str:
    lines = [
        "# Losses over many classes",
        "",
        f"`{result['made_by']}`, on {measure.described(result['machine'])}. A training "
        f"step by SGD on {DIM} features, float32; medians of {result['rounds']}; the "
        "peak of memory above inputs and weights.",
        "",
        "![Time and memory by the number of classes](many_classes.png)",
        "",
        "| batch | classes | side | seconds | to Keras's | memory, MiB |",
        "|---:|---:|---|---:|---:|---:|",
    ]
    for row in result["rows"]:
        to = [
            row["seconds"] / other["seconds"]
            for other in result["rows"]
            if other["side"] == KERAS
            and (other["batch"], other["classes"]) == (row["batch"], row["classes"])
        ]
        lines.append(
            f"| {row['batch']:,} | {row['classes']:,} | {row['side']} "
            f"| {row['seconds']:.3f} | {f'{to[0]:.2f}' if to else ''} "
            f"| {row['bytes'] / MIB:,.0f} |"
        )
    return "\n".join(lines) + "\n"


def plot(rows: Sequence[dict]) -> matplotlib.figure.Figure:
    made = matplotlib.figure.Figure((10, 4.5), layout="constrained")
    largest = max(row["batch"] for row in rows)
    for axes, key, words in zip(
        made.subplots(1, 2),
        ("seconds", "bytes"),
        ("seconds a step", "bytes above inputs and weights"),
        strict=True,
    ):
        for colour, name in zip(COLOURS, SIDES, strict=False):
            points = [
                (row["classes"], row[key])
                for row in rows
                if row["side"] == name and row["batch"] == largest
            ]
            axes.plot(*zip(*points, strict=True), "o-", label=name, color=colour)
        axes.set(xscale="log", yscale="log", xlabel="classes", ylabel=words)
        axes.xaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
        axes.grid(alpha=0.3)
    made.axes[0].legend(fontsize="small")
    return made


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = measure.parser(
        "many_classes", "Times losses over many classes, and takes memory.", rounds=5
    )
    parser.add_argument("--batches", type=list[int], default=[256, 2048])
    parser.add_argument(
        "--classes", type=list[int], default=[1024, 16384, 262144, 1048576]
    )
    given = parse(parser, argv)
    begun = measure.begun(parser, given)
    rows = []
    for batch in given.batches:
        for classes in given.classes:
            rows += compare(batch, classes, given.rounds)
            print(f"{batch} rows, {classes:,} classes: done", flush=True)
    result = begun | {"rows": rows}
    measure.publish(given.out, "many_classes", result, markdown(result), plot(rows))
    return 0


if __name__ == "__main__":
    main()
