"""What confidence is good for: leaving images out, and sets of classes."""

from __future__ import annotations

import math
from typing import NamedTuple

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


class Threshold(NamedTuple):
    """Which classes belong to a set: all of at least a certain log-probability.

    Attributes:
        temperature: What the logits are divided by first.
        least: The log-probability.
    """

    temperature: float
    least: float


def conformal_threshold(
    log_probabilities: np.ndarray, labels: np.ndarray, coverage: float = COVERAGE
) -> Threshold:
    """The threshold of sets that hold the true class with a given probability.

    (arXiv 1609.00451.) One half of the images gives the temperature of the
    probabilities, and the other the threshold, so that the guarantee does not depend
    on the temperature.

    Args:
        log_probabilities: Of images that were not trained on.
        labels: Their labels.
        coverage: How probable it is to be that a set holds the true class.
    """
    temperature = fit_temperature(log_probabilities[::2], labels[::2])
    others, their_labels = log_probabilities[1::2], labels[1::2]
    rows = np.arange(len(their_labels))
    scores = np.sort(-tempered(others, temperature)[rows, their_labels])
    rank = math.ceil((len(scores) + 1) * coverage)
    least = -scores[rank - 1] if rank <= len(scores) else -math.inf
    return Threshold(temperature, float(least))


def conformal_sets(
    log_probabilities: np.ndarray, labels: np.ndarray, threshold: Threshold
) -> dict[str, np.ndarray]:
    """The sets of classes of images.

    Args:
        log_probabilities: Of the images.
        labels: Their labels.
        threshold: From `conformal_threshold`.

    Returns:
        Arrays of shape `(n,)`: `set_size`, and `in_set`, whether it holds the label.
    """
    inside = tempered(log_probabilities, threshold.temperature) >= threshold.least
    return {
        "set_size": inside.sum(axis=1),
        "in_set": inside[np.arange(len(labels)), labels].astype("int64"),
    }
