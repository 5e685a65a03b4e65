"""Counts of classes, and the cutoffs of clusters of classes by frequency."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

# The cost of the exponential, the sum and the gradient of one logit, and the cost of
# one more cluster, both in units of one multiplication and addition.
LOGIT = 40
CLUSTER = 2e6


def checked_counts(counts: Any, num_classes: int) -> np.ndarray:
    """Checks the counts of classes, and returns them as an array.

    Raises:
        ValueError: If they are not `num_classes` finite numbers of at least 0, or if
            all are 0.
    """
    array = np.asarray(counts, "float64")
    if array.shape != (num_classes,):
        raise ValueError(
            f"`counts` must have one number for each class, {num_classes}. "
            f"Received: counts of shape {array.shape}"
        )
    bad = array[~(np.isfinite(array) & (array >= 0))]
    if bad.size or not array.any():
        raise ValueError(
            "`counts` must be finite numbers of at least 0, one of them positive. "
            f"Received: {bad[0] if bad.size else 'only zeros'}"
        )
    return array


def width_of(cluster: int, dim: int, div_value: float) -> int:
    """The dimension of the features of a cluster, counted from 0."""
    return max(1, int(dim // div_value ** (cluster + 1)))


def cheapest_cutoffs(
    counts: Any,
    dim: int,
    div_value: float = 4.0,
    batch_size: int = 1024,
    head_share: float = 0.7,
    max_clusters: int = 3,
) -> list[int]:
    """The cutoffs with the lowest estimated cost of a step of `AdaptiveOutput`.

    Formula of the cost, with `k_0` classes in the head and `k_i` in cluster `i`, which
    has the share `p_i` of the labels and features of dimension `d_i`:

    ```python
    cost = B * (k_0 + clusters) * (d + e) + sum(
        max(B * p_i, 32) * k_i * (d_i + e) + c for i in clusters
    )
    ```

    `e = 40` is the cost of a logit besides its dot product, and `c = 2e6` that of a
    cluster, in multiplications of a processor's core. Dynamic programming chooses the
    cutoffs among 60 numbers of classes with evenly spaced logarithms.

    Args:
        counts: How often each class occurs, of shape `(num_classes,)`, in any order.
        dim: Integer, the dimension of the features.
        div_value: Float above 1, the factor by which the dimension decreases from one
            cluster to the next.
        batch_size: Integer, the number of rows in a step.
        head_share: Float in [0, 1), the minimum share of labels in the head. With a
            lower share a step is cheaper, but frequent classes lose width, and the loss
            of accuracy outweighs the time saved.
        max_clusters: Integer, the maximum number of clusters after the head.

    Returns:
        List of integers, without the number of classes itself.

    Reference:
        [Grave et al., 2017](https://arxiv.org/abs/1609.04309), section 4.

    Example:

    >>> counts = 1e6 / np.arange(1, 100_001)
    >>> cutoffs = output_layers.cheapest_cutoffs(counts, dim=256)
    >>> len(cutoffs)
    3
    """
    shares = np.sort(np.asarray(counts, "float64"))[::-1]
    classes = len(shares)
    before = np.concatenate([[0.0], np.cumsum(shares / shares.sum())])
    grid = np.unique(np.geomspace(1, classes, 60).round().astype(int)).tolist()

    def of_head(count: int) -> float:
        return batch_size * count * (dim + LOGIT)

    def of_cluster(i: int, start: int, stop: int) -> float:
        width = width_of(i, dim, div_value)
        rows = max(batch_size * (before[stop] - before[start]), 32)
        return rows * (stop - start) * (width + LOGIT) + CLUSTER + of_head(1)

    heads = [k for k in grid[:-1] if before[k] >= head_share] or grid[-2:-1]
    # Maps the end of the last cluster to the lowest cost so far, and its cutoffs.
    ends = {k: (of_head(k), [k]) for k in heads}
    best: tuple[float, list[int]] = (np.inf, [])
    for i in range(max_clusters):
        found: dict[int, tuple[float, list[int]]] = {}
        for start, (cost, cutoffs) in ends.items():
            for stop in grid:
                if stop > start:
                    total = cost + of_cluster(i, start, stop)
                    entry = total, [*cutoffs, stop]
                    found[stop] = min(found.get(stop, (np.inf, [])), entry)
        best = min(best, found.pop(classes, (np.inf, [])))
        ends = found
    return best[1][:-1]


def checked_cutoffs(cutoffs: Sequence[int], num_classes: int) -> list[int]:
    """Checks cutoffs, and returns them as a list of integers.

    Raises:
        ValueError: If they do not increase, from above 0 to below `num_classes`.
    """
    cutoffs = list(cutoffs)  # of an array, whose truth would be ambiguous
    edges = [0, *cutoffs, num_classes]
    whole = all(int(a) == a for a in edges)
    if not cutoffs or not whole or any(a >= b for a, b in itertools.pairwise(edges)):
        raise ValueError(
            "`cutoffs` must be whole numbers that increase between 0 and "
            f"num_classes={num_classes}. Received: cutoffs={cutoffs}"
        )
    return [int(a) for a in cutoffs]
