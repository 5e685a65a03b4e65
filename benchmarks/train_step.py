"""A training step beside PyTorch's: `python -m benchmarks.train_step`.

Trains ResNet-12 on one batch, again and again, in Keras (with kerasoft's layers, with
its own, and in float32 without oneDNN) and in PyTorch (eager, and compiled), each in a
process of its own and in turn, and writes results/benchmarks/train_step.*. Needs
`pip install -e '.[bench]'`.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks import measure, plots, runner
from benchmarks.sides import Calls, repeated
from pipelines import batching, datasets, optimizers
from pipelines.config import Config
from pipelines.training import build

# TensorFlow after pipelines, which sets it up.
import tensorflow as tf  # isort: skip
import keras  # isort: skip
import kerasoft.backbones.resnet  # isort: skip

SIDES = {
    "Keras": ("benchmarks.train_step:training", {}),
    "Keras, its own layers": ("benchmarks.train_step:training", {"plain": True}),
    "PyTorch, eager": ("benchmarks.pytorch:training", {"compiled": False}),
    "PyTorch, compiled": ("benchmarks.pytorch:training", {"compiled": True}),
}
# What TensorFlow does by itself on a processor without AVX-512. In float32 alone:
# without oneDNN, bfloat16 is emulated, and some 20 times slower.
WITHOUT_ONEDNN = "Keras, without oneDNN"
PRODUCT = 2048  # the side of the matrices that the machine's rate is taken with


def training(
    width: int,
    precision: str,
    batch_size: int,
    feed: str = "one batch",
    plain: bool = False,
    **options,
) -> Calls:
    """Makes a function that takes training steps as `train` does.

    Args:
        width, precision, batch_size: As in a config.
        feed: `one batch`, again and again, or `the pipeline`, with as many images as
            CIFAR-100 has.
        plain: Whether batch normalisation and SGD are Keras's own, not kerasoft's.
        **options: Others of a config.
    """
    if plain:
        use_keras_own()
    split = measure.pixels(measure.IMAGES)
    names = [str(i) for i in range(100)]
    config = Config(
        dataset="cifar100",
        width=width,
        precision=precision,  # pyright: ignore
        batch_size=batch_size,
        **options,
    )
    loaded = datasets.Data("random", split, split, split, names, None, None, "")
    return steps_of(config, loaded, precision, feed)


def use_keras_own(put: Callable = setattr):
    """Puts Keras's own layer and optimiser where kerasoft's are used."""
    put(
        kerasoft.backbones.resnet, "BatchNormalization", keras.layers.BatchNormalization
    )
    put(optimizers, "SGD", keras.optimizers.SGD)


def steps_of(
    config: Config, loaded: datasets.Data, policy: str, feed: str = "one batch"
) -> Calls:
    """Makes a function that takes training steps of a config as `train` does.

    Args:
        config: Describes the run.
        loaded: Its data.
        policy: The dtype policy.
        feed: `one batch`, again and again, or `the pipeline`.
    """
    model = build(config, loaded, policy)
    targets = None if config.output else len(loaded.class_names)
    batches = batching.training_batches(loaded.train, targets, config)
    if feed == "one batch":
        batches = batches.take(1).cache().repeat()

    def steps(count: int):
        model.fit(batches, steps_per_epoch=count, shuffle=False, verbose=0)

    return steps


def matrix_products(precision: str) -> Calls:
    """Makes a function that multiplies large matrices, the machine's own rate."""
    dtype = "bfloat16" if precision == "mixed_bfloat16" else "float32"
    a = tf.cast(tf.random.stateless_normal((PRODUCT, PRODUCT), (0, 0)), dtype)

    @tf.function
    def product():
        return tf.reduce_max(tf.matmul(a, a))

    return repeated(lambda: product().numpy())


def operations(width: int) -> int:
    """Floating-point operations of a training step, an image: thrice the forward's."""
    model = kerasoft.resnet12(width=width)
    count = 0
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            _, height, across, _ = layer.output.shape
            count += 2 * height * across * int(np.prod(layer.kernel.shape))
        if isinstance(layer, keras.layers.Dense):
            count += 2 * int(np.prod(layer.kernel.shape))
    return 3 * count


def compare(width: int, precision: str, batch_size: int, steps: int, rounds: int):
    """Times every side in turn.

    Returns:
        A row for each side: images a second, the ratio to PyTorch's better mode, and
        the share of the machine's rate of matrix products.
    """
    shared = {"width": width, "precision": precision, "batch_size": batch_size}
    sides = {
        name: (maker, {**shared, **options}, steps)
        for name, (maker, options) in SIDES.items()
    }
    variables = {}
    if precision == "float32":
        sides[WITHOUT_ONEDNN] = sides["Keras"]
        variables[WITHOUT_ONEDNN] = {"TF_ENABLE_ONEDNN_OPTS": "0"}
    product = "benchmarks.train_step:matrix_products"
    sides["products"] = product, {"precision": precision}, 5
    taken = measure.sides_in_turn(sides, rounds, variables)
    rate = 5 * 2 * PRODUCT**3 / statistics.median(taken.pop("products"))
    torch_sides = [name for name in taken if name.startswith("PyTorch")]
    better = min(torch_sides, key=lambda name: statistics.median(taken[name]))
    work = operations(width) * steps * batch_size
    return [
        {
            "width": width,
            "precision": precision,
            "side": name,
            "images a second": steps * batch_size / statistics.median(seconds),
            **measure.ratio("to the better", taken[better], seconds),
            "share of matrix products": work / statistics.median(seconds) / rate,
        }
        for name, seconds in taken.items()
    ]


def plot(result: dict) -> plots.Figure:
    figure, axes = plots.figure(10, 4.5)
    settings, speeds = "width {width}\n{precision}", "{images a second:,.0f}"
    plots.groups(axes, result["rows"], settings, "to the better", speeds)
    axes.axhline(1, color=plots.GREY, linewidth=1)
    axes.set_ylabel("speed, as a ratio to PyTorch's better mode")
    axes.set_title("Training ResNet-12: images a second above the bars", fontsize=11)
    return figure


def page(result: dict) -> list[str]:
    share = "share of the machine's rate of matrix products"
    cells = [
        {
            "width": row["width"],
            "precision": row["precision"],
            "side": row["side"],
            "images a second": f"{row['images a second']:,.0f}",
            "to PyTorch's better mode": runner.ratio(row, "to the better"),
            share: f"{row['share of matrix products']:.1%}",
        }
        for row in result["rows"]
    ]
    return [
        "# A training step, beside PyTorch's",
        f"Medians of {result['rounds']} rounds of {result['steps']} steps (fewer of "
        f"wider networks) on one batch of {result['batch_size']}.",
        "![Speed beside PyTorch's](train_step.png)",
        runner.table(cells, "precision", "side"),
    ]


def measured(
    rounds: int = 7,
    widths: Sequence[int] = (16, 64),
    precisions: Sequence[str] = ("float32", "mixed_bfloat16"),
    batch_size: int = 128,
    steps: int = 40,
) -> dict:
    """Times a training step beside PyTorch's.

    Args:
        rounds: Measurements of each.
        widths: Of ResNet-12, each in turn.
        precisions: Of training, each in turn.
        batch_size: As in a config.
        steps: Of a measurement at width 16; in proportion fewer of a wider network.
    """
    rows = []
    for width in widths:
        for precision in precisions:
            count = max(1, steps * 16 // width)
            rows += compare(width, precision, batch_size, count, rounds)
            print(f"width {width}, {precision}: done", flush=True)
    return {"rows": rows}


main = runner.command("train_step", measured, page, plot)


if __name__ == "__main__":
    main()
