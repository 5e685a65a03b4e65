"""What is said of several runs: which can be compared, tests, spreads."""

from __future__ import annotations

import dataclasses
import statistics
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from pipelines import contrasts, metrics, titles
from pipelines.comparison import (
    Contrast,
    Group,
    Judgement,
    Pair,
    Row,
    Spread,
    Table,
    by_configuration,
    first_of_each,
)
from pipelines.config import Config
from pipelines.run_folder import Run

Members = tuple[frozenset[str], int]  # runs of several seeds, and their samples
MARGIN = 0.01  # of accuracy: what is too small to matter, if it is not declared


def comparable(runs: Sequence[Run]) -> list[list[Run]]:
    """Parts runs into those on the same images with the same labels."""
    groups = defaultdict(list)
    for run in runs:
        dataset = run.record.dataset
        groups[dataset.name, run.config.label, dataset.checksum].append(run)
    return list(groups.values())


def assemble(
    table: Table,
    outcomes: Mapping[str, metrics.Outcomes],
    ensembles: Mapping[Members, Judgement],
    declared: Sequence[tuple[Config, Config]],
    margin: float,
) -> Table:
    """Fills in what is said of several runs: titles, tests, means over seeds.

    Args:
        table: Has the runs and their rows.
        outcomes: By the ids of the rows, what became of each image.
        ensembles: By their members, the metrics of ensembles.
        declared: See `against_each_other`.
        margin: See `against_each_other`.
    """
    configs = table.configs
    headings, first = titles.headings(configs), first_of_each(configs)
    rows = [
        dataclasses.replace(row, title=headings[row.run] + of_samples(row.samples))
        for row in table.rows
    ]
    titled = dataclasses.replace(
        table,
        runs={
            name: dataclasses.replace(run, title=headings[name])
            for name, run in table.runs.items()
        },
        rows=rows,
        pairs=pairs(
            {
                row.run: metrics.right(outcomes[row.id])
                for row in rows
                if not row.samples and row.run in first
            }
        ),
        groups=over_seeds(configs, rows, ensembles),
    )
    contrasts = against_each_other(titled, outcomes, declared, margin)
    return dataclasses.replace(titled, contrasts=contrasts)


def of_samples(samples: int) -> str:
    """What a title says of averaged draws."""
    return f", {samples} samples" if samples else ""


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


def against_each_other(
    table: Table,
    outcomes: Mapping[str, metrics.Outcomes],
    declared: Sequence[tuple[Config, Config]],
    margin: float,
) -> list[Contrast]:
    """Compares configurations over their seeds and the images.

    Args:
        table: Has the runs and their rows; those of noisy samples are left out.
        outcomes: By the ids of the rows, what became of each image.
        declared: The configurations to compare, with seed 0. Without any, those of
            several seeds are compared with the most accurate of them.
        margin: The difference of accuracy that is too small to matter.
    """
    found = by_configuration(
        [row for row in table.rows if not row.samples],
        table.configs,
    )
    groups = {key.config: rows for key, rows in found.items() if not key.copy}
    runs = {config: [row.run for row in rows] for config, rows in groups.items()}
    rights = {
        config: np.stack([metrics.right(outcomes[row.id]) for row in rows])
        for config, rows in groups.items()
    }
    titled = dict(zip(rights, titles.titles(list(rights)), strict=True))
    asked = [pair for pair in declared if set(pair) <= set(rights)]
    if not declared:
        several = [config for config, right in rights.items() if len(right) > 1]
        several.sort(key=lambda config: -rights[config].mean())
        asked = [(config, several[0]) for config in several[1:]]
    labels = outcomes[table.rows[0].id]["label"]
    estimates = [contrasts.estimate(rights[a], rights[b], labels) for a, b in asked]
    compared = [
        Contrast(
            a=titled[a],
            b=titled[b],
            runs_a=runs[a],
            runs_b=runs[b],
            margin=margin,
            declared=bool(declared),
            difference=float(rights[a].mean() - rights[b].mean()),
        )
        for a, b in asked
    ]
    return judged(compared, estimates)


def judged(
    compared: Sequence[Contrast], estimates: Sequence[contrasts.Estimate | None]
) -> list[Contrast]:
    """Contrasts with what is known of their differences, corrected by Holm.

    Args:
        compared: Say what is compared, and the margins.
        estimates: The differences over seeds; `None` where there is one seed.
    """
    p = [estimate.p() for estimate in estimates if estimate]
    corrected = iter(metrics.holm(p))
    found = []
    for contrast, estimate in zip(compared, estimates, strict=True):
        if estimate:
            p_holm = next(corrected)
            contrast = dataclasses.replace(
                contrast,
                interval=estimate.interval(),
                p=estimate.p(),
                p_holm=p_holm,
                p_equivalent=estimate.p_equivalent(contrast.margin),
                visible=estimate.visible(),
                verdict=contrasts.verdict(estimate, p_holm, contrast.margin),
            )
        found.append(contrast)
    return found


def declared_in(tables: Sequence[Table]) -> list[tuple[Config, Config]]:
    """The declared contrasts that tables have, each once."""

    def config(runs: Sequence[str], table: Table) -> Config:
        return dataclasses.replace(table.runs[runs[0]].config, seed=0)

    pairs = (
        (config(found.runs_a, table), config(found.runs_b, table))
        for table in tables
        for found in table.contrasts
        if found.declared
    )
    return list(dict.fromkeys(pairs))


def name_left_out(declared: Sequence[tuple[Config, Config]], tables: Sequence[Table]):
    """Says which declared contrasts are in no table, for want of runs."""
    compared = declared_in(tables)
    for a, b in declared:
        if (a, b) not in compared:
            words = " and ".join(titles.titles([a, b]))
            print(
                f"left out: {words} are not compared; runs are missing", file=sys.stderr
            )


def over_seeds(
    configs: Mapping[str, Config],
    rows: Sequence[Row],
    ensembles: Mapping[Members, Judgement],
) -> list[Group]:
    """Mean and standard deviation of the runs that differ by their seed alone."""
    unseeded = [dataclasses.replace(config, seed=0) for config in configs.values()]
    titled = dict(zip(unseeded, titles.titles(unseeded), strict=True))
    groups = []
    for (config, samples, _), group in by_configuration(rows, configs).items():
        if len(group) > 1:
            runs = [row.run for row in group]
            groups.append(
                Group(
                    title=titled[config] + of_samples(samples),
                    samples=samples,
                    scores=group[0].scores,
                    runs=runs,
                    as_is=spreads([row.as_is for row in group]),
                    scaled=spreads([row.scaled for row in group]),
                    ensemble=ensembles.get((frozenset(runs), samples)),
                )
            )
    return groups


def spreads(judgements: Sequence[Judgement]) -> dict[str, Spread]:
    """Mean and standard deviation of each metric that all of them have."""
    numbers = [judgement.metrics for judgement in judgements]
    shared = [name for name in numbers[0] if all(name in some for some in numbers)]
    return {
        name: Spread(
            mean=statistics.fmean(some[name] for some in numbers),
            std=statistics.stdev(some[name] for some in numbers),
        )
        for name in shared
    }
