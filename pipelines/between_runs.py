"""What is said of several runs: which can be compared, tests of pairs, spreads."""

from __future__ import annotations

import dataclasses
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from pipelines import metrics, titles
from pipelines.comparison import (
    Group,
    Judgement,
    Pair,
    Row,
    Spread,
    by_configuration,
)
from pipelines.run_folder import Run


def comparable(runs: Sequence[Run]) -> list[list[Run]]:
    """Parts runs into those on the same images with the same labels."""
    groups = defaultdict(list)
    for run in runs:
        dataset = run.record.dataset
        groups[dataset.name, run.config.label, dataset.checksum].append(run)
    return list(groups.values())


def pairs(right: Mapping[str, np.ndarray]) -> list[Pair]:
    """McNemar's test between all runs, corrected by Holm over all the pairs.

    Args:
        right: By the names of runs, which of the same images each has right.
    """
    names = list(combinations(right, 2))
    tests = [metrics.mcnemar(right[a], right[b]) for a, b in names]
    adjusted = metrics.holm([test["p"] for test in tests])
    return [
        Pair(
            a=a,
            b=b,
            difference=float(right[a].mean() - right[b].mean()),
            **test,
            p_holm=p,
        )
        for (a, b), test, p in zip(names, tests, adjusted, strict=True)
    ]


def over_seeds(members: Sequence[Run], rows: Sequence[Row]) -> list[Group]:
    """Mean and standard deviation of the runs that differ by their seed alone."""
    unseeded = [dataclasses.replace(run.config, seed=0) for run in members]
    titled = dict(zip(unseeded, titles.titles(unseeded), strict=True))
    groups = by_configuration(rows, {run.name: run.config for run in members})
    return [
        Group(
            title=titled[config] + f", {samples} samples" * bool(samples),
            samples=samples,
            scores=group[0].scores,
            runs=[row.run for row in group],
            as_is=spreads([row.as_is for row in group]),
            scaled=spreads([row.scaled for row in group]),
        )
        for (config, samples), group in groups.items()
        if len(group) > 1
    ]


def spreads(judgements: Sequence[Judgement]) -> dict[str, Spread]:
    """Mean and standard deviation of each metric."""
    return {
        name: Spread(
            mean=statistics.fmean(judgement.metrics[name] for judgement in judgements),
            std=statistics.stdev(judgement.metrics[name] for judgement in judgements),
        )
        for name in judgements[0].metrics
    }
