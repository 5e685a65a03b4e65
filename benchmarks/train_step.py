"""A training step beside PyTorch's: `python -m benchmarks.train_step`.

Trains ResNet-12 on one batch, again and again, in Keras (with kerasoft's layers, with
its own, and in float32 without oneDNN) and in PyTorch (eager, and compiled), each in a
process of its own and in turn, and writes results/benchmarks/train_step.*. Needs
`pip install -e '.[bench]'`.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import keras
import matplotlib.figure
import numpy as np

import kerasoft
import kerasoft.backbones.resnet
from benchmarks import measure
from pipelines import batching, datasets, train
from pipelines.config import Config, command, parse
from pipelines.figures import COLOURS

# TensorFlow after pipelines, which keeps it quiet.
import tensorflow as tf  # isort: skip

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
) -> Callable[[int], None]:
    """Makes a function that takes training steps as `train` does.

    Args:
        width, precision, batch_size: As in a config.
        feed: `one batch`, again and again, or `the pipeline`, with as many images as
            CIFAR-100 has.
        plain: Whether batch normalisation and SGD are Keras's own, not kerasoft's.
        **options: Others of a config.
    """
    if plain:
        own = {
            kerasoft.backbones.resnet: keras.layers.BatchNormalization,
            train: keras.optimizers.SGD,
        }
        for module, part in own.items():
            setattr(module, part.__name__, part)
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
    model = train.build(config, loaded, precision)
    batches = batching.training_batches(split, 100, config)
    if feed == "one batch":
        batches = batches.take(1).cache().repeat()

    def steps(count: int):
        model.fit(batches, steps_per_epoch=count, shuffle=False, verbose=0)

    return steps


def matrix_products(precision: str) -> Callable[[int], None]:
    """Makes a function that multiplies large matrices, the machine's own rate."""
    dtype = "bfloat16" if precision == "mixed_bfloat16" else "float32"
    a = tf.cast(tf.random.stateless_normal((PRODUCT, PRODUCT), (0, 0)), dtype)

    @tf.function
    def product():
        return tf.reduce_max(tf.matmul(a, a))

    def calls(count: int):
        for _ in range(count):
            product().numpy()

    return calls


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
    rows = []
    for name, seconds in taken.items():
        per_second = steps * batch_size / statistics.median(seconds)
        rows.append(
            {
                "width": width,
                "precision": precision,
                "side": name,
                "images a second": per_second,
                "to the better": 1 / measure.ratio(seconds, taken[better]),
                "share of matrix products": per_second * operations(width) / rate,
            }
        )
    return rows


def plot(rows: Sequence[dict]) -> matplotlib.figure.Figure:
    settings = list(dict.fromkeys((row["width"], row["precision"]) for row in rows))
    made = matplotlib.figure.Figure((10, 4.5), layout="constrained")
    axes = made.subplots()
    for i, name in enumerate((*SIDES, WITHOUT_ONEDNN)):
        of_side = [row for row in rows if row["side"] == name]
        heights = [row["to the better"] for row in of_side]
        places = [
            settings.index((row["width"], row["precision"])) + 0.17 * (i - 2)
            for row in of_side
        ]
        bars = axes.bar(places, heights, 0.16, label=name, color=COLOURS[i])
        speeds = [row["images a second"] for row in of_side]
        axes.bar_label(bars, [f"{speed:,.0f}" for speed in speeds], fontsize="small")
    axes.axhline(1, color=COLOURS[7], linewidth=1)
    words = [f"width {width}\n{precision}" for width, precision in settings]
    axes.set_xticks(range(len(settings)), words)
    axes.set_ylabel("speed, as a ratio to PyTorch's better mode")
    axes.set_title("Training ResNet-12: images a second above the bars", fontsize=11)
    axes.legend(fontsize="small")
    return made


def markdown(result: dict) -> str:
    lines = [
        "# A training step, beside PyTorch's",
        "",
        f"`{result['made_by']}`, on {measure.described(result['machine'])}. "
        f"Medians of {result['rounds']} rounds of "
        f"{result['steps']} steps (fewer of wider networks) on one batch of "
        f"{result['batch_size']}.",
        "",
        "![Speed beside PyTorch's](train_step.png)",
        "",
        "| width | precision | side | images a second | to PyTorch's better mode | "
        "share of the machine's rate of matrix products |",
        "|---:|---|---|---:|---:|---:|",
    ]
    lines += [
        f"| {row['width']} | {row['precision']} | {row['side']} "
        f"| {row['images a second']:,.0f} | {row['to the better']:.2f} "
        f"| {row['share of matrix products']:.1%} |"
        for row in result["rows"]
    ]
    return "\n".join(lines) + "\n"


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = measure.parser(
        "train_step", "Times a training step beside PyTorch's.", rounds=7
    )
    parser.add_argument("--widths", type=list[int], default=[16, 64])
    parser.add_argument(
        "--precisions", type=list[str], default=["float32", "mixed_bfloat16"]
    )
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument(
        "--steps",
        type=int,
        default=40,
        help="Of a measurement at width 16; in proportion fewer of a wider network.",
    )
    given = parse(parser, argv)
    begun = measure.begun(parser, given)
    rows = []
    for width in given.widths:
        for precision in given.precisions:
            steps = max(1, given.steps * 16 // width)
            rows += compare(width, precision, given.batch_size, steps, given.rounds)
            print(f"width {width}, {precision}: done", flush=True)
    result = begun | {"rows": rows}
    measure.publish(given.out, "train_step", result, markdown(result), plot(rows))
    return 0


if __name__ == "__main__":
    main()
