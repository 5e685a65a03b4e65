"""Metrics as pure functions from predictions and labels to named numbers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from pipelines.metrics.calibration import (
    calibration_error,
    equal_mass_error,
    fit_temperature,
    if_calibrated,
    reliability,
    smooth_error,
    tempered,
)
from pipelines.metrics.classes import (
    by_class,
    class_lines,
    classification,
    confused_pairs,
    confusion,
    fold,
    macro,
    of_superclasses,
)
from pipelines.metrics.classwise import (
    BINS,
    classwise_gaps,
    classwise_if_calibrated,
)
from pipelines.metrics.outcomes import Outcomes, as_kept, log_of, outcomes, right
from pipelines.metrics.resampling import (
    bootstrap,
    has_small_classes,
    holm,
    mcnemar,
    strata,
)
from pipelines.metrics.selection import (
    Threshold,
    area_under_risk,
    conformal_sets,
    conformal_threshold,
    coverage_at_risk,
    excess_area,
)

__all__ = [
    "BINS",
    "METRICS",
    "Metric",
    "Outcomes",
    "Threshold",
    "area_under_risk",
    "as_kept",
    "bootstrap",
    "by_class",
    "calibration_error",
    "class_lines",
    "classification",
    "classwise_gaps",
    "classwise_if_calibrated",
    "conformal_sets",
    "conformal_threshold",
    "confused_pairs",
    "confusion",
    "coverage_at_risk",
    "decimals",
    "equal_mass_error",
    "excess_area",
    "fit_temperature",
    "floors",
    "fold",
    "has_small_classes",
    "holm",
    "if_calibrated",
    "log_of",
    "macro",
    "mcnemar",
    "of_superclasses",
    "outcomes",
    "percent",
    "reliability",
    "right",
    "smooth_error",
    "strata",
    "summary",
    "tempered",
]

SUPERCLASSES = "Superclasses"


def percent(value: float) -> str:
    return f"{100 * value:.2f} %"


def decimals(value: float) -> str:
    return f"{value:.4f}"


class Metric(NamedTuple):
    """A metric of a set of images, and how it is shown.

    Attributes:
        of: From outcomes and the superclass of each class (or `None`) to a number, or
            to `None` where there is none.
        heading: Its name in tables.
        words: How its numbers read.
        best: `max` or `min`, as Keras Tuner has it.
        calibration: Whether it depends on the probabilities themselves, so that
            temperature scaling changes it. It is then a function of the outcomes alone.
        interval: Whether it has an interval over resampled images.
        macro: Whether it is a mean over classes, which has an interval only if every
            class has images enough to be resampled by itself.
        group: The group of columns that shows it.
        floor: Whether it is above 0 by chance alone, so that what it would be for
            calibrated probabilities is shown beside it.
    """

    of: Callable[[Outcomes, Sequence[int] | None], Any]
    heading: str
    words: Callable[[float], str] = decimals
    best: str = "max"
    calibration: bool = False
    interval: bool = True
    macro: bool = False
    group: str = "Accuracy"
    floor: bool = False


def _superclass_accuracy(facts, superclasses):
    if superclasses is None:
        return None
    of = np.asarray(superclasses)
    return np.mean(of[facts["predicted"]] == of[facts["label"]])


def _summed_superclass_accuracy(facts, superclasses):
    if superclasses is None or "superclass" not in facts:
        return None
    return np.mean(facts["superclass"] == np.asarray(superclasses)[facts["label"]])


def _errors_within(facts, superclasses):
    wrong = ~right(facts)
    if superclasses is None:
        return None
    of = np.asarray(superclasses)
    near = of[facts["predicted"]] == of[facts["label"]]
    return np.sum(near & wrong) / max(np.sum(wrong), 1)


def _harder_accuracy(facts, _):
    if "predicted_of_harder" not in facts:
        return None
    return np.mean(facts["predicted_of_harder"] == facts["label"])


def _macro(facts):
    return macro(facts["predicted"], facts["label"])


def _mean_of(facts, name):
    return np.mean(facts[name]) if name in facts else None


def _calibration(of, heading, floor=False):
    return Metric(
        of,
        heading,
        best="min",
        calibration=True,
        interval=not floor,
        group="Calibration",
        floor=floor,
    )


_selection = functools.partial(Metric, group="Selection")


# Tables, CSV, page and the tuner's objectives are made of this.
METRICS: dict[str, Metric] = {
    "accuracy": Metric(
        lambda facts, _: np.mean(right(facts)),
        "accuracy",
        percent,
    ),
    "top5": Metric(lambda facts, _: np.mean(facts["rank"] < 5), "top-5", percent),
    "harder_accuracy": Metric(_harder_accuracy, "accuracy, harder images", percent),
    "precision": Metric(
        lambda facts, _: _macro(facts)["precision"], "precision", macro=True
    ),
    "recall": Metric(lambda facts, _: _macro(facts)["recall"], "recall", macro=True),
    "f1": Metric(lambda facts, _: _macro(facts)["f1"], "F1", macro=True),
    "superclass_accuracy": Metric(_superclass_accuracy, "superclasses", percent),
    "summed_superclass_accuracy": Metric(
        _summed_superclass_accuracy, "superclasses, summed", percent, group=SUPERCLASSES
    ),
    "errors_within": Metric(
        _errors_within, "errors within the superclass", percent, group=SUPERCLASSES
    ),
    "nll": _calibration(lambda facts, _: np.mean(facts["nll"]), "NLL"),
    "brier": _calibration(lambda facts, _: np.mean(facts["brier"]), "Brier"),
    # No interval: resampled images repeat, which alone makes it larger.
    "ece": _calibration(
        lambda facts, _: calibration_error(reliability(facts)), "ECE", floor=True
    ),
    "equal_mass_ece": _calibration(
        lambda facts, _: equal_mass_error(facts), "ECE, equal mass", floor=True
    ),
    "smooth_ece": _calibration(
        lambda facts, _: smooth_error(facts), "smooth ECE", floor=True
    ),
    "classwise_ece": _calibration(
        lambda facts, _: _mean_of(facts, "classwise_gap"), "class-wise ECE", floor=True
    ),
    "aurc": _selection(lambda facts, _: area_under_risk(facts), "AURC", best="min"),
    "excess_aurc": _selection(
        lambda facts, _: excess_area(facts), "AURC, excess", best="min"
    ),
    "coverage_at_risk": _selection(
        lambda facts, _: coverage_at_risk(facts), "answered at 5 % risk", percent
    ),
    "set_size": _selection(
        lambda facts, _: _mean_of(facts, "set_size"), "size of 90 % sets", best="min"
    ),
    "set_coverage": _selection(
        lambda facts, _: _mean_of(facts, "in_set"), "sets with the class", percent
    ),
}


def summary(
    facts: Outcomes,
    superclasses: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
) -> dict[str, float]:
    """The metrics of a set of images, by their names in `METRICS`.

    Args:
        facts: From `outcomes`, or some of its rows.
        superclasses: The superclass of each class, or `None`.
        names: The metrics, all if `None`.
    """
    numbers = {
        name: METRICS[name].of(facts, superclasses)
        for name in (METRICS if names is None else names)
    }
    return {name: float(n) for name, n in numbers.items() if n is not None}


def floors(facts: Outcomes, probabilities: np.ndarray | None) -> dict[str, float]:
    """What calibration errors would stay below if there were none, by their names.

    Args:
        facts: From `outcomes`.
        probabilities: What they are of, of shape `(n, classes)`, for the error that is
            not of the highest one alone.
    """
    of = {name: metric.of for name, metric in METRICS.items() if metric.floor}
    del of["classwise_ece"]
    found = if_calibrated(facts, lambda drawn: [f(drawn, None) for f in of.values()])
    known = dict(zip(of, found.tolist(), strict=True))
    if probabilities is not None:
        known["classwise_ece"] = classwise_if_calibrated(probabilities)
    return known
