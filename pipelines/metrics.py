"""Metrics as pure functions from predictions and labels to named numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from scipy.stats import binomtest

from kerasoft.ops import TINY

BINS = 15
TEMPERATURES = (1e-2, 1e2)

Outcomes = Mapping[str, np.ndarray]


def percent(value: float) -> str:
    return f"{100 * value:.2f} %"


def decimals(value: float) -> str:
    return f"{value:.4f}"


class Metric(NamedTuple):
    """A metric of a set of images, and how it is shown.

    Attributes:
        of: From outcomes, their confusion matrix and the superclass of each class (or
            `None`) to a number, or to `None` where there is none.
        heading: Its name in tables.
        words: How its numbers read.
        best: `max` or `min`, as Keras Tuner has it.
        calibration: Whether it depends on the probabilities themselves, so that
            temperature scaling changes it. It is then a function of the outcomes alone.
        interval: Whether it has an interval over resampled images.
    """

    of: Callable[[Outcomes, np.ndarray, Sequence[int] | None], Any]
    heading: str
    words: Callable[[float], str] = decimals
    best: str = "max"
    calibration: bool = False
    interval: bool = True


def _of_superclasses(facts, _, superclasses):
    if superclasses is None:
        return None
    of = np.asarray(superclasses)
    return np.mean(of[facts["predicted"]] == of[facts["label"]])


# Tables, CSV, page and the tuner's objectives are made of this.
METRICS: dict[str, Metric] = {
    "accuracy": Metric(
        lambda facts, *_: np.mean(right(facts)),
        "accuracy",
        percent,
    ),
    "top5": Metric(lambda facts, *_: np.mean(facts["rank"] < 5), "top-5", percent),
    "precision": Metric(lambda _, matrix, __: macro(matrix)["precision"], "precision"),
    "recall": Metric(lambda _, matrix, __: macro(matrix)["recall"], "recall"),
    "f1": Metric(lambda _, matrix, __: macro(matrix)["f1"], "F1"),
    "superclass_accuracy": Metric(_of_superclasses, "superclasses", percent),
    "nll": Metric(
        lambda facts, *_: np.mean(facts["nll"]), "NLL", best="min", calibration=True
    ),
    "brier": Metric(
        lambda facts, *_: np.mean(facts["brier"]), "Brier", best="min", calibration=True
    ),
    # No interval: resampled images repeat, which alone makes it larger.
    "ece": Metric(
        lambda facts, *_: calibration_error(reliability(facts)),
        "ECE",
        best="min",
        calibration=True,
        interval=False,
    ),
}


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


def outcomes(
    probabilities: np.ndarray,
    labels: np.ndarray,
    log_probabilities: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """What became of each image: all that the metrics need, one number an image.

    Args:
        probabilities: Of shape `(n, classes)`.
        labels: The true classes, integers of shape `(n,)`.
        log_probabilities: Their logarithms, where a head has them more precisely.

    Returns:
        Arrays of shape `(n,)`: `label`; `predicted`, the class; `rank`, how many
        classes come before the true one; `confidence`, the highest probability;
        `nll`, minus the logarithm of the true class's probability; and `brier`, the
        sum over classes of the squared difference from the one-hot truth.
    """
    p = np.asarray(probabilities, "float64")
    log_p = log_of(p) if log_probabilities is None else log_probabilities
    log_p = np.asarray(log_p, "float64")
    rows = np.arange(len(labels))
    truth = log_p[rows, labels]
    ties = np.arange(p.shape[1]) < np.asarray(labels)[:, None]
    before = (log_p > truth[:, None]) | ((log_p == truth[:, None]) & ties)
    return {
        "label": np.asarray(labels, "int64"),
        "predicted": log_p.argmax(axis=1),
        "rank": before.sum(axis=1),
        "confidence": p.max(axis=1),
        "nll": -truth,
        "brier": (p**2).sum(axis=1) - 2 * p[rows, labels] + 1,
    }


def right(facts: Outcomes) -> np.ndarray:
    """Which images are classified rightly, booleans of shape `(n,)`."""
    return facts["predicted"] == facts["label"]


def as_kept(facts: Outcomes) -> dict[str, np.ndarray]:
    """Outcomes in the precision in which they are kept on disk, float32."""
    return {
        name: x.astype("float32").astype("float64") if x.dtype.kind == "f" else x
        for name, x in facts.items()
    }


def log_of(probabilities: np.ndarray) -> np.ndarray:
    """Logarithms of probabilities, those of 0 as of the smallest float32."""
    return np.log(np.maximum(probabilities, TINY, dtype="float64"))


def summary(
    facts: Outcomes, classes: int, superclasses: Sequence[int] | None = None
) -> dict[str, float]:
    """The metrics of a set of images, by their names in `METRICS`.

    Args:
        facts: From `outcomes`, or some of its rows.
        classes: The number of classes.
        superclasses: The superclass of each class, or `None`.
    """
    matrix = confusion(facts["predicted"], facts["label"], classes)
    numbers = {
        name: metric.of(facts, matrix, superclasses) for name, metric in METRICS.items()
    }
    return {name: float(n) for name, n in numbers.items() if n is not None}


def calibration(facts: Outcomes) -> dict[str, float]:
    """The metrics that depend on the probabilities themselves."""
    return {
        name: float(metric.of(facts, np.empty(0), None))
        for name, metric in METRICS.items()
        if metric.calibration
    }


def confusion(predicted: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Counts the images of each true class (row) by predicted class (column)."""
    cells = np.bincount(labels * classes + predicted, minlength=classes**2)
    return cells.reshape(classes, classes)


def fold(matrix: np.ndarray, superclasses: Sequence[int]) -> np.ndarray:
    """Adds up a confusion matrix's rows and columns by superclass."""
    member = np.eye(max(superclasses) + 1, dtype=matrix.dtype)[list(superclasses)]
    return member.T @ matrix @ member


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


def reliability(facts: Outcomes, bins: int = BINS) -> dict[str, list]:
    """Groups images by confidence, in bins of equal width `(low, high]`.

    Returns:
        Columns, plain enough for JSON: of each bin its bounds and the `count` of its
        images, and their mean `confidence` and `accuracy` (`None` in an empty bin).
    """
    confidence = facts["confidence"]
    edges = np.arange(bins + 1) / bins
    index = np.clip(np.searchsorted(edges, confidence) - 1, 0, bins - 1)
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


def bootstrap(
    facts: Outcomes,
    metrics: Callable[[Outcomes], dict[str, float]],
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, list[float]]:
    """Percentile intervals of metrics over resampled images.

    Not for the calibration error: resampled images repeat, which alone makes it
    larger, so that its interval can lie beside the estimate.

    The resamples depend on the seed and the number of images alone: the same input
    gives the same bytes, and all runs on one test split share their resamples.

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
    n = len(facts["label"])
    draws = []
    for _ in range(resamples):
        rows = generator.integers(n, size=n)
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
