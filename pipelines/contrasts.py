"""Compares two configurations, over their seeds and the test images together.

McNemar's test compares two trained networks. Whether two configurations differ also
depends on their seeds: of two runs of one configuration, it often finds one better.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.stats import nct, t

from pipelines.metrics import strata

LEVEL = 0.05  # of the tests
POWER = 0.8  # at which the smallest visible difference is seen


class Estimate(NamedTuple):
    """The difference between two configurations' accuracies, with its uncertainty.

    Attributes:
        difference: The mean accuracy of the first less that of the second.
        error: Its standard error, over seeds and images.
        freedom: The degrees of freedom of that error.
    """

    difference: float
    error: float
    freedom: float

    def interval(self, level: float = 1 - LEVEL) -> list[float]:
        """Bounds that enclose the true difference with a probability of `level`."""
        reach = t.ppf((1 + level) / 2, self.freedom) * self.error
        return [self.difference - reach, self.difference + reach]

    def p(self) -> float:
        """How probable a difference at least as large is if there is none (t-test)."""
        return float(2 * t.sf(abs(self.difference) / self.error, self.freedom))

    def p_equivalent(self, margin: float) -> float:
        """How probable a difference as small is if it were the margin or more (TOST).

        TOST are two one-sided tests, Schuirmann (1987).
        """
        inside = (margin - abs(self.difference)) / self.error
        return float(t.sf(inside, self.freedom))

    def visible(self) -> float:
        """The smallest true difference that the t-test finds in 80 % of cases."""
        critical = t.ppf(1 - LEVEL / 2, self.freedom)

        def excess(shift):
            # That the wrong one of the two seems better is too rare to count.
            return nct.sf(critical, self.freedom, shift) - POWER

        return float(brentq(excess, 0, 2 * critical + 2) * self.error)


def estimate(a: np.ndarray, b: np.ndarray, labels: np.ndarray) -> Estimate | None:
    """Estimates how two configurations differ in accuracy.

    Formula of the variance, with the mean over images `A[s]` of each seed `s` of the
    first, the mean over seeds `a[i]` of each image `i`, and `B` and `b` likewise:

    ```python
    var(A) / seeds_a + var(B) / seeds_b  # what another choice of seeds would change
    + var(a - b) / images                # another choice of images, within the classes
    - (var_within(a) / seeds_a + var_within(b) / seeds_b) / images  # counted in both
    ```

    where `var_within` is the mean over images of the variance between seeds. It has the
    degrees of freedom of Welch and Satterthwaite, for the images are many.

    Args:
        a: Which of the same images each seed of the first has right, booleans of shape
            `(seeds, images)`.
        b: The same of the second.
        labels: The images' classes.

    Returns:
        The estimate, or `None` if one of them has a single seed.
    """
    if min(len(a), len(b)) < 2:
        return None
    by_seeds = [x.mean(axis=1).var(ddof=1) / len(x) for x in (a, b)]
    twice = sum(x.var(axis=0, ddof=1).mean() / x.size for x in (a, b))
    by_images = variance_of_mean(a.mean(axis=0) - b.mean(axis=0), labels) - twice
    variance = sum(by_seeds) + max(by_images, 0)
    # Of seeds that all agree the variance is 0: less than one image is not seen.
    variance = max(variance, 1 / a.shape[1] ** 2)
    spread = sum(v**2 / (len(x) - 1) for v, x in zip(by_seeds, (a, b), strict=True))
    return Estimate(
        difference=float(a.mean() - b.mean()),
        error=math.sqrt(variance),
        freedom=float(min(variance**2 / spread, 1e6)) if spread else 1e6,
    )


def estimate_over_seeds(a: Sequence[float], b: Sequence[float]) -> Estimate:
    """Estimates how two configurations differ in a number of which each seed has one.

    As `estimate`, but the images stay what they are: it is Welch's t-test.

    Args:
        a: The first's numbers, of two seeds or more.
        b: The second's.

    Raises:
        ValueError: If neither has numbers that differ.
    """
    variances = [statistics.variance(x) / len(x) for x in (a, b)]
    spread = sum(v**2 / (len(x) - 1) for v, x in zip(variances, (a, b), strict=True))
    if not spread:
        raise ValueError("The seeds of each have one number; nothing can be estimated.")
    return Estimate(
        difference=statistics.fmean(a) - statistics.fmean(b),
        error=math.sqrt(sum(variances)),
        freedom=sum(variances) ** 2 / spread,
    )


def variance_of_mean(values: np.ndarray, labels: np.ndarray) -> float:
    """The variance of a mean over images that are drawn within their strata."""
    of = strata(labels)
    counts = np.bincount(of)
    means = np.bincount(of, weights=values) / counts
    squares = np.bincount(of, weights=(values - means[of]) ** 2)
    several = counts > 1
    counts, squares = counts[several], squares[several]
    return float((counts * squares / (counts - 1)).sum() / len(labels) ** 2)


def verdict(found: Estimate, p: float, margin: float) -> str:
    """What a difference shows.

    Args:
        found: The difference.
        p: Of the test that there is none, corrected for the other contrasts.
        margin: What is too small to matter.

    Returns:
        `equivalent` if it is surely below the margin; `different` if it is surely not 0
        and as large as what could be seen; `cannot tell` otherwise.
    """
    if found.p_equivalent(margin) < LEVEL:
        return "equivalent"
    if p < LEVEL and abs(found.difference) >= found.visible():
        return "different"
    return "cannot tell"
