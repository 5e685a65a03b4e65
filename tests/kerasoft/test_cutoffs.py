"""Where the adaptive softmax cuts its clusters."""

import itertools

import numpy as np
import pytest

from kerasoft.output_layers import AdaptiveOutput, cheapest_cutoffs

DIM, DIV, BATCH = 32, 2.0, 10**6


def cost(counts, cutoffs):
    """What a step costs, by the formula of the docstring."""
    shares = np.sort(counts)[::-1] / np.sum(counts)
    edges = [*cutoffs, len(counts)]
    total = BATCH * (cutoffs[0] + len(cutoffs)) * (DIM + 40)
    for i, (start, stop) in enumerate(itertools.pairwise(edges)):
        rows = max(BATCH * shares[start:stop].sum(), 32)
        width = max(1, int(DIM // DIV ** (i + 1)))
        total += rows * (stop - start) * (width + 40) + 2e6
    return total


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("head_share", [0.0, 0.6])
def test_they_are_the_cheapest_of_all(seed, head_share):
    counts = np.random.default_rng(seed).pareto(0.7, size=14) + 0.01
    shares = np.sort(counts)[::-1] / counts.sum()
    every = [
        list(cutoffs)
        for clusters in (1, 2, 3)
        for cutoffs in itertools.combinations(range(1, 14), clusters)
        if shares[: cutoffs[0]].sum() >= head_share
    ]
    best = min(every, key=lambda cutoffs: cost(counts, cutoffs))
    found = cheapest_cutoffs(counts, DIM, DIV, BATCH, head_share)
    assert cost(counts, found) == pytest.approx(cost(counts, best))


def test_the_head_has_its_share_and_the_rest_grows_cheap():
    counts = 1 / (np.arange(100_000) + 2.7)
    cutoffs = cheapest_cutoffs(counts, 256)
    assert counts[: cutoffs[0]].sum() >= 0.7 * counts.sum()
    # A tenth of the cost of all classes at full width, or less.
    assert cutoffs[0] < 10_000
    assert len(cutoffs) == 3


@pytest.mark.parametrize("counts", [[5, 1], [1, 1], [1, 0, 0, 0], np.ones(1000)])
def test_few_or_equal_classes(counts):
    cutoffs = cheapest_cutoffs(counts, 8)
    assert 0 < cutoffs[0] < len(counts)
    assert AdaptiveOutput(len(counts), counts, cutoffs).cutoffs == cutoffs
