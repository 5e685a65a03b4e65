"""What became of each image: all that the metrics need, one number an image."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kerasoft.ops import TINY

Outcomes = Mapping[str, np.ndarray]


def outcomes(
    probabilities: np.ndarray,
    labels: np.ndarray,
    log_probabilities: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """What became of each image: all that the metrics need, one number an image.

    Args:
        probabilities: Of shape `(n, classes)`.
        labels: The true classes, integers of shape `(n,)`.
        log_probabilities: Their logarithms, where a head has them more precisely.

    Returns:
        Arrays of shape `(n,)`: `label`; `predicted`, the class; `rank`, how many
        classes come before the true one; `confidence`, the highest probability;
        `nll`, minus the logarithm of the true class's probability; and `brier`, the
        sum over classes of the squared difference from the one-hot truth.
    """
    p = np.asarray(probabilities, "float64")
    log_p = log_of(p) if log_probabilities is None else log_probabilities
    log_p = np.asarray(log_p, "float64")
    rows = np.arange(len(labels))
    truth = log_p[rows, labels]
    ties = np.arange(p.shape[1]) < np.asarray(labels)[:, None]
    before = (log_p > truth[:, None]) | ((log_p == truth[:, None]) & ties)
    return {
        "label": np.asarray(labels, "int64"),
        "predicted": log_p.argmax(axis=1),
        "rank": before.sum(axis=1),
        "confidence": p.max(axis=1),
        "nll": -truth,
        "brier": (p**2).sum(axis=1) - 2 * p[rows, labels] + 1,
    }


def right(facts: Outcomes) -> np.ndarray:
    """Which images are classified rightly, booleans of shape `(n,)`."""
    return facts["predicted"] == facts["label"]


def as_kept(facts: Outcomes) -> dict[str, np.ndarray]:
    """Outcomes in the precision in which they are kept on disk, float32."""
    return {
        name: x.astype("float32").astype("float64") if x.dtype.kind == "f" else x
        for name, x in facts.items()
    }


def log_of(probabilities: np.ndarray) -> np.ndarray:
    """Logarithms of probabilities, those of 0 as of the smallest float32."""
    return np.log(np.maximum(probabilities, TINY, dtype="float64"))
