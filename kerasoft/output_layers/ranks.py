"""Classes by how often they occur, and where to cut them into clusters."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

# The cost of one logit beside that of one multiplication and addition, for its
# exponential, its sum and its gradient; and of one more cluster, in the same unit.
LOGIT = 40
CLUSTER = 2e6


def checked_counts(counts: Any, num_classes: int) -> np.ndarray:
    """Counts of classes as an array.

    Raises:
        ValueError: If they are not `num_classes` finite numbers of at least 0, or all
            are 0.
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
            f"Received: {bad[0] if bad.size else 'zeros alone'}"
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
    """The cutoffs at which a step of `AdaptiveOutput` should cost least.

    Formula, with `k_0` classes in the head, and `k_i` in cluster `i`, which has the
    share `p_i` of the labels and features of dimension `d_i`:

    ```python
    cost = B * (k_0 + clusters) * (d + e) + sum(
        max(B * p_i, 32) * k_i * (d_i + e) + c for i in clusters
    )
    ```

    `e = 40` is what a logit costs beside its product and `c = 2e6` what a cluster
    costs, in multiplications of a processor's core. The cutoffs are looked for among
    60 numbers of classes, evenly spaced in their logarithms, by dynamic programming.

    Args:
        counts: How often each class occurs, of shape `(num_classes,)`, in any order.
        dim: Integer, the dimension of the features.
        div_value: Float above 1, by what the dimension shrinks from one cluster to the
            next.
        batch_size: Integer, how many rows a step has.
        head_share: Float in [0, 1), the share of the labels that are of the head, at
            least. Below it a step is cheaper still, but frequent classes lose width,
            which costs more accuracy than it saves time.
        max_clusters: Integer, how many clusters there may be after the head.

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
    # From where the last cluster ends to the least cost so far, and its cutoffs.
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
    """Cutoffs as a list of integers.

    Raises:
        ValueError: If they do not rise from above 0 to below `num_classes`.
    """
    edges = [0, *cutoffs, num_classes]
    whole = all(int(a) == a for a in edges)
    if not cutoffs or not whole or any(a >= b for a, b in itertools.pairwise(edges)):
        raise ValueError(
            "`cutoffs` must be whole numbers that rise between 0 and "
            f"num_classes={num_classes}. Received: cutoffs={list(cutoffs)}"
        )
    return [int(a) for a in cutoffs]
