"""Contrasts against SciPy's tests, and against simulated runs."""

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import binom, ttest_ind

from pipelines.contrasts import (
    Estimate,
    estimate,
    estimate_over_seeds,
    variance_of_mean,
    verdict,
)

LABELS = np.arange(200) % 10


def constant(*accuracies):
    """Seeds that have the same share of every image right, so that seeds alone vary."""
    return np.repeat(np.array(accuracies)[:, None], len(LABELS), axis=1)


def found(a, b, labels=LABELS):
    estimated = estimate(a, b, labels)
    assert estimated is not None
    return estimated


def test_of_seeds_alone_it_is_welchs_test():
    a, b = (0.61, 0.6, 0.63, 0.605), (0.58, 0.595, 0.57)
    ours, theirs = found(constant(*a), constant(*b)), ttest_ind(a, b, equal_var=False)
    bounds = theirs.confidence_interval(0.95)
    assert ours.p() == pytest.approx(theirs.pvalue)
    assert ours.interval() == pytest.approx([bounds.low, bounds.high])
    for margin in (0.02, 0.08):
        sides = [
            ttest_ind(np.add(a, margin), b, equal_var=False, alternative="greater"),
            ttest_ind(np.subtract(a, margin), b, equal_var=False, alternative="less"),
        ]
        worse = max(side.pvalue for side in sides)
        assert ours.p_equivalent(margin) == pytest.approx(worse)


def test_one_number_a_seed_is_welchs_test():
    a, b = [0.61, 0.64, 0.66], [0.52, 0.53]
    ours, theirs = estimate_over_seeds(a, b), ttest_ind(a, b, equal_var=False)
    assert ours.p() == pytest.approx(theirs.pvalue)
    assert ours.interval() == pytest.approx(list(theirs.confidence_interval()))
    with pytest.raises(ValueError, match="one number"):
        estimate_over_seeds([1, 1], [1, 1])


def test_images_vary_within_their_classes():
    generator = np.random.default_rng(0)
    values = generator.normal(size=len(LABELS)) + 10 * LABELS
    means = []
    for _ in range(2000):
        drawn = [
            generator.choice(values[label == LABELS], np.sum(label == LABELS))
            for label in range(10)
        ]
        means.append(np.concatenate(drawn).mean())
    # A bootstrap divides by n where the estimate divides by n - 1.
    expected = np.var(means) * 20 / 19
    assert variance_of_mean(values, LABELS) == pytest.approx(expected, rel=0.1)


def test_the_power_is_that_of_tables():
    """Seeds for 80 % power in a two-sided t-test: any table, such as G*Power's."""
    for sd, seeds, expected in ((0.6, 7, 1.0), (0.6, 24, 0.5), (0.85, 13, 1.0)):
        spread = Estimate(0.0, sd * (2 / seeds) ** 0.5, 2 * (seeds - 1))
        one_fewer = Estimate(0.0, sd * (2 / (seeds - 1)) ** 0.5, 2 * (seeds - 2))
        assert spread.visible() < expected < one_fewer.visible()


@pytest.mark.parametrize("seeds", [(1, 3), (3, 1), (1, 1)])
def test_one_seed_tells_nothing(seeds):
    a, b = (constant(*[0.5] * count) for count in seeds)
    assert estimate(a, b, LABELS) is None


def test_runs_that_agree_on_every_image():
    right = np.tile(LABELS < 5, (3, 1))
    same = found(right, right)
    assert same.p() == pytest.approx(1)
    assert verdict(same, 1.0, 0.01) == "equivalent"
    assert found(right, ~right & (LABELS == 9)).p() < 1e-6


def test_verdicts():
    def of(difference, margin=0.01):
        one = Estimate(difference, 0.003, 10)
        return verdict(one, one.p(), margin)

    assert of(0.0) == "equivalent"
    assert of(0.05) == of(-0.05) == "different"
    # Significant, but smaller than what could be seen.
    one = Estimate(0.0075, 0.003, 10)
    assert one.p() < 0.05
    assert one.visible() > 0.0075
    assert of(0.0075) == "cannot tell"
    # Surely not 0, and surely too small to matter.
    assert of(0.02, margin=0.05) == "equivalent"


def runs(generator, seeds, shift=0.0, images=1000):
    """Runs that differ by their seed, on images of their own difficulty.

    The images of both configurations are given by the state of the generator.
    """
    difficulty = 1.5 * generator.normal(size=images)
    for moved in (0.0, shift):
        chance = (
            0.5
            + difficulty
            + moved
            + 0.1 * generator.normal(size=(seeds, 1))
            + generator.normal(size=(seeds, images))
        )
        yield generator.random((seeds, images)) < expit(chance)


def of_runs(generator, seeds, shift=0.0):
    a, b = runs(generator, seeds, shift)
    return found(a, b, np.arange(1000) % 20)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_intervals_cover_and_a_test_finds_what_is_there(seeds):
    generator, times = np.random.default_rng(seeds), 500
    estimates = [of_runs(generator, seeds) for _ in range(times)]
    covered = sum(low <= 0 <= high for low, high in (e.interval() for e in estimates))
    rejected = sum(e.p() < 0.05 for e in estimates)
    assert rejected == times - covered
    # At least 95 %, and not much more: with 2 seeds it is careful.
    assert covered >= binom.ppf(0.001, times, 0.95)
    assert covered <= binom.ppf(0.999, times, 0.95 if seeds > 2 else 0.99)
    visible = np.median([e.visible() for e in estimates])
    slope = 0.14  # of the accuracy by the shift, at these difficulties
    shifted = [of_runs(generator, seeds, visible / slope) for _ in range(times)]
    truth = -np.mean([e.difference for e in shifted])
    assert truth == pytest.approx(visible, rel=0.25)
    assert 0.6 < np.mean([e.p() < 0.05 for e in shifted]) < 0.95
