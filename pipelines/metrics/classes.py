"""Metrics of the predicted classes, from their confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def classification(predicted: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Accuracy, and macro-averaged precision, recall and F1.

    Args:
        predicted: The predicted classes, integers of shape `(n,)`.
        labels: The true classes, integers of shape `(n,)`.
    """
    classes = 1 + max(int(np.max(predicted)), int(np.max(labels)))
    return {
        "accuracy": float(np.mean(predicted == labels)),
        **macro(confusion(predicted, labels, classes)),
    }


def confusion(predicted: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Counts the images of each true class (row) by predicted class (column)."""
    cells = np.bincount(labels * classes + predicted, minlength=classes**2)
    return cells.reshape(classes, classes)


def fold(matrix: np.ndarray, superclasses: Sequence[int]) -> np.ndarray:
    """Adds up a confusion matrix's rows and columns by superclass."""
    member = np.eye(max(superclasses) + 1, dtype=matrix.dtype)[list(superclasses)]
    return member.T @ matrix @ member


def of_superclasses(
    probabilities: np.ndarray, superclasses: Sequence[int]
) -> np.ndarray:
    """The superclass whose classes are together the most probable, of each image."""
    member = np.eye(max(superclasses) + 1)[list(superclasses)]
    return (probabilities @ member).argmax(axis=1)


def by_class(matrix: np.ndarray) -> dict[str, np.ndarray]:
    """Support, precision, recall and F1 of each class; 0 where there is nothing."""
    right, predicted, support = np.diag(matrix), matrix.sum(axis=0), matrix.sum(axis=1)
    return {
        "support": support,
        "precision": right / np.maximum(predicted, 1),
        "recall": right / np.maximum(support, 1),
        "f1": 2 * right / np.maximum(predicted + support, 1),
    }


def class_lines(matrix: np.ndarray, names: Sequence[str]) -> list[dict]:
    """Of each class: its metrics, and what it is most often taken for."""
    errors = matrix - np.diag(np.diag(matrix))
    columns = by_class(matrix)
    return [
        {
            "class": names[i],
            **{name: column[i].item() for name, column in columns.items()},
            "taken_for": names[errors[i].argmax()] if errors[i].any() else "",
            "times": int(errors[i].max()),
        }
        for i in range(len(names))
    ]


def macro(matrix: np.ndarray) -> dict[str, float]:
    """Means over the classes that occur, as label or as prediction."""
    table = by_class(matrix)
    occur = matrix.sum(axis=0) + matrix.sum(axis=1) > 0
    return {
        name: float(table[name][occur].mean()) for name in ("precision", "recall", "f1")
    }


def confused_pairs(matrix: np.ndarray, most: int) -> list[tuple[int, int, int]]:
    """The most frequent errors, as true class, predicted class and count."""
    errors = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-errors, axis=None, kind="stable")[:most]
    rows, columns = np.unravel_index(order, errors.shape)
    return [
        (int(i), int(j), int(errors[i, j]))
        for i, j in zip(rows, columns, strict=True)
        if errors[i, j]
    ]
