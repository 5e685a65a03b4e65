"""What documents show of a comparison: numbers over seeds, and contrasts."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from pipelines import markdown, tables
from pipelines.comparison import Contrast


def mean(values: Sequence[float], words: str, factor: float = 1) -> str:
    """The mean of seeds and, if there are several, their standard deviation."""
    text = format(factor * statistics.fmean(values), words)
    if len(values) > 1:
        text += f" ± {format(factor * statistics.stdev(values), words)}"
    return text


def contrasts(differences: Iterable[Contrast]) -> str:
    """Differences between configurations, in Markdown."""
    rows = []
    for found in differences:
        cell = tables.of_difference(found)
        rows.append(
            {
                "first": found.a,
                "second": found.b,
                "seeds": f"{len(found.runs_a)} and {len(found.runs_b)}",
                "difference, points": cell.text + f" ({cell.note})" * bool(cell.note),
                "could be seen": tables.in_points(found.visible).text,
                "verdict": tables.verdict(found),
            }
        )
    return markdown.table(rows, "first", "second", "seeds", "verdict")
