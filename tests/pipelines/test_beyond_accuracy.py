"""Calibration without bins, leaving images out, and sets: against other libraries."""

import itertools

import numpy as np
import pytest
import relplot
from scipy.special import log_softmax
from scipy.stats import betabinom

from pipelines import metrics


def probable(generator, count, classes=7):
    """Probabilities of classes, and labels that are as probable as they say."""
    p = np.exp(log_softmax(2 * generator.normal(size=(count, classes)), axis=1))
    return p, (p.cumsum(axis=1) < generator.random((count, 1))).sum(axis=1)


def facts_of(confidence, right):
    """Outcomes of images of class 1 with these confidences."""
    return {
        "label": np.ones(len(right), "int64"),
        "predicted": np.where(right, 1, 0),
        "confidence": np.asarray(confidence, "float64"),
    }


def drawn(seed, count=4000, power=1.0):
    """Images that are right with the probability `confidence**power`."""
    generator = np.random.default_rng(seed)
    confidence = generator.beta(3, 1.5, size=count)
    return facts_of(confidence, generator.random(count) < confidence**power)


@pytest.mark.parametrize("power", [0.3, 0.7, 1.5, 3.0])
def test_the_smooth_error_agrees_with_its_authors(power):
    facts = drawn(0, power=power)
    theirs = relplot.smECE(facts["confidence"], metrics.right(facts))
    assert metrics.smooth_error(facts) == pytest.approx(theirs, rel=0.03, abs=0.001)


def test_the_smooth_error_of_certain_errors_is_one():
    facts = {
        "confidence": np.ones(20),
        "predicted": np.ones(20, int),
        "label": np.zeros(20, int),
    }
    assert metrics.smooth_error(facts) == pytest.approx(1)


def test_the_smooth_error_of_calibrated_confidences_is_small():
    errors = [metrics.smooth_error(drawn(seed, 20_000)) for seed in range(5)]
    assert max(errors) < 0.02
    assert metrics.smooth_error(facts_of([1.0] * 50, [True] * 50)) < 1e-9


@pytest.mark.parametrize("bins", [1, 4, 7])
def test_the_equal_mass_error_is_that_of_quantiles(bins):
    facts = drawn(3, count=bins * 50, power=2.0)
    edges = np.quantile(facts["confidence"], np.arange(1, bins) / bins)
    bin_of = np.digitize(facts["confidence"], edges)
    expected = sum(
        np.mean(bin_of == i)
        * abs(
            metrics.right(facts)[bin_of == i].mean()
            - facts["confidence"][bin_of == i].mean()
        )
        for i in range(bins)
    )
    assert metrics.equal_mass_error(facts, bins) == pytest.approx(expected)


@pytest.mark.parametrize("bins", [1, 15])
def test_the_class_wise_error_is_the_mean_of_those_of_each_class(bins):
    """Each as that of a task with two classes: this one, and any other."""
    p, labels = probable(np.random.default_rng(1), 400)
    p = p**2 / (p**2).sum(axis=1, keepdims=True)
    errors = []
    for j in range(p.shape[1]):
        alone = facts_of(p[:, j], labels == j)
        errors.append(metrics.calibration_error(metrics.reliability(alone, bins)))
    gaps = metrics.classwise_gaps(p, labels, bins)
    assert gaps.shape == (400,)
    assert gaps.mean() == pytest.approx(np.mean(errors))


def test_calibrated_probabilities_stay_below_the_class_wise_floor():
    generator = np.random.default_rng(2)
    below = []
    for _ in range(100):
        p, labels = probable(generator, 300)
        floor = metrics.classwise_if_calibrated(p, draws=100)
        below.append(metrics.classwise_gaps(p, labels).mean() <= floor)
    assert 85 <= sum(below) <= 100
    p, labels = probable(generator, 3000)
    sure = p**3 / (p**3).sum(axis=1, keepdims=True)
    error = metrics.classwise_gaps(sure, labels).mean()
    assert error > 2 * metrics.classwise_if_calibrated(sure)


def test_errors_are_near_or_far():
    p = np.array([[0.4, 0.0, 0.35, 0.25], [0.6, 0.4, 0, 0], [0.1, 0.9, 0, 0]])
    labels, superclasses = np.array([2, 0, 0]), [0, 0, 1, 1]
    facts = metrics.outcomes(p, labels)
    facts["superclass"] = metrics.of_superclasses(p, superclasses)
    assert facts["superclass"].tolist() == [1, 0, 0]
    found = metrics.summary(facts, superclasses)
    assert found["superclass_accuracy"] == pytest.approx(2 / 3)
    assert found["summed_superclass_accuracy"] == 1.0
    assert found["errors_within"] == 1 / 2


@pytest.mark.parametrize(
    "error",
    [
        lambda facts: metrics.calibration_error(metrics.reliability(facts)),
        metrics.equal_mass_error,
        metrics.smooth_error,
    ],
)
def test_a_calibrated_network_stays_below_the_floor(error):
    """In about 95 % of cases, and one that is not calibrated does not."""
    below = [
        error(facts) <= metrics.if_calibrated(facts, error, draws=100)
        for facts in (drawn(seed, 500) for seed in range(100))
    ]
    assert 85 <= sum(below) <= 100
    wrong = drawn(0, 2000, power=3.0)
    assert error(wrong) > 2 * metrics.if_calibrated(wrong, error)


def test_the_floor_of_ten_thousand_images():
    """That of the expected calibration error is no smaller for a good network."""
    facts = drawn(1, 10_000)
    floor = metrics.if_calibrated(
        facts, lambda drawn: metrics.calibration_error(metrics.reliability(drawn))
    )
    assert 0.008 < floor < 0.03


def test_the_risk_of_four_images():
    facts = facts_of([0.9, 0.8, 0.7, 0.6], [True, False, True, True])
    # 0/1, 1/2, 1/3, 1/4; at best the error comes last: 0, 0, 0, 1/4.
    assert metrics.area_under_risk(facts) == pytest.approx((1 / 2 + 1 / 3 + 1 / 4) / 4)
    assert metrics.excess_area(facts) == pytest.approx((1 / 2 + 1 / 3) / 4)
    assert metrics.coverage_at_risk(facts, 0.25) == 1.0
    assert metrics.coverage_at_risk(facts, 0.24) == 0.25
    assert metrics.coverage_at_risk(facts_of([0.9], [False])) == 0.0


def test_the_area_is_the_mean_risk_over_thresholds():
    facts = drawn(5, 300)
    risks = []
    for threshold in facts["confidence"]:
        answered = facts["confidence"] >= threshold
        risks.append(np.mean(~metrics.right(facts)[answered]))
    assert metrics.area_under_risk(facts) == pytest.approx(np.mean(risks))
    best = min(
        metrics.area_under_risk(facts_of(order, [True, False, True, False]))
        for order in itertools.permutations([0.1, 0.2, 0.3, 0.4])
    )
    some = facts_of([0.1, 0.2, 0.3, 0.4], [True, False, True, False])
    assert metrics.area_under_risk(some) - metrics.excess_area(some) == best


def answers(generator, count):
    """Log-probabilities of overconfident answers, and labels."""
    logits = 2 * generator.normal(size=(count, 10))
    p = np.exp(log_softmax(logits, axis=1))
    labels = (p.cumsum(axis=1) < generator.random((count, 1))).sum(axis=1)
    return log_softmax(3 * logits, axis=1), labels


def test_sets_hold_the_class_as_often_as_they_say():
    """The number of sets that do has a beta-binomial distribution (Vovk, 2012)."""
    generator = np.random.default_rng(0)
    held_out, tested = 400, 1000
    rank = int(np.ceil((held_out // 2 + 1) * 0.9))
    expected = betabinom(tested, rank, held_out // 2 + 1 - rank)
    held = []
    for _ in range(60):
        threshold = metrics.conformal_threshold(*answers(generator, held_out))
        sets = metrics.conformal_sets(*answers(generator, tested), threshold)
        held.append(int(sets["in_set"].sum()))
        assert (sets["set_size"] >= sets["in_set"]).all()
    assert expected.ppf(1e-4) <= min(held)
    assert max(held) <= expected.ppf(1 - 1e-4)
    assert np.mean(held) == pytest.approx(expected.mean(), abs=0.01 * tested)


def test_sets_of_few_images_hold_every_class():
    generator = np.random.default_rng(0)
    threshold = metrics.conformal_threshold(*answers(generator, 8))
    sets = metrics.conformal_sets(*answers(generator, 5), threshold)
    assert sets["set_size"].tolist() == [10] * 5
