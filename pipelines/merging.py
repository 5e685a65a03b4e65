"""Comparisons that were made in parts, as one."""

from __future__ import annotations

import dataclasses
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence

from pipelines import between_runs
from pipelines.comparison import (
    FORMAT,
    Comparison,
    Made,
    Results,
    Table,
    Timings,
    first_of_each,
)
from pipelines.config import Config
from pipelines.errors import InputError

Contrasts = Sequence[tuple[Config, Config]]


def merge(
    parts: Sequence[Results],
    contrasts: Contrasts | None = None,
    margin: float | None = None,
) -> Results:
    """Puts the runs of several comparisons beside each other.

    Runs on the same test images come into one table, where what is said of several runs
    is made anew. The rows stay as they are. An ensemble stays if all its runs are of
    one part: it was made of probabilities, which are not kept.

    Args:
        parts: With their outcomes.
        contrasts: The configurations to compare, with seed 0; if `None`, those that
            were declared in the parts.
        margin: The difference of accuracy that is too small to matter; if `None`, that
            of the parts.

    Raises:
        InputError: If parts have different figures of one run, or different margins.
    """
    outcomes = _union(part.outcomes for part in parts)
    by_images: dict[tuple, list[Table]] = defaultdict(list)
    for part in parts:
        for table in part.comparison.tables:
            data = table.dataset
            by_images[data.name, data.label, data.checksum].append(table)
    _check_names(by_images.values())
    every = [table for found in by_images.values() for table in found]
    declared = between_runs.declared_in(every) if contrasts is None else contrasts
    margin = _margin(every) if margin is None else margin
    tables = []
    for found in by_images.values():
        ensembles = {
            (frozenset(group.runs), group.samples): group.ensemble
            for table in found
            for group in table.groups
            if group.ensemble
        }
        table = _side_by_side(found)
        tables.append(
            between_runs.assemble(table, outcomes, ensembles, declared, margin)
        )
    between_runs.name_left_out(declared, tables)
    made: list[Made] = []
    for part in parts:
        made += [one for one in part.comparison.made if one not in made]
    timed = [part.timings for part in parts if part.timings.runs]
    timings = timed[0] if timed else parts[0].timings
    if any(other.device != timings.device for other in timed):
        print("left out: times, which are of several machines", file=sys.stderr)
        timed = []
    return Results(
        comparison=Comparison(FORMAT, made, tables),
        timings=Timings(timings.device, _union(other.runs for other in timed)),
        confusions=_union(part.confusions for part in parts),
        outcomes=outcomes,
    )


def _check_names(parted: Iterable[Sequence[Table]]):
    """Refuses runs of one name on different data, whose arrays have that name too."""
    seen: dict[str, int] = {}
    for number, tables in enumerate(parted):
        for name in {name for table in tables for name in table.runs}:
            if seen.setdefault(name, number) != number:
                raise InputError(
                    f"Two of the comparisons have a run {name} on different data; "
                    "leave out one of them."
                )


def _union(mappings: Iterable) -> dict:
    return {name: value for mapping in mappings for name, value in mapping.items()}


def _side_by_side(tables: Sequence[Table]) -> Table:
    """The runs and the rows of tables, each once, in the order of names.

    Exports that were judged together with their runs stand after all runs, as
    `first_of_each` expects.
    """
    rows, runs, shifted, unfamiliar = {}, {}, {}, {}
    copies: set[str] = set()
    for table in tables:
        copies |= set(table.runs) - first_of_each(table.configs)
        for row in table.rows:
            known = rows.setdefault(row.id, row)
            if known.as_is != row.as_is or known.scaled != row.scaled:
                raise InputError(
                    f"Two of the comparisons have different figures of {row.id}; leave "
                    "out one of them."
                )
        for name, run in table.runs.items():
            known = runs.get(name)
            if known is None or run.reported:
                runs[name] = run
        shifted |= {(s.row, s.corruption): s for s in table.shifted}
        unfamiliar |= {(u.row, u.dataset, u.score): u for u in table.unfamiliar}

    def place(name):
        return name in copies, name

    return dataclasses.replace(
        tables[0],
        rows=sorted(rows.values(), key=lambda row: (place(row.run), row.samples)),
        runs={name: runs[name] for name in sorted(runs, key=place)},
        shifted=list(shifted.values()),
        unfamiliar=list(unfamiliar.values()),
    )


def _margin(tables: Sequence[Table]) -> float:
    """The margin that tables share."""
    contrasts = [found for table in tables for found in table.contrasts]
    declared = [found for found in contrasts if found.declared]
    margins = {found.margin for found in declared or contrasts}
    if len(margins) > 1:
        raise InputError(
            "The comparisons have different margins, "
            f"{' and '.join(f'{100 * m:g}' for m in sorted(margins))} points; name an "
            "experiment that says which."
        )
    return margins.pop() if margins else between_runs.MARGIN
