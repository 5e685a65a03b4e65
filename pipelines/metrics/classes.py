"""Metrics of the predicted classes, from their confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_array, csr_array


def classification(predicted: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Accuracy, and macro-averaged precision, recall and F1.

    Args:
        predicted: The predicted classes, integers of shape `(n,)`.
        labels: The true classes, integers of shape `(n,)`.
    """
    return {
        "accuracy": float(np.mean(predicted == labels)),
        **macro(predicted, labels),
    }


def confusion(predicted: np.ndarray, labels: np.ndarray, classes: int) -> csr_array:
    """Counts the images of each true class (row) by predicted class (column).

    The matrix is sparse: of many classes, most pairs never occur.
    """
    ones = np.ones(len(labels), "int64")
    return coo_array((ones, (labels, predicted)), shape=(classes, classes)).tocsr()


def fold(matrix: csr_array, superclasses: Sequence[int], count: int) -> np.ndarray:
    """Adds up a confusion matrix's rows and columns by one of `count` superclasses."""
    member = np.eye(count, dtype=matrix.dtype)[list(superclasses)]
    return member.T @ (matrix @ member)


def of_superclasses(
    probabilities: np.ndarray, superclasses: Sequence[int]
) -> np.ndarray:
    """The superclass whose classes are together the most probable, of each image."""
    member = np.eye(max(superclasses) + 1)[list(superclasses)]
    return (probabilities @ member).argmax(axis=1)


def by_class(matrix: csr_array) -> dict[str, np.ndarray]:
    """Support, precision, recall and F1 of each class; 0 where there is nothing."""
    sums = [np.asarray(matrix.sum(axis=axis)) for axis in (0, 1)]
    return _rates(matrix.diagonal(), *sums)


def macro(predicted: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Means over the classes that occur, as label or as prediction."""
    classes = 1 + max(int(np.max(predicted)), int(np.max(labels)))
    right, answered, support = (
        np.bincount(some, minlength=classes)
        for some in (labels[predicted == labels], predicted, labels)
    )
    occur = answered + support > 0
    table = _rates(right[occur], answered[occur], support[occur])
    return {name: float(table[name].mean()) for name in ("precision", "recall", "f1")}


def _rates(right, predicted, support) -> dict[str, np.ndarray]:
    return {
        "support": support,
        "precision": right / np.maximum(predicted, 1),
        "recall": right / np.maximum(support, 1),
        "f1": 2 * right / np.maximum(predicted + support, 1),
    }


def class_lines(matrix: csr_array, names: Sequence[str]) -> list[dict]:
    """Of each class: its metrics, and what it is most often taken for."""
    columns = by_class(matrix)
    taken_for: dict[int, tuple[int, int]] = {}
    for true, predicted, count in confused_pairs(matrix):
        taken_for.setdefault(true, (predicted, count))  # the most frequent comes first
    lines = []
    for i, name in enumerate(names):
        other, times = taken_for.get(i, (None, 0))
        lines.append(
            {
                "class": name,
                **{key: column[i].item() for key, column in columns.items()},
                "taken_for": "" if other is None else names[other],
                "times": times,
            }
        )
    return lines


def confused_pairs(
    matrix: csr_array, most: int | None = None
) -> list[tuple[int, int, int]]:
    """The most frequent errors, as true class, predicted class and count."""
    cells = matrix.tocoo()
    errors = (cells.row != cells.col) & (cells.data > 0)
    rows, columns, counts = (x[errors] for x in (cells.row, cells.col, cells.data))
    order = np.lexsort((columns, rows, -counts))[:most]
    found = (x[order].tolist() for x in (rows, columns, counts))
    return list(zip(*found, strict=True))
