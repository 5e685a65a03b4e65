"""How far a factored output layer drifts: `python -m benchmarks.drift`.

`kerasoft.output_layers.FactoredOutput` keeps `Q = transpose(W) @ W` and its like beside
the factors of its weights `W`, in float32, and now and then multiplies the factors out
and works them out again. Trains it for 100,000 steps on features of skewed classes, and
on the way compares what it keeps, and a step's loss and gradient, with those of `W` in
float64; at several periods of multiplying out, with one of its losses, and with all of
its losses at the usual period. Writes results/benchmarks/drift.*.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from benchmarks import plots, runner
from pipelines.plots import COLOURS

# TensorFlow after pipelines, which sets it up.
import tensorflow as tf  # isort: skip
import keras  # isort: skip

from kerasoft.output_layers import FactoredOutput

CLASSES, DIM, BATCH = 2000, 64, 32
USUAL = 1000
RATES = {"z_loss": 10.0, "spherical_softmax": 0.3, "taylor_softmax": 1.0}
NEVER = 2**30
CHECKS = 50  # spread over the steps, each before the factors are multiplied out
MEASURED = {
    "squares": "Q",
    "inverse": "U U⁻¹",
    "loss": "loss",
    "gradient": "gradient of the features",
}


def batches(draws: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Batches of noisy prototypes of classes, which occur by Zipf's law."""
    prototypes = np.random.default_rng(0).normal(size=(CLASSES, DIM))
    p = 1 / (np.arange(CLASSES) + 2.7)
    labels = draws.choice(CLASSES, (count, BATCH), p=p / p.sum())
    noise = draws.normal(size=(count, BATCH, DIM))
    return np.tanh(prototypes[labels] + noise).astype("float32"), labels.astype("int32")


def exact(name: str, layer: FactoredOutput, x: np.ndarray, y: np.ndarray) -> dict:
    """What the layer's weights give in float64."""
    factor, right, common = (
        np.asarray(w, "float64") for w in (layer.factor, layer.right, layer.common)
    )
    kernel = factor @ right + common
    with tf.GradientTape() as tape:
        features = tf.constant(x, tf.float64)
        tape.watch(features)
        h = tf.concat([features, tf.ones_like(features[:, :1])], axis=-1)
        logits = h @ kernel.T
        own = tf.gather(logits, y, batch_dims=1)
        loss = tf.reduce_mean(_loss(name, layer.head, logits, own))
    return {
        "squares": kernel.T @ kernel,
        "inverse": np.eye(DIM + 1),
        "loss": loss.numpy(),
        "gradient": np.asarray(tape.gradient(loss, features)),
    }


def _loss(name, head, logits, own):
    """The losses of rows in float64, by their formulas."""
    match name:
        case "z_loss":
            mean, variance = tf.nn.moments(logits, axes=[-1])
            z = (own - mean) / tf.sqrt(variance)
            return tf.nn.softplus(head.a * (head.b - z)) / head.a
        case "spherical_softmax":
            weights, of_label = (x * x + head.epsilon for x in (logits, own))
        case _:
            weights, of_label = (1 + x + x * x / 2 for x in (logits, own))
    return tf.math.log(tf.reduce_sum(weights, axis=-1) / of_label)


def drifted(name: str, every: int, steps: int) -> dict:
    """Trains a layer, and gives the relative errors of what it keeps, by step."""
    keras.utils.set_random_seed(0)
    layer = FactoredOutput(CLASSES, name, RATES[name], refactor_every=every)
    layer.build((None, DIM))
    draws = np.random.default_rng(1)

    def one(i, x, y):
        layer.evaluate_rows(x[i], y[i], training=True)
        return i + 1, x, y

    @functools.partial(tf.function, autograph=False)
    def train(x, y):
        steps = tf.shape(x)[0]
        tf.while_loop(lambda i, *_: i < steps, one, (0, x, y), parallel_iterations=1)

    @functools.partial(tf.function, autograph=False)
    def step(x, y):
        with tf.GradientTape() as tape:
            tape.watch(x)
            found, _ = layer.evaluate_rows(x, y, training=True)
        return found.total, tape.gradient(found.total, x)

    errors: dict[str, list] = {key: [] for key in ("step", *MEASURED)}
    part = steps // CHECKS
    for i in range(CHECKS):
        # The last step of a part is the one before the factors are multiplied out,
        # where the parts are whole periods; it is checked before it is taken.
        x, y = batches(draws, part)
        train(x[:-1], y[:-1])
        want = exact(name, layer, x[-1], y[-1])
        have = {
            "squares": layer.squares.numpy(),
            "inverse": layer.right.numpy() @ layer.inverse.numpy(),
        }
        have["loss"], have["gradient"] = step(tf.constant(x[-1]), tf.constant(y[-1]))
        errors["step"].append((i + 1) * part)
        for key in MEASURED:
            off = np.linalg.norm(np.asarray(have[key]) - want[key])
            errors[key].append(float(off / np.linalg.norm(want[key])))
    condition = float(np.linalg.cond(layer.right.numpy()))
    return {"head": name, "every": every, "condition": condition, "errors": errors}


def words(every: int) -> str:
    return "never" if every == NEVER else f"{every:,}"


def page(result: dict) -> list[str]:
    rows = [
        {"head": run["head"], "every": words(run["every"])}
        | {key: f"{max(run['errors'][key]):.1e}" for key in MEASURED}
        | {"condition": f"{run['condition']:.1f}"}
        for run in result["runs"]
    ]
    names = ("loss", "multiplied out every", *MEASURED.values())
    return [
        "# How far a factored output layer drifts",
        f"{result['steps']:,} steps of {BATCH} rows, {DIM} features, {CLASSES:,} "
        "classes; the largest relative error, by the norm, of what is kept and of a "
        f"step, of {CHECKS} checks beside float64. Where they are multiplied out "
        "never, the factors still are when `U` and its inverse part.",
        "![Relative error of Q by step](drift.png)",
        runner.table(rows, names=[*names, "condition of U at the end"]),
    ]


def plot(result: dict) -> plots.Figure:
    figure, axes = plots.figure(7, 4.5)
    for colour, run in zip(COLOURS, result["runs"], strict=False):
        told = f"{run['head']}, {words(run['every'])}"
        errors = run["errors"]
        axes.plot(errors["step"], errors["squares"], label=told, color=colour)
    axes.set(yscale="log", xlabel="steps", ylabel="relative error of Q")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", title="multiplied out every")
    return figure


def measured(
    steps: int = 100_000, every: Sequence[int] = (100, USUAL, 10_000, NEVER)
) -> dict:
    """Measures how far a factored output layer drifts.

    Args:
        steps: Of each training.
        every: Periods of multiplying out, with the Z-loss.
    """
    plans = [("z_loss", period) for period in every]
    plans += [(name, USUAL) for name in RATES if name != "z_loss"]
    runs = []
    for name, period in plans:
        runs.append(drifted(name, period, steps))
        print(f"{name}, every {words(period)}: done", flush=True)
    return {"runs": runs}


main = runner.command("drift", measured, page, plot)


if __name__ == "__main__":
    main()
