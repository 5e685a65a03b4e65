"""Sides of the benchmarks of output layers: makers of training steps and of draws.

Each makes a function that takes a number of steps; `memory` takes the peak of memory of
one. Each is in a process of its own, into which only PyTorch's import PyTorch.
"""

from __future__ import annotations

import functools
import importlib
import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from benchmarks.sides import Calls, repeated
from examples.next_word import numbered, words
from kerasoft import output_layers

DIM = 256  # features
DRAWN = 8192  # classes, for a sampled loss


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


def training(make: Callable, steps_of: Callable) -> Callable[..., Calls]:
    """A maker of training steps.

    Args:
        make: From the classes' counts, the number of features and further options to a
            model and its loss.
        steps_of: From model, loss, data and optimiser to the function that takes steps.
    """

    def maker(
        batch: int, classes: int, labels: str, optimizer: str, dim=DIM, **options
    ) -> Calls:
        counts = counts_of(labels, classes)
        model, loss = make(counts, dim, **options)
        return steps_of(model, loss, data(batch, counts, dim), optimizer)

    return maker


def dense(counts, dim):
    """Keras's dense layer, softmax and cross-entropy."""
    layer = keras.layers.Dense(len(counts), activation="softmax")
    model = keras.Sequential([keras.Input((dim,)), layer])
    return model, "sparse_categorical_crossentropy"


def ours(name: str, **kwargs):
    """An output layer of kerasoft, with arguments that are functions of the counts."""

    def make(counts, _):
        given = {k: v(counts) for k, v in kwargs.items()}
        layer = getattr(output_layers, name)(len(counts), **given)
        return output_layers.Classifier(keras.layers.Identity(), layer), None

    return make


def trains_itself(counts, _, head: str):
    """A layer that trains itself, and leaves the optimiser nothing to train.

    It does not multiply its factors out.
    """
    warnings.filterwarnings("ignore", "The model does not have any trainable weights")
    layer = output_layers.FactoredOutput(
        len(counts), head, learning_rate=0.01, refactor_every=2**30
    )
    return output_layers.Classifier(keras.layers.Identity(), layer), None


def _compiled(model, loss, features, optimizer: str):
    model.compile(optimizer=_keras_optimizer(optimizer), loss=loss)
    model(features[:1])  # makes the weights
    model.optimizer.build(model.trainable_variables)


def _keras_optimizer(name: str):
    return keras.optimizers.get({"class_name": name, "config": {"learning_rate": 0.01}})


def on_batches(model, loss, drawn, optimizer: str) -> Calls:
    """Steps as `train_on_batch` makes them."""
    _compiled(model, loss, drawn[0], optimizer)
    return repeated(lambda: model.train_on_batch(*drawn))


def in_fit(model, loss, drawn, optimizer: str) -> Calls:
    """Steps as `fit` makes them: without what `train_on_batch` adds, 1 ms a step."""
    _compiled(model, loss, drawn[0], optimizer)
    batches = iter(tf.data.Dataset.from_tensors(drawn).repeat())
    model.make_train_function()

    def steps(count: int):
        for _ in range(count):
            logs = model.train_function(batches)
        float(logs["loss"])

    return steps


keras_dense = training(dense, on_batches)
keras_dense_in_fit = training(dense, in_fit)
chunked = training(ours("ChunkedOutput"), on_batches)
adaptive = training(ours("AdaptiveOutput", counts=np.asarray), on_batches)
two_level = training(ours("TwoLevelOutput"), on_batches)
sampled = training(
    ours(
        "SampledOutput",
        num_sampled=lambda counts: min(DRAWN, len(counts)),
        counts=np.asarray,
    ),
    on_batches,
)
factored = training(trains_itself, in_fit)


def refactor(batch: int, classes: int, labels: str, dim: int) -> Calls:
    """Makes a layer that trains itself multiply its factors out."""
    model, _ = trains_itself(counts_of(labels, classes), dim, "z_loss")
    model.output_layer.build((batch, dim))
    return repeated(tf.function(model.output_layer.refactor, autograph=False))


def tensorflow_sampled(batch: int, classes: int, labels: str, optimizer: str) -> Calls:
    """Makes steps of TensorFlow's sampled softmax, which draws by rank."""
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

    return _awaited(step)


def linear(counts, dim):
    """PyTorch's linear layer and cross-entropy."""
    import torch

    layer = torch.nn.Linear(dim, len(counts))
    return layer, lambda x, y: torch.nn.functional.cross_entropy(layer(x), y)


def fused(counts, dim, rows: int | None = None):
    """PyTorch's chunked loss, of its own or a given number of rows at a time."""
    import torch

    chunks = {} if rows is None else {"batch_chunk_size": rows, "chunking_method": None}
    options = torch.nn.LinearCrossEntropyOptions(**chunks)
    layer = torch.nn.Linear(dim, len(counts))
    loss = torch.nn.functional.linear_cross_entropy
    return layer, lambda x, y: loss(
        x, layer.weight, y, linear_bias=layer.bias, options=options
    )


def clustered(counts, dim):
    """PyTorch's adaptive softmax, with the cutoffs that ours chooses."""
    import torch

    cutoffs = output_layers.cheapest_cutoffs(counts, dim)
    layer = torch.nn.AdaptiveLogSoftmaxWithLoss(
        dim, len(counts), cutoffs, head_bias=True
    )
    return layer, lambda x, y: layer(x, y).loss


def in_torch(layer, loss, drawn, optimizer: str) -> Calls:
    """Steps of a layer in PyTorch."""
    import torch

    features, labels = map(torch.from_numpy, drawn)
    labels = labels.long()
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
    updates = kinds[optimizer](layer.parameters(), 0.01)

    def step():
        updates.zero_grad(set_to_none=True)
        loss(features, labels).backward()
        updates.step()

    return repeated(step)


torch_linear = training(linear, in_torch)
torch_fused = training(fused, in_torch)
torch_adaptive = training(clustered, in_torch)


def sample(batch: int, classes: int) -> Calls:
    """Makes draws of samples by `ChunkedOutput`."""
    layer = output_layers.ChunkedOutput(classes)
    features = tf.constant(data(batch, np.ones(classes))[0])
    layer.build(features.shape)
    seed = keras.random.SeedGenerator(0)
    return _awaited(tf.function(lambda: layer.sample(features, seed)))


def noise_argmax(batch: int, classes: int) -> Calls:
    """Makes draws of samples as the largest of logits and noise."""
    features = tf.constant(data(batch, np.ones(classes))[0])
    kernel = tf.Variable(tf.random.normal((DIM, classes)) * 0.01)

    def draw():
        logits = tf.matmul(features, kernel)
        u = tf.random.uniform(tf.shape(logits), 1e-30, 1.0)
        return tf.argmax(logits - tf.math.log(-tf.math.log(u)), axis=-1)

    return _awaited(tf.function(draw))


def _awaited(function) -> Calls:
    """Repeats a function of TensorFlow, and waits for each result."""
    return repeated(lambda: function().numpy())


def memory(maker: str, **options) -> Callable[[str], None]:
    """Makes a function that writes the peak of memory of a side to a file, in bytes.

    Of its making and two steps, above what the process holds before it: the code,
    which steps over few classes have loaded. Weights and inputs are part of it.
    (TensorFlow keeps what was freed, such as what the making of the weights needed, and
    uses it again; so what a step needs by itself cannot be seen.)

    Args:
        maker: `module:function`, of the side.
        **options: Of the side.
    """
    module, name = maker.split(":")
    make = getattr(importlib.import_module(module), name)
    small = {"batch": 8, "classes": 64}
    skewed = {"labels": "zipf"} if "labels" in options else {}
    make(**{**options, **small, **skewed})(2)

    def measured(out: str):
        before = held("VmRSS")
        make(**options)(2)
        Path(out).write_text(json.dumps({"bytes": max(held("VmHWM") - before, 0)}))

    return measured


def held(field: str) -> int:
    """Bytes of memory that this process holds (`VmRSS`), or held at most (`VmHWM`)."""
    status = Path("/proc/self/status").read_text()
    (kibibytes,) = re.findall(rf"^{field}:\s+(\d+) kB$", status, re.MULTILINE)
    return 1024 * int(kibibytes)
