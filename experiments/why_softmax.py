"""The numbers of docs/why-softmax-scored-8-percent.md.

    python experiments/why_softmax.py

It writes results/why-softmax/: `figures.json` with every number of the text, and a plot
of the gradients over training. The gradients are measured on CIFAR-100, or on shapes100
if CIFAR-100 is not available. Only this part takes long.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jsonargparse
import matplotlib.figure
import numpy as np

from pipelines import batching, datasets, draw_png, training
from pipelines.commands import command
from pipelines.config import Config
from pipelines.options import parse
from pipelines.provenance import provenance
from pipelines.typed_json import write_text

# TensorFlow and Keras after pipelines, which sets them up.
import tensorflow as tf  # isort: skip
import keras  # isort: skip
from kerasoft import heads, losses, ops  # isort: skip

LOGITS = (13.0, 8.0, 2.0)
TEMPERATURES = (0.5, 1.0, 3.0)
DRAWS = 10_000
EVERY = 27  # steps between two measurements: 13 an epoch of CIFAR-100
PROBED = 500
LOSSES = {"matched": losses.matched_loss, "as_logits": losses.as_logits_loss}
TRAINED: dict[str, dict[str, Any]] = {
    "softmax, as_logits": {"head": "softmax", "loss": "as_logits"},
    "softmax, matched": {"head": "softmax"},
    "log_softmax, as_logits": {"head": "log_softmax", "loss": "as_logits"},
    "sin_softmax, as_logits": {"head": "sin_softmax", "loss": "as_logits"},
    "spherical_softmax, as_logits": {"head": "spherical_softmax", "loss": "as_logits"},
}


def gradient(loss: Callable, logits: np.ndarray, labels: np.ndarray) -> tuple:
    """The loss of each row, and its gradient with respect to the logits."""
    x = tf.constant(logits, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = loss(labels, x)
    return value.numpy(), tf.convert_to_tensor(tape.gradient(value, x)).numpy()


def loss_of(head: keras.layers.Layer, make: Callable) -> Callable:
    """A function of labels and logits that returns the loss of each row."""
    loss = make(head)
    return lambda labels, x: loss.call(tf.constant(labels), head(x))


def floors() -> list[dict]:
    """The lower bound of the loss if the output of a softmax is used as logits."""
    rows = []
    loss = losses.as_logits_loss(heads.get("softmax"))
    for classes in (2, 10, 20, 100, 1000):
        perfect = np.eye(classes, dtype="float32")[:1]
        uniform = np.full((1, classes), 1 / classes, "float32")
        rows.append(
            {
                "classes": classes,
                "chance": float(loss(np.zeros(1), uniform)),
                "floor": float(loss(np.zeros(1), perfect)),
                "highest probability left": float(ops.softmax(perfect)[0, 0]),
            }
        )
    return rows


def example() -> dict:
    """The logits [13, 8, 2]: their log-sum-exp, and the gradients of both losses."""
    x = np.array([LOGITS])
    rows = []
    for label in range(len(LOGITS)):
        row: dict = {"label": label}
        for name in ("softmax", "log_softmax"):
            for kind, make in LOSSES.items():
                value, slope = gradient(
                    loss_of(heads.get(name), make), x, np.array([label])
                )
                row[f"{name}, {kind}"] = {
                    "loss": float(value[0]),
                    "gradient": slope[0].tolist(),
                }
        rows.append(row)
    log_sum_exp = x[0, 0] - float(ops.log_softmax(x)[0, 0])
    return {
        "logits": LOGITS,
        "log_sum_exp": log_sum_exp,
        "softmax": np.asarray(ops.softmax(x))[0].tolist(),
        "log_softmax": np.asarray(ops.log_softmax(x))[0].tolist(),
        "labels": rows,
    }


def noise(classes: int = 100) -> list[dict]:
    """The effect of Gumbel noise on the gradient at the logits, by temperature.

    The logit of the true class is `margin`, the others are 0. `noise_free` is the norm
    of the gradient without noise, `mean` the norm of the mean of the noisy gradients,
    and `spread` the root mean squared distance of these gradients from their mean.
    """
    rows = []
    for margin in (0.0, 5.0):
        logits = np.zeros((DRAWS, classes), "float32")
        logits[:, 0] = margin
        labels = np.zeros(DRAWS, "int32")
        for temperature in TEMPERATURES:
            for name in ("gumbel_softmax", "log_gumbel_softmax"):
                row: dict = {"head": name, "margin": margin, "temperature": temperature}
                for kind, make in LOSSES.items():
                    quiet = heads.get(name, temperature=temperature, noise="never")
                    noisy = heads.get(
                        name, temperature=temperature, noise="always", seed=0
                    )
                    _, still = gradient(loss_of(quiet, make), logits[:1], labels[:1])
                    _, drawn = gradient(loss_of(noisy, make), logits, labels)
                    mean = drawn.mean(axis=0)
                    spread = np.sqrt(((drawn - mean) ** 2).sum(axis=1).mean())
                    row[kind] = {
                        "noise_free": float(np.linalg.norm(still)),
                        "mean": float(np.linalg.norm(mean)),
                        "spread": float(spread),
                    }
                rows.append(row)
    return rows


class GradientNorm(keras.callbacks.Callback):
    """Measures the gradient at the logits of fixed images during training."""

    def __init__(self, loss: Callable, images: np.ndarray, labels: np.ndarray):
        super().__init__()
        self.loss, self.images, self.labels = loss, images, labels
        self.steps: list[int] = []
        self.norms: list[float] = []
        self.taken = 0

    def on_train_begin(self, logs=None):
        self.logits = keras.Model(self.model.input, self.model.layers[-1].input)
        self.measure()

    def on_train_batch_end(self, batch, logs=None):
        self.taken += 1
        if self.taken % EVERY == 0:
            self.measure()

    def measure(self):
        x = self.logits(self.images, training=False).numpy()
        _, slope = gradient(self.loss, x, self.labels)
        self.steps.append(self.taken)
        self.norms.append(float(np.linalg.norm(slope, axis=1).mean()))


def over_training(epochs: int) -> dict:
    """Trains each of `TRAINED` for some epochs, and measures its gradient."""
    curves = {}
    common = {"dataset": datasets.resolve(Config().dataset), "epochs": epochs}
    dataset = training.load_data(Config(**common))
    for title, options in TRAINED.items():
        config = Config(**options, **common)
        keras.utils.set_random_seed(config.seed)
        tf.config.experimental.enable_op_determinism()
        model = training.build(config, dataset, training.dtype_policy(config.precision))
        head = heads.get(config.head)
        probe = GradientNorm(
            loss_of(head, LOSSES[str(config.loss)]),
            dataset.validation.images[:PROBED],
            dataset.validation.labels[:PROBED],
        )
        history = model.fit(
            batching.training_batches(dataset.train, len(dataset.class_names), config),
            validation_data=batching.batches(
                dataset.validation, len(dataset.class_names)
            ),
            steps_per_epoch=batching.steps_per_epoch(dataset.train, config),
            epochs=epochs,
            shuffle=False,
            verbose=2,
            callbacks=[probe],
        )
        curves[title] = {
            "dataset": dataset.name,
            "config": dataclasses.asdict(config),
            "steps": probe.steps,
            "gradient_norm": probe.norms,
            "history": history.history,
        }
    return curves


def plot(curves: dict) -> matplotlib.figure.Figure:
    figure = matplotlib.figure.Figure((8, 4.5), layout="constrained")
    axes = figure.subplots()
    for title, curve in curves.items():
        axes.plot(curve["steps"], curve["gradient_norm"], label=title)
    name = next(iter(curves.values()))["dataset"]
    axes.set(
        xlabel="training step",
        ylabel="gradient norm at the logits, mean over images",
        yscale="log",
        title=f"{name}, {PROBED} validation images",
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return figure


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = jsonargparse.ArgumentParser(
        prog="python experiments/why_softmax.py", exit_on_error=False
    )
    parser.add_argument(
        "--epochs", type=int, default=2, help="Epochs of each training."
    )
    parser.add_argument("--out", type=Path, default="results/why-softmax")
    given = parse(parser, argv)
    source = provenance()
    measured = {
        "made_by": f"python experiments/why_softmax.py --epochs {given.epochs}",
        **{key: source[key] for key in ("commit", "device", "versions")},
        "floors": floors(),
        "example": example(),
        "noise": noise(),
        "over_training": over_training(given.epochs),
    }
    given.out.mkdir(parents=True, exist_ok=True)
    draw_png.save(plot(measured["over_training"]), given.out / "gradient-norm.png")
    figures = given.out / "figures.json"
    write_text(figures, json.dumps(measured, indent=1) + "\n")
    print(f"next: read {figures}")
    return 0


if __name__ == "__main__":
    main()
