"""What confidence is good for: leaving images out, and sets of classes."""

from __future__ import annotations

import math

import numpy as np

from pipelines.metrics.calibration import fit_temperature, tempered
from pipelines.metrics.outcomes import Outcomes, right

COVERAGE = 0.9  # of the sets
RISK = 0.05


def risks(facts: Outcomes) -> np.ndarray:
    """The share of errors among the most confident 1, 2, ..., n images."""
    order = np.argsort(-facts["confidence"], kind="stable")
    return np.cumsum(~right(facts)[order]) / np.arange(1, len(order) + 1)


def area_under_risk(facts: Outcomes) -> float:
    """The mean of the risk over all coverages (AURC, arXiv 1805.08206)."""
    return float(risks(facts).mean())


def excess_area(facts: Outcomes) -> float:
    """AURC less that of confidences which put every error last."""
    answered = np.arange(1, len(facts["label"]) + 1)
    errors = np.maximum(answered - np.sum(right(facts)), 0)
    return area_under_risk(facts) - float((errors / answered).mean())


def coverage_at_risk(facts: Outcomes, risk: float = RISK) -> float:
    """The largest share of images that can be answered with so few errors."""
    (within,) = np.nonzero(risks(facts) <= risk)
    return float((within[-1] + 1) / len(facts["label"])) if len(within) else 0.0


def conformal_sets(
    held_out: np.ndarray,
    held_out_labels: np.ndarray,
    log_probabilities: np.ndarray,
    labels: np.ndarray,
    coverage: float = COVERAGE,
) -> dict[str, np.ndarray]:
    """Sets of classes that hold the true one with a given probability.

    A set has all classes of at least a certain probability (arXiv 1609.00451). One half
    of the held-out images gives the temperature of the probabilities, and the other
    this threshold, so that the guarantee does not depend on the temperature.

    Args:
        held_out: Log-probabilities of images that were not trained on.
        held_out_labels: Their labels.
        log_probabilities: Log-probabilities of the images to judge.
        labels: Their labels.
        coverage: How probable it is to be that a set holds the true class.

    Returns:
        Arrays of shape `(n,)`: `set_size`, and `in_set`, whether it holds the label.
    """
    temperature = fit_temperature(held_out[::2], held_out_labels[::2])
    others, their_labels = held_out[1::2], held_out_labels[1::2]
    rows = np.arange(len(their_labels))
    scores = np.sort(-tempered(others, temperature)[rows, their_labels])
    rank = math.ceil((len(scores) + 1) * coverage)
    least = -scores[rank - 1] if rank <= len(scores) else -math.inf
    inside = tempered(log_probabilities, temperature) >= least
    return {
        "set_size": inside.sum(axis=1),
        "in_set": inside[np.arange(len(labels)), labels].astype("int64"),
    }
