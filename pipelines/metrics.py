"""Metrics as pure functions from predictions and labels to named numbers."""

import numpy as np
from sklearn.metrics import accuracy_score, precision_recall_fscore_support


def classification(predicted: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Accuracy, and macro-averaged precision, recall and F1.

    Args:
        predicted: The predicted classes, integers of shape `(n,)`.
        labels: The true classes, integers of shape `(n,)`.
    """
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, predicted, average="macro", zero_division=0.0
    )
    return {
        "accuracy": float(accuracy_score(labels, predicted)),
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
    }
