"""The tables of docs/temperature.md.

    python experiments/temperature.py

It measures the estimators of gradients through a sample, and writes them to
results/temperature/estimators.json. document_tables.py writes the tables, from these
and from results/temperature/comparison.json, which `python -m pipelines.run
experiments/temperature.yaml` wrote.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from pipelines import document, markdown
from pipelines.comparison import Judgement, Table
from pipelines.plots import name_of_temperature, temperatures

# TensorFlow and Keras after pipelines, which sets them up.
import tensorflow as tf  # isort: skip
from kerasoft import ops  # isort: skip

RESULTS = Path(__file__).parents[1] / "results" / "temperature"
METRICS = {
    "accuracy": ("accuracy, %", ".2f", 100),
    "nll": ("NLL", ".3f", 1),
    "ece": ("ECE", ".3f", 1),
}
CLASSES, DRAWS = 10, 50_000
TEMPERATURES = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0)


def table(part: Table, loss: str) -> str:
    """Accuracy, NLL and ECE by temperature, without noise and with 16 draws of it.

    Args:
        part: The table that `pipelines.evaluate` wrote.
        loss: `matched` or `as_logits`.
    """
    judged: dict[str, dict[int, list[Judgement]]] = {}
    of_loss = [run for run in part.runs.values() if run.config.loss == loss]
    (head,) = {run.config.head for run in of_loss}
    for row in part.rows:
        run = part.runs[row.run]
        if (run.config.loss, run.config.head) == (loss, head):
            by_samples = judged.setdefault(name_of_temperature(run), {})
            by_samples.setdefault(row.samples, []).append(row.as_is)
    lines = []
    for name in temperatures(part):
        line = {"temperature": name}
        for samples, rows in sorted(judged.get(name, {}).items()):
            for metric, (heading, words, factor) in METRICS.items():
                values = [row.metrics[metric] for row in rows]
                key = heading + f", {samples} samples" * bool(samples)
                line[key] = document.mean(values, words, factor)
        if len(line) > 1:
            lines.append(line)
    return markdown.table(lines)


def estimators() -> list[dict]:
    """Bias and noise of the gradient through a sample, by temperature.

    For E[f(z)], with z a one-hot sample of 10 classes and f the squared distance to a
    fixed point, the gradient with respect to the logits has a closed form. Two
    estimators are compared with it over many draws: their bias and their standard
    deviation, relative to the norm of the true gradient. The squared distance of the
    mean from the true gradient is corrected for the variance of a mean of finitely many
    draws.
    """
    draws = np.random.default_rng(0)
    logits = draws.normal(size=CLASSES).astype("float32")
    target = draws.dirichlet(np.ones(CLASSES)).astype("float32")
    p = ops.softmax(logits).numpy()
    values = np.sum((np.eye(CLASSES) - target) ** 2, axis=1)
    exact = p * (values - p @ values)
    noise = ops.gumbel_noise((DRAWS, CLASSES), seed=0)
    rows = []
    for temperature in TEMPERATURES:
        row: dict = {"temperature": temperature}
        for name, hard in (("relaxed", False), ("straight-through", True)):
            x = tf.constant(np.repeat(logits[None], DRAWS, axis=0))
            with tf.GradientTape() as tape:
                tape.watch(x)
                z = ops.gumbel_softmax(x, temperature, noise, hard=hard)
                distance = tf.reduce_sum((z - target) ** 2)
            found = tf.convert_to_tensor(tape.gradient(distance, x)).numpy()
            mean, spread = found.mean(axis=0), found.var(axis=0).sum()
            away = np.sum((mean - exact) ** 2) - spread / DRAWS
            length = np.linalg.norm(exact)
            row[name] = {
                "bias": float(np.sqrt(max(away, 0)) / length),
                "noise": float(np.sqrt(spread) / length),
            }
        rows.append(row)
    return rows


def table_of_estimators(rows: list[dict]) -> str:
    """Bias and noise of both estimators by temperature."""
    return markdown.table(
        {
            "temperature": f"{row['temperature']:g}",
            **{
                f"{part}, {name}": f"{row[name][part]:.2f}"
                for name in ("relaxed", "straight-through")
                for part in ("bias", "noise")
            },
        }
        for row in rows
    )


if __name__ == "__main__":
    text = json.dumps(estimators(), indent=1) + "\n"
    (RESULTS / "estimators.json").write_text(text, "utf-8")
