"""Whether the probability of every class is what it says, not the highest one alone."""

from __future__ import annotations

import numpy as np

BINS = 15


def bins_of(probabilities: np.ndarray, bins: int) -> np.ndarray:
    """The bin of each probability, of equal width `(low, high]`."""
    edges = np.arange(bins + 1) / bins
    return np.clip(np.searchsorted(edges, probabilities) - 1, 0, bins - 1)


def classwise_gaps(
    probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS
) -> np.ndarray:
    """Each image's part in the class-wise calibration error, which is their mean.

    That error is the mean over classes of the expected calibration error of the
    class's probability, whether or not it is the highest one (arXiv 1910.12656,
    section 2):

    ```python
    sum(abs(sum(p[i, j] - (y[i] == j) for i in bin)) for bin in bins_of(j)) / n
    ```
    """
    classes = probabilities.shape[1]
    cells = bins_of(probabilities, bins) + bins * np.arange(classes)
    gaps = probabilities.astype("float64")
    gaps[np.arange(len(labels)), labels] -= 1
    sums = np.bincount(cells.ravel(), gaps.ravel(), minlength=bins * classes)
    return (np.sign(sums)[cells] * gaps).sum(axis=1) / classes


def classwise_if_calibrated(
    probabilities: np.ndarray, draws: int = 200, seed: int = 0, bins: int = BINS
) -> float:
    """What the class-wise error stays below in 95 % of cases if there is none.

    The images keep their probabilities, from which their labels are drawn.
    """
    generator = np.random.default_rng(seed)
    images, classes = probabilities.shape
    rows = np.arange(images)
    cells = bins_of(probabilities, bins) + bins * np.arange(classes)
    size = bins * classes
    expected = np.bincount(cells.ravel(), probabilities.ravel(), minlength=size)
    ends = np.cumsum(probabilities, axis=1, dtype="float64")
    ends = (ends / ends[:, -1:] + rows[:, None]).ravel()  # of image i, from i to i + 1
    found = []
    for _ in range(draws):
        labels = np.searchsorted(ends, rows + generator.random(images)) - classes * rows
        counts = np.bincount(cells[rows, labels], minlength=size)
        found.append(np.abs(expected - counts).sum() / (images * classes))
    return float(np.quantile(found, 0.95))
