"""Losses over many classes: `python -m benchmarks.many_classes`.

Times a training step (loss, gradients, update) of an output layer on features, and
takes the peak of memory of its making and training: Keras's dense layer with its own
cross-entropy, `kerasoft.output_layers`, and PyTorch's and TensorFlow's ways, each in a
process of its own. First the exact losses, on labels that are all alike frequent; then
those that gain where labels are skewed, by Zipf's law or as the words of a text
(`--text`). Then samples. Writes
results/benchmarks/many_classes.*. Needs `pip install -e '.[bench]'`.
"""

from __future__ import annotations

import functools
import os
import statistics
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import matplotlib.figure
import matplotlib.ticker
import numpy as np

from benchmarks import measure
from benchmarks.sides import side, written
from examples.next_word import numbered, words
from pipelines.config import command, parse
from pipelines.figures import COLOURS

DIM = 256
DRAWN = 8192  # classes, for a sampled loss
SECONDS = 0.5  # steps are repeated until a measurement takes as long
OURS = "kerasoft, chunked"
KERAS = "Keras, Dense and softmax"
BY_ITSELF = "PyTorch, linear_cross_entropy"
MODULE = "benchmarks.many_classes"
Sides = Mapping[str, tuple[str, dict]]
SIDES: Sides = {
    KERAS: ("keras_dense", {}),
    OURS: ("chunked", {}),
    "PyTorch, linear and cross_entropy": ("torch_linear", {}),
    BY_ITSELF: ("torch_fused", {}),
    "PyTorch, linear_cross_entropy of 256 rows": ("torch_fused", {"rows": 256}),
    "PyTorch, linear_cross_entropy of 512 rows": ("torch_fused", {"rows": 512}),
}
SKEWED: Sides = {
    KERAS: ("keras_dense", {}),
    OURS: ("chunked", {}),
    "kerasoft, adaptive": ("adaptive", {}),
    "PyTorch, AdaptiveLogSoftmaxWithLoss": ("torch_adaptive", {}),
    f"kerasoft, sampled {DRAWN:,}": ("sampled", {}),
    f"TensorFlow, sampled_softmax_loss {DRAWN:,}": ("tensorflow_sampled", {}),
    "kerasoft, two-level": ("two_level", {}),
}
BY_NOISE = "argmax of logits and Gumbel noise"
SAMPLES: Sides = {
    BY_NOISE: ("noise_argmax", {}),
    "kerasoft, sample": ("sample", {}),
}
MIB = 2**20


@functools.cache
def counts_of(labels: str, classes: int) -> np.ndarray:
    """How frequent each class is, falling: by a name, or as the words of a text."""
    if labels == "uniform":
        return np.ones(classes)
    if labels == "zipf":
        return 1 / (np.arange(classes) + 2.7)
    _, counts = numbered(words(Path(labels)))
    return np.sort(counts)[::-1]


def data(
    batch: int, counts: np.ndarray, dim: int = DIM
) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels."""
    draws = np.random.default_rng(0)
    features = draws.normal(size=(batch, dim)).astype("float32")
    labels = draws.choice(len(counts), batch, p=counts / counts.sum())
    return features, labels.astype("int32")


SOFTMAX = "sparse_categorical_crossentropy"


def _dense(classes: int, dim: int):
    import keras

    return keras.Sequential(
        [keras.Input((dim,)), keras.layers.Dense(classes, activation="softmax")]
    )


def keras_dense(
    batch: int, classes: int, labels: str, optimizer: str
) -> Callable[[int], None]:
    """Makes steps of Keras's dense layer, softmax and cross-entropy."""
    drawn = data(batch, counts_of(labels, classes))
    return _keras_steps(_dense(classes, DIM), drawn, optimizer, SOFTMAX)


def keras_dense_in_fit(
    batch: int, classes: int, labels: str, optimizer: str, dim: int
) -> Callable[[int], None]:
    """Makes the same steps, as `fit` makes them."""
    drawn = data(batch, counts_of(labels, classes), dim)
    return _steps_of_fit(_dense(classes, dim), drawn, optimizer, SOFTMAX)


def _ours(name: str, **kwargs):
    def maker(
        batch: int, classes: int, labels: str, optimizer: str
    ) -> Callable[[int], None]:
        import keras

        from kerasoft import output_layers

        counts = counts_of(labels, classes)
        given = {k: v(counts) for k, v in kwargs.items()}
        layer = getattr(output_layers, name)(len(counts), **given)
        model = output_layers.Classifier(keras.layers.Identity(), layer)
        return _keras_steps(model, data(batch, counts), optimizer, None)

    return maker


chunked = _ours("ChunkedOutput")
adaptive = _ours("AdaptiveOutput", counts=lambda counts: counts)
two_level = _ours("TwoLevelOutput")
sampled = _ours(
    "SampledOutput",
    num_sampled=lambda counts: min(DRAWN, len(counts)),
    counts=lambda counts: counts,
)


def _keras_optimizer(name: str):
    import keras

    return keras.optimizers.get({"class_name": name, "config": {"learning_rate": 0.01}})


def _keras_steps(model, drawn, optimizer, loss) -> Callable[[int], None]:
    model.compile(optimizer=_keras_optimizer(optimizer), loss=loss)
    features, labels = drawn
    model(features[:1])  # makes the weights
    model.optimizer.build(model.trainable_variables)

    def steps(count: int):
        for _ in range(count):
            model.train_on_batch(features, labels)

    return steps


def _steps_of_fit(model, drawn, optimizer, loss) -> Callable[[int], None]:
    """Steps without what `train_on_batch` adds, a millisecond a step."""
    import tensorflow as tf

    model.compile(optimizer=_keras_optimizer(optimizer), loss=loss)
    model(drawn[0][:1])  # makes the weights
    model.optimizer.build(model.trainable_variables)
    batches = iter(tf.data.Dataset.from_tensors(drawn).repeat())
    model.make_train_function()

    def steps(count: int):
        for _ in range(count):
            logs = model.train_function(batches)
        float(logs["loss"])

    return steps


def _factored(batch, classes, labels, dim, head):
    import keras

    from kerasoft import output_layers

    # A backbone without weights, and so nothing for the optimiser, as in the others.
    warnings.filterwarnings("ignore", "The model does not have any trainable weights")
    layer = output_layers.FactoredOutput(
        classes, head, learning_rate=0.01, refactor_every=2**30
    )
    model = output_layers.Classifier(keras.layers.Identity(), layer)
    return layer, model, data(batch, counts_of(labels, classes), dim)


def factored(
    batch: int, classes: int, labels: str, optimizer: str, dim: int, head: str
) -> Callable[[int], None]:
    """Makes steps of a layer that trains itself, as `fit` makes them.

    It does not multiply its factors out, and the optimiser has nothing to train.
    """
    _, model, drawn = _factored(batch, classes, labels, dim, head)
    return _steps_of_fit(model, drawn, optimizer, None)


def refactor(batch: int, classes: int, labels: str, dim: int) -> Callable[[int], None]:
    """Makes a layer that trains itself multiply its factors out."""
    import tensorflow as tf

    layer, _, (features, _) = _factored(batch, classes, labels, dim, "z_loss")
    layer.build(features.shape)
    refactor = tf.function(layer.refactor, autograph=False)

    def steps(count: int):
        for _ in range(count):
            refactor()

    return steps


def tensorflow_sampled(
    batch: int, classes: int, labels: str, optimizer: str
) -> Callable[[int], None]:
    """Makes steps of TensorFlow's sampled softmax, which draws by rank."""
    import keras
    import tensorflow as tf

    counts = counts_of(labels, classes)
    features, y = map(tf.constant, data(batch, counts))
    kernel = keras.Variable(tf.random.normal((len(counts), DIM)) * 0.01)
    bias = keras.Variable(tf.zeros(len(counts)))
    updates = _keras_optimizer(optimizer)
    updates.build([kernel, bias])

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            losses = tf.nn.sampled_softmax_loss(
                kernel.value,
                bias.value,
                tf.cast(y, tf.int64)[:, None],
                features,
                min(DRAWN, len(counts) - 1),
                len(counts),
            )
            loss = tf.reduce_mean(losses)
        slopes = tape.gradient(loss, [kernel.value, bias.value])
        updates.apply(slopes, [kernel, bias])
        return loss

    def steps(count: int):
        for _ in range(count):
            step().numpy()

    return steps


def torch_linear(
    batch: int, classes: int, labels: str, optimizer: str
) -> Callable[[int], None]:
    """Makes steps of PyTorch's linear layer and cross-entropy."""
    from torch.nn import functional

    def loss(x, weight, bias, y):
        return functional.cross_entropy(functional.linear(x, weight, bias), y)

    return _torch_linear_steps(loss, batch, classes, labels, optimizer)


def torch_fused(
    batch: int, classes: int, labels: str, optimizer: str, rows: int | None = None
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

    return _torch_linear_steps(loss, batch, classes, labels, optimizer)


def _torch_linear_steps(
    loss, batch, classes, labels, optimizer
) -> Callable[[int], None]:
    import torch

    layer = torch.nn.Linear(DIM, classes)

    def of(x, y):
        return loss(x, layer.weight, layer.bias, y)

    counts = counts_of(labels, classes)
    return _torch_steps(of, layer.parameters(), batch, counts, optimizer)


def torch_adaptive(
    batch: int, classes: int, labels: str, optimizer: str
) -> Callable[[int], None]:
    """Makes steps of PyTorch's adaptive softmax, with the cutoffs that ours chooses."""
    import torch

    from kerasoft.output_layers import cheapest_cutoffs

    counts = counts_of(labels, classes)
    layer = torch.nn.AdaptiveLogSoftmaxWithLoss(
        DIM, len(counts), cheapest_cutoffs(counts, DIM), head_bias=True
    )

    def of(x, y):
        return layer(x, y).loss

    return _torch_steps(of, layer.parameters(), batch, counts, optimizer)


def _torch_steps(loss, parameters, batch, counts, optimizer) -> Callable[[int], None]:
    import torch

    features, y = map(torch.from_numpy, data(batch, counts))
    y = y.long()
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
    updates = kinds[optimizer](parameters, 0.01)

    def steps(count: int):
        for _ in range(count):
            updates.zero_grad(set_to_none=True)
            loss(features, y).backward()
            updates.step()

    return steps


def sample(batch: int, classes: int) -> Callable[[int], None]:
    """Makes draws of samples by `ChunkedOutput`."""
    import keras
    import tensorflow as tf

    from kerasoft.output_layers import ChunkedOutput

    layer = ChunkedOutput(classes)
    features = tf.constant(data(batch, np.ones(classes))[0])
    layer.build(features.shape)
    seed = keras.random.SeedGenerator(0)
    return _draws(tf.function(lambda: layer.sample(features, seed)))


def noise_argmax(batch: int, classes: int) -> Callable[[int], None]:
    """Makes draws of samples as the largest of logits and noise."""
    import tensorflow as tf

    features = tf.constant(data(batch, np.ones(classes))[0])
    kernel = tf.Variable(tf.random.normal((DIM, classes)) * 0.01)

    def draw():
        logits = tf.matmul(features, kernel)
        u = tf.random.uniform(tf.shape(logits), 1e-30, 1.0)
        return tf.argmax(logits - tf.math.log(-tf.math.log(u)), axis=-1)

    return _draws(tf.function(draw))


def _draws(draw) -> Callable[[int], None]:
    def steps(count: int):
        for _ in range(count):
            draw().numpy()

    return steps


def memory(maker: str, **options) -> Callable[[str], None]:
    """Makes a function that writes the peak of memory of a side to a file, in bytes.

    Of its making and two steps, above what the process holds before it: the code,
    which steps over few classes have loaded. Weights and inputs are part of it.
    (TensorFlow keeps what was freed, such as what the making of the weights needed, and
    uses it again; so what a step needs by itself cannot be seen.)
    """
    small = {"batch": 8, "classes": 64}
    skewed = {"labels": "zipf"} if "labels" in options else {}
    globals()[maker](**{**options, **small, **skewed})(2)

    def measured(out: str):
        before, peak, done = _resident(), 0, threading.Event()

        def watch():
            nonlocal peak
            while not done.is_set():
                peak = max(peak, _resident())
                time.sleep(0.001)

        watcher = threading.Thread(target=watch)
        watcher.start()
        globals()[maker](**options)(2)
        done.set()
        watcher.join()
        Path(out).write_text(f'{{"bytes": {max(peak - before, 0)}}}')

    return measured


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def compare(sides: Sides, rounds: int, **shape) -> list[dict]:
    """Times every side in turn, and takes its memory.

    A side that the machine's memory does not hold is left out, and so is PyTorch's loss
    at its own choice of chunks where it takes a row or two at a time, and minutes.
    """
    batch, classes = shape["batch"], shape["classes"]
    whole = ("keras_dense", "torch_linear", "noise_argmax")
    sides = {
        name: (maker, options)
        for name, (maker, options) in sides.items()
        if (4 * batch * classes < 2.5e9 or maker not in whole)
        and (classes <= 2**14 or name != BY_ITSELF)
    }
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for name, (maker, options) in sides.items():
        with side(f"{MODULE}:{maker}", **shape, **options) as seconds:
            seconds(1)
            count = max(1, round(SECONDS / seconds(1)))
            taken[name] = [seconds(count) / count for _ in range(rounds)]
    rows = []
    for name, (maker, options) in sides.items():
        kept = written(f"{MODULE}:memory", maker=maker, **shape, **options)
        rows.append(
            {
                **shape,
                "side": name,
                "seconds": statistics.median(taken[name]),
                "bytes": kept["bytes"],
            }
        )
    return rows


def table(rows: Sequence[dict], first: str) -> list[str]:
    """The lines of a table; times stand beside those of the side named first."""
    labels = "labels" in rows[0]
    more, rule = ("labels | optimiser | ", "---|---|") if labels else ("", "")
    lines = [
        f"| batch | classes | {more}side | seconds | to the first | memory, MiB |",
        f"|---:|---:|{rule}---|---:|---:|---:|",
    ]
    same = [key for key in rows[0] if key not in ("side", "seconds", "bytes")]
    for row in rows:
        to = [
            row["seconds"] / other["seconds"]
            for other in rows
            if other["side"] == first and all(other[k] == row[k] for k in same)
        ]
        told = f" {Path(row['labels']).name} | {row['optimizer']} |" if labels else ""
        lines.append(
            f"| {row['batch']:,} | {row['classes']:,} |{told} {row['side']} "
            f"| {row['seconds']:.3f} | {f'{to[0]:.3f}' if to else ''} "
            f"| {row['bytes'] / MIB:,.0f} |"
        )
    return lines


def markdown(result: dict) -> str:
    lines = [
        "# Losses over many classes",
        "",
        f"`{result['made_by']}`, on {measure.described(result['machine'])}. "
        f"{DIM} features, float32; medians of {result['rounds']}; the peak of memory "
        "of making and training a layer, weights and the optimiser's state included.",
        "",
        "![Time and memory by the number of classes](many_classes.png)",
        "",
        "## Exact losses",
        "",
        "A training step by SGD; all classes are alike frequent.",
        "",
        *table(result["rows"], KERAS),
    ]
    if result["skewed"]:
        lines += [
            "",
            "## Losses for skewed labels",
            "",
            "A training step; labels by Zipf's law, or as the words of a text. Both "
            "adaptive ones have the cutoffs that `cheapest_cutoffs` gives.",
            "",
            *table(result["skewed"], KERAS),
        ]
    if result["samples"]:
        lines += [
            "",
            "## Samples",
            "",
            "A class for each row, the product of features and weights included.",
            "",
            *table(result["samples"], BY_NOISE),
        ]
    return "\n".join(lines) + "\n"


def plot(rows: Sequence[dict]) -> matplotlib.figure.Figure:
    made = matplotlib.figure.Figure((10, 4.5), layout="constrained")
    largest = max(row["batch"] for row in rows)
    for axes, key, told in zip(
        made.subplots(1, 2),
        ("seconds", "bytes"),
        ("seconds a step", "bytes, weights and all"),
        strict=True,
    ):
        for colour, name in zip(COLOURS, SIDES, strict=False):
            points = [
                (row["classes"], row[key])
                for row in rows
                if row["side"] == name and row["batch"] == largest
            ]
            axes.plot(*zip(*points, strict=True), "o-", label=name, color=colour)
        axes.set(xscale="log", yscale="log", xlabel="classes", ylabel=told)
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
    parser.add_argument(
        "--skewed", type=list[int], default=[262144], help="Classes of Zipf's law."
    )
    parser.add_argument(
        "--text", type=Path | None, default=None, help="A text whose words are classes."
    )
    parser.add_argument("--samples", type=list[int], default=[262144])
    given = parse(parser, argv)
    begun = measure.begun(parser, given)
    rows, skewed, samples = [], [], []
    laws = [("zipf", classes) for classes in given.skewed]
    if given.text is not None:
        laws.append((str(given.text), len(counts_of(str(given.text), 0))))
    for batch in given.batches:
        shape = {"batch": batch}
        for classes in given.classes:
            alike = {"labels": "uniform", "optimizer": "sgd"}
            found = compare(SIDES, given.rounds, **shape, classes=classes, **alike)
            rows += [{k: v for k, v in r.items() if k not in alike} for r in found]
            print(f"{batch} rows, {classes:,} classes: done", flush=True)
        for labels, classes in laws:
            for optimizer in ("adam", "sgd"):
                how = {"labels": labels, "optimizer": optimizer}
                skewed += compare(SKEWED, given.rounds, **shape, classes=classes, **how)
                print(f"{batch} rows, {labels}, {optimizer}: done", flush=True)
        for classes in given.samples:
            samples += compare(SAMPLES, given.rounds, **shape, classes=classes)
    result = begun | {"rows": rows, "skewed": skewed, "samples": samples}
    figure = plot(rows)
    measure.publish(given.out, "many_classes", result, markdown(result), figure)
    return 0


if __name__ == "__main__":
    main()
