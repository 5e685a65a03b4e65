"""The comparison as one HTML page that needs nothing else."""

from __future__ import annotations

import base64
import functools
import gzip
import json
import statistics
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import plotly.offline

from pipelines import plots, robustness_tables, tables, wording
from pipelines.comparison import Results, Row, Table
from pipelines.draw_plotly import draw
from pipelines.metrics import METRICS
from pipelines.tables import Cell

SCALED = "Calibration, scaled"


class ColumnGroup(NamedTuple):
    """Columns of the main table that are shown together."""

    caption: str
    headings: list[str]
    note: str = ""


class Line(NamedTuple):
    """A line of the main table: a row, or several that differ by their seed alone.

    Attributes:
        title: Its first column.
        id: That of its row; empty of several and of their ensemble.
        cells: By groups of columns.
    """

    title: str
    id: str
    cells: list[list[Cell]]


class Configuration(NamedTuple):
    """Rows that differ by their seed alone, with the line that folds them."""

    head: str
    loss: str
    samples: int
    folded: Line | None
    lines: list[Line]


def render(results: Results) -> str:
    """The page. The same results give the same bytes."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    comparison = results.comparison
    shown = [
        {
            "id": f"table{number}",
            "heading": wording.heading(table),
            "findings": wording.findings(table),
            "explanation": wording.explanation(table),
            "groups": column_groups(table),
            "configurations": configurations(table, results),
            "sections": [
                s
                for s in (
                    tables.reported(table),
                    tables.contrasts(table),
                    *robustness_tables.shifted(table),
                    robustness_tables.unfamiliar(table),
                    tables.pairs(table),
                )
                if s.body
            ],
            "rows": [{"id": row.id, "title": row.title} for row in table.rows],
            "ticked": [row.id for row in plots.drawn(without_samples(table))],
            "most": plots.MOST_DRAWN,
            "curves": list(curves(table)),
            "metrics": by_temperature(table),
            "superclasses": bool(table.superclasses),
            "matrix": plots.has_matrix(table),
            "worst": plots.WORST_CLASSES,
        }
        for number, table in enumerate(comparison.tables, start=1)
    ]
    data = [figures(table, results) for table in comparison.tables]
    return environment.get_template("page.html").render(
        made=[(made.command, wording.made_with(made)) for made in comparison.made],
        tables=shown,
        colours=plots.COLOURS[:7],
        data=packed(json.dumps(data, separators=(",", ":"), ensure_ascii=False)),
        plotly=packed(plotly.offline.get_plotlyjs()),
    )


def packed(text: str) -> str:
    """Text compressed, in characters that a page may hold."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode("ascii")


def without_samples(table: Table) -> list[Row]:
    return [row for row in table.rows if not row.samples]


def curves(table: Table) -> dict[str, str]:
    return {words: name for name, words in plots.logged(table.runs.values()).items()}


def by_temperature(table: Table) -> list[str]:
    return list(plots.BY_TEMPERATURE) if plots.temperatures(table) else []


def figures(table: Table, results: Results) -> dict[str, Any]:
    """The plots of a table by name, and then by what can be chosen."""
    every, matrices = list(table.runs), results.confusions
    found = {
        "accuracy": {"": draw(plots.accuracy(table.rows))},
        "curves": {
            words: draw(plots.curves(table, every, name))
            for words, name in curves(table).items()
        },
        "temperature": {
            words: draw(plots.by_temperature(table, words))
            for words in by_temperature(table)
        },
        "reliability": {row.id: draw(plots.reliability(row)) for row in table.rows},
        "pairs": {
            row.id: draw(plots.confused(matrices[row.id], table.class_names))
            for row in table.rows
        },
    }
    if plots.has_matrix(table):
        found["confusion"] = {
            row.id: draw(plots.confusion(matrices[row.id], table)) for row in table.rows
        }
    if table.superclasses:
        found["folded"] = {
            row.id: draw(plots.folded(matrices[row.id], table)) for row in table.rows
        }
    return {
        "figures": found,
        "runs": {row.id: row.run for row in table.rows},
        "classes": {
            row.id: [
                list(line.values()) for line in plots.classes(matrices[row.id], table)
            ]
            for row in table.rows
        },
    }


def metric_groups(table: Table) -> dict[str, list[tables.Column]]:
    """The columns of metrics, by the caption of their group."""
    every = tables.columns(table.rows)
    as_is = [c for c in every if not c.scaled]
    groups = dict.fromkeys(metric.group for metric in METRICS.values())
    found = {g: [c for c in as_is if c.metric.group == g] for g in groups}
    found = {group: columns for group, columns in found.items() if columns}
    return {**found, SCALED: [c for c in every if c.scaled]}


def column_groups(table: Table) -> list[ColumnGroup]:
    """The groups of columns of the main table."""
    groups = []
    for caption, columns in metric_groups(table).items():
        headings = [column.heading for column in columns]
        headings += ["scaling temperature"] * (caption == SCALED)
        note = tables.note_on_scores(table.rows) if caption == "Calibration" else ""
        groups.append(ColumnGroup(caption, headings, note))
    return [*groups, ColumnGroup("Size and speed", list(tables.SPEED), tables.ON_SPEED)]


def configurations(table: Table, results: Results) -> list[Configuration]:
    """The main table: configurations by their mean accuracy, best first."""
    by_caption = metric_groups(table)

    def cells(make, temperature: float | None, speed: list[Cell]) -> list[list[Cell]]:
        metrics = {
            caption: [make(column) for column in columns]
            for caption, columns in by_caption.items()
        }
        metrics[SCALED].append(tables.number(temperature, ".3f"))
        return [*metrics.values(), speed]

    found = []
    for rows in table.configurations():
        lines = []
        for row in rows:
            speed = tables.speed_of(
                table.runs[row.run], results.timings.runs.get(row.run)
            )
            of_row = functools.partial(tables.of_row, row)
            lines.append(Line(row.title, row.id, cells(of_row, row.temperature, speed)))
        folded = None
        if group := table.group_of(rows):
            mean = statistics.fmean(row.temperature for row in rows)
            speeds = zip(*(line.cells[-1] for line in lines), strict=True)
            common = [_common(of_seeds) for of_seeds in speeds]
            of_group = functools.partial(tables.of_group, group)
            title = f"{group.title}, {len(rows)} seeds"
            folded = Line(title, "", cells(of_group, mean, common))
            if group.ensemble:
                of_all = functools.partial(tables.of_ensemble, group)
                nothing = [tables.number(None, "")] * len(common)
                lines.append(Line("ensemble", "", cells(of_all, None, nothing)))
        config = table.runs[rows[0].run].config
        found.append(
            Configuration(config.head, str(config.loss), rows[0].samples, folded, lines)
        )
    return found


def _common(cells: tuple[Cell, ...]) -> Cell:
    """The median of numbers, or the words that all cells share."""
    keys = [cell.key for cell in cells]
    if all(key == keys[0] for key in keys):
        return cells[0]
    if all(not isinstance(key, str) and key >= 0 for key in keys):
        middle = sorted(cells, key=lambda cell: cell.key)[len(cells) // 2]
        return middle._replace(note="median")
    return Cell("", "" if isinstance(keys[0], str) else -1)
