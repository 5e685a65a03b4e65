"""Intervals over resampled images, and tests of two networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.stats import binomtest

from pipelines.metrics.outcomes import Outcomes

LEAST = 10  # images of a class that is a stratum of its own


def strata(labels: np.ndarray) -> np.ndarray:
    """The groups within which images are resampled: classes, numbered from 0.

    Classes of fewer than 10 images are one group: within a class of one, nothing could
    vary.
    """
    counts = np.bincount(labels)
    few = counts[labels] < LEAST
    return np.unique(np.where(few, -1, labels), return_inverse=True)[1]


def has_small_classes(labels: np.ndarray) -> bool:
    """Whether a class has too few images to be a stratum of its own.

    A resample then lacks some of the classes, so that a mean over classes has no
    interval: it would lie beside the estimate.
    """
    return bool(np.bincount(labels)[labels].min() < LEAST)


def bootstrap(
    facts: Outcomes,
    metrics: Callable[[Outcomes], dict[str, float]],
    resamples: int,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, list[float]]:
    """Percentile intervals of metrics over images, resampled within their `strata`.

    Not for the calibration error: resampled images repeat, which alone makes it
    larger, so that its interval can lie beside the estimate.

    The resamples depend on the seed and the labels alone: the same input gives the
    same bytes, and all runs on one test split share their resamples.

    Args:
        facts: From `outcomes`.
        metrics: From outcomes to named numbers.
        resamples: How many.
        level: The share of resamples within the interval.
        seed: Of the resampling.

    Returns:
        By the names of the metrics, the interval's low and high end.
    """
    generator = np.random.default_rng(seed)
    of = strata(facts["label"])
    order = np.argsort(of, kind="stable")
    counts = np.bincount(of)
    counts = np.repeat(counts, counts)  # of each image, how many its stratum has
    first = np.searchsorted(of[order], of[order])
    draws = []
    for _ in range(resamples):
        rows = order[first + generator.integers(counts)]
        draws.append(metrics({name: column[rows] for name, column in facts.items()}))
    tails = [(1 - level) / 2, (1 + level) / 2]
    return {
        name: np.quantile([draw[name] for draw in draws], tails).tolist()
        for name in draws[0]
    }


def mcnemar(right: np.ndarray, other: np.ndarray) -> dict[str, Any]:
    """McNemar's exact test of two classifiers on the same images.

    Args:
        right: Which images the one classifies rightly, booleans of shape `(n,)`.
        other: Which the other does.

    Returns:
        `only_a` and `only_b`, the images that one alone has right, and `p`, how
        probable a split at least as uneven is between classifiers that err equally.
    """
    only_a = int(np.sum(right & ~other))
    only_b = int(np.sum(~right & other))
    tried = only_a + only_b
    p = float(binomtest(only_a, tried).pvalue) if tried else 1.0
    return {"only_a": only_a, "only_b": only_b, "p": p}


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction: p-values that hold for all the tests together."""
    p = np.asarray(p_values, "float64")
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted.tolist()
