"""Whether probabilities are what they say, and temperature scaling."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy.fft import dct, idct
from scipy.optimize import brentq, minimize_scalar
from scipy.special import log_softmax

from pipelines.metrics.classwise import BINS, bins_of
from pipelines.metrics.outcomes import Outcomes, right

GRID = 1024  # points between 0 and 1 at which confidences are smoothed
TEMPERATURES = (1e-2, 1e2)


def reliability(facts: Outcomes, bins: int = BINS) -> dict[str, list]:
    """Groups images by confidence, in bins of equal width `(low, high]`.

    Returns:
        Columns, plain enough for JSON: of each bin its bounds and the `count` of its
        images, and their mean `confidence` and `accuracy` (`None` in an empty bin).
    """
    confidence = facts["confidence"]
    edges = np.arange(bins + 1) / bins
    index = bins_of(confidence, bins)
    count = np.bincount(index, minlength=bins)

    def means(values):
        sums = np.bincount(index, weights=values, minlength=bins)
        return [float(s / n) if n else None for s, n in zip(sums, count, strict=True)]

    return {
        "low": edges[:-1].tolist(),
        "high": edges[1:].tolist(),
        "count": count.tolist(),
        "confidence": means(confidence),
        "accuracy": means(right(facts)),
    }


def calibration_error(table: Mapping[str, list]) -> float:
    """Expected calibration error of reliability bins (arXiv 1706.04599, equation 3)."""
    columns = (table["count"], table["confidence"], table["accuracy"])
    gaps = [n * abs(c - a) for n, c, a in zip(*columns, strict=True) if n]
    return float(sum(gaps) / sum(table["count"]))


def equal_mass_error(facts: Outcomes, bins: int = BINS) -> float:
    """Expected calibration error over bins of the same number of images."""
    order = np.argsort(facts["confidence"], kind="stable")
    gaps = (right(facts) - facts["confidence"])[order]
    return float(
        sum(abs(part.sum()) for part in np.array_split(gaps, bins)) / len(gaps)
    )


def smooth_error(facts: Outcomes) -> float:
    """Smooth calibration error (arXiv 2309.12236), which has no bins.

    The gaps between rightness and confidence are smoothed over the confidences by a
    Gaussian kernel, reflected at 0 and 1, whose width is equal to the error that it
    gives.
    """
    points = np.minimum(facts["confidence"] * GRID, GRID - 1).astype(int)
    gaps = (right(facts) - facts["confidence"]) / len(points)
    waves = dct(np.bincount(points, weights=gaps, minlength=GRID), norm="ortho")
    frequencies = np.pi * np.arange(GRID)

    def error(width):
        smoothed = idct(waves * np.exp(-((frequencies * width) ** 2) / 2), norm="ortho")
        return np.abs(smoothed).sum()

    if error(1 / GRID) <= 1 / GRID:
        return float(error(1 / GRID))
    if error(1) >= 1:  # all are wrong and certain
        return 1.0
    return float(brentq(lambda width: error(width) - width, 1 / GRID, 1))


def if_calibrated(
    facts: Outcomes, error: Callable[[Outcomes], Any], draws: int = 200, seed: int = 0
) -> Any:
    """What a calibration error stays below in 95 % of cases if there is none.

    There may be several, as an array.

    The images keep their confidences, and are right with these probabilities.
    """
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        drawn = generator.random(len(facts["confidence"])) < facts["confidence"]
        predicted = facts["label"] - ~drawn  # another class where it is wrong
        found.append(error({**facts, "predicted": predicted}))
    return np.quantile(found, 0.95, axis=0)


def tempered(log_probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """The log-probabilities of softmax at another temperature."""
    return log_softmax(np.asarray(log_probabilities, "float64") / temperature, axis=1)


def fit_temperature(log_probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The temperature at which the labels are likeliest (arXiv 1706.04599).

    It is sought between 0.01 and 100. The likelihood has one maximum there, because
    it is concave in the inverse of the temperature.
    """
    rows = np.arange(len(labels))

    def nll(log_temperature):
        scaled = tempered(log_probabilities, np.exp(log_temperature))
        return -scaled[rows, labels].mean()

    best = minimize_scalar(
        nll, bounds=np.log(TEMPERATURES), method="bounded", options={"xatol": 1e-6}
    )
    return float(np.exp(best.x))  # pyright: ignore[reportAttributeAccessIssue]
