"""The comparison's tables: what they show, in which words."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

from pipelines import wording
from pipelines.comparison import (
    Contrast,
    Group,
    Judgement,
    Results,
    Row,
    Spread,
    Table,
    Timing,
    Trained,
)
from pipelines.metrics import METRICS, Metric, percent

SHORT = ("accuracy", "nll", "ece")  # what a command prints at its end


class Cell(NamedTuple):
    """A cell of a table: how it reads, what it sorts by, and a note beneath."""

    text: str
    key: Any
    note: str = ""


class Section(NamedTuple):
    """A table to show."""

    caption: str
    note: str
    head: list[str]
    body: list[list[Cell]]
    folded: bool = False  # for who wants to know more


class Column(NamedTuple):
    """A column of a metric, as the answers are or after temperature scaling."""

    name: str
    scaled: bool

    @property
    def metric(self) -> Metric:
        return METRICS[self.name]

    @property
    def heading(self) -> str:
        return self.metric.heading + ", scaled" * self.scaled

    def judgement(self, row: Row) -> Judgement:
        return row.scaled if self.scaled else row.as_is

    def spread(self, group: Group) -> Spread:
        return (group.scaled if self.scaled else group.as_is)[self.name]

    def says(self, of: Row | Group) -> bool:
        """Whether it says something: nothing has calibrated scores."""
        return self.scaled or not (of.scores and self.metric.calibration)


def columns(rows: Sequence[Row]) -> list[Column]:
    """A column for each metric that rows have, and one where scaling changes it."""
    every = [
        *(Column(name, False) for name in METRICS),
        *(Column(name, True) for name, m in METRICS.items() if m.calibration),
    ]
    return [c for c in every if any(c.name in c.judgement(r).metrics for r in rows)]


def word(text: str) -> Cell:
    return Cell(text, text)


def number(value: float | None, words: str) -> Cell:
    return Cell("", -1) if value is None else Cell(format(value, words), value)


def in_points(share: float | None) -> Cell:
    return number(None if share is None else 100 * share, ".2f")


def likelihood(p: float | None) -> Cell:
    if p is None:
        return number(None, "")
    return Cell(f"{p:.3g}" if p else "below 1e-300", p)


def of_row(row: Row, column: Column) -> Cell:
    """A metric of a row, with its interval if it has one."""
    if not column.says(row):
        return number(None, "")
    return of_judgement(column.judgement(row), column)


def of_ensemble(group: Group, column: Column) -> Cell:
    """A metric of the mean of the probabilities of several runs."""
    if column.scaled or not column.says(group) or group.ensemble is None:
        return number(None, "")
    return of_judgement(group.ensemble, column)


def of_judgement(judgement: Judgement, column: Column) -> Cell:
    words = column.metric.words
    if column.name not in judgement.metrics:
        return number(None, "")
    value = judgement.metrics[column.name]
    if column.name in judgement.floors:
        note = f"if calibrated, to {words(judgement.floors[column.name])}"
        return Cell(words(value), value, note)
    if column.name not in judgement.intervals:
        return Cell(words(value), value)
    low, high = judgement.intervals[column.name]
    bounds = f"{words(low)} to {words(high)}".replace(" % to", " to")
    return Cell(words(value), value, bounds)


def of_group(group: Group, column: Column) -> Cell:
    """The mean and the standard deviation of a metric over seeds."""
    known = group.scaled if column.scaled else group.as_is
    if not column.says(group) or column.name not in known:
        return number(None, "")
    words, spread = column.metric.words, column.spread(group)
    text = f"{words(spread.mean)} ± {words(spread.std)}".replace(" % ±", " ±")
    return Cell(text, spread.mean)


def results_of(table: Table) -> Section:
    rows = sorted(table.rows, key=lambda row: -row.accuracy)
    shown = columns(rows)
    body = [
        [
            word(row.title),
            *(of_row(row, column) for column in shown),
            number(row.temperature, ".3f"),
        ]
        for row in rows
    ]
    head = ["run", *(column.heading for column in shown), "scaling temperature"]
    return Section("Results", note_on_scores(rows), head, body)


def in_short(tables: Sequence[Table]) -> str:
    """Each row's accuracy, NLL and ECE, as plain text: how a command ends."""
    return "".join(f"{_in_short(table)}\n\n" for table in tables)


def _in_short(table: Table) -> str:
    rows = sorted(table.rows, key=lambda row: -row.accuracy)
    shown = [c for c in columns(rows) if c.name in SHORT and not c.scaled]
    body = [[c.heading for c in shown]]
    body += [[of_row(row, column).text for column in shown] for row in rows]
    titles = [wording.heading(table), *(row.title for row in rows)]
    widths = [max(map(len, cells)) for cells in zip(*body, strict=True)]
    lines = [
        "  ".join(
            [title.ljust(max(map(len, titles))), *map(str.rjust, cells, widths)]
        ).rstrip()
        for title, cells in zip(titles, body, strict=True)
    ]
    return "\n".join(lines)


def note_on_scores(rows: Sequence[Row]) -> str:
    if any(row.scores for row in rows):
        return "Heads that put out scores have no probabilities until they are scaled."
    return ""


def reported(table: Table) -> Section:
    """Our figures beside those reported elsewhere, and beside the matched loss."""
    runs = {name: run for name, run in table.runs.items() if run.reported}
    ours = {row.run: row.as_is.metrics for row in table.rows if not row.samples}
    shown = [
        column
        for column in columns(table.rows)
        if not column.scaled
        and any(column.name in (run.reported or {}) for run in runs.values())
    ]

    def figure(value, column):
        if isinstance(value, float | int):
            return Cell(column.metric.words(value), value)
        return Cell(value or "", -1)

    def matched(run):
        twin = dataclasses.replace(run.config, loss="matched")
        for name, other in table.runs.items():
            if other.config == twin:
                return Cell(percent(ours[name]["accuracy"]), ours[name]["accuracy"])
        return Cell("", -1)

    body = []
    for name, run in runs.items():
        figures = run.reported or {}
        cells = [word(figures.get("row", "")), word(run.title)]
        for column in shown:
            cells.append(figure(figures.get(column.name), column))
            cells.append(figure(ours[name].get(column.name), column))
        body.append([*cells, matched(run)])
    head = ["reported row", "our run"]
    for column in shown:
        head += [f"{column.heading}, reported", f"{column.heading}, ours"]
    note = (
        "Ours is the same protocol; the last column is our accuracy of the same run "
        "with the loss that matches its head."
    )
    head.append("accuracy, matched loss")
    return Section("Beside the reported figures", note, head, body)


def seeds(table: Table) -> Section:
    shown = columns(table.rows)
    body = []
    for group in table.groups:
        seeds = number(len(group.runs), "d")
        means = (of_group(group, column) for column in shown)
        body.append([word(group.title), seeds, *means])
        if group.ensemble:
            together = (of_ensemble(group, column) for column in shown)
            body.append([word(f"{group.title}, ensemble"), seeds, *together])
    note = "Mean ± standard deviation of runs that differ by their seed alone."
    if any(group.ensemble for group in table.groups):
        note += " Their ensemble answers with the mean of their probabilities."
    head = ["run", "seeds", *(column.heading for column in shown)]
    return Section("Over seeds", note, head, body)


def contrasts(table: Table) -> Section:
    """Configurations against each other, over seeds and images."""
    body = []
    for found in table.contrasts:
        body.append(
            [
                word(found.a),
                word(found.b),
                word(f"{len(found.runs_a)} and {len(found.runs_b)}"),
                of_difference(found),
                in_points(found.visible),
                likelihood(found.p_holm),
                likelihood(found.p_equivalent),
                word(verdict(found)),
            ]
        )
    head = ["first", "second", "seeds", "difference, points", "could be seen, points"]
    head += ["p, difference", "p, equivalence", "verdict"]
    return Section("Configurations over seeds", wording.on_contrasts(table), head, body)


def verdict(found: Contrast) -> str:
    """What a contrast shows, with the margin or the reason."""
    words = found.verdict
    if words == "equivalent":
        words += f" within {wording.points(found.margin)}"
    if found.interval is None:
        words += " (one seed)"
    return words


def of_difference(found: Contrast) -> Cell:
    """A difference in points, with its interval."""
    note = ""
    if found.interval:
        low, high = (100 * bound for bound in found.interval)
        note = f"{low:+.2f} to {high:+.2f}"
    return Cell(f"{100 * found.difference:+.2f}", found.difference, note)


def pairs(table: Table) -> Section:
    """McNemar's test of each run against the most accurate one."""
    titles = {name: run.title for name, run in table.runs.items()}
    tested = {name for pair in table.pairs for name in (pair.a, pair.b)}
    first = [row for row in table.rows if not row.samples]
    first = [row for row in first if row.run in tested] or first  # not of an export
    best = max(first, key=lambda row: row.accuracy).run
    body = []
    for pair in table.pairs:
        if best in (pair.a, pair.b):
            first = pair.a == best
            only = (pair.only_a, pair.only_b) if first else (pair.only_b, pair.only_a)
            body.append(
                [
                    word(titles[pair.b if first else pair.a]),
                    number(100 * abs(pair.difference), ".2f"),
                    *(number(count, "d") for count in only),
                    likelihood(pair.p),
                    likelihood(pair.p_holm),
                ]
            )
    body.sort(key=lambda row: row[1].key)
    note = (
        "McNemar's exact test on the same images. The last column is corrected (Holm) "
        f"for {len(table.pairs)} comparisons, those of pairs.csv. The test tells "
        "nothing of the spread between seeds."
    )
    head = ["run", "points behind", "right only in the best", "right only in this run"]
    head += ["p", "p, corrected"]
    return Section(
        f"Single networks against the most accurate, {titles[best]}",
        note,
        head,
        body,
        folded=True,
    )


SPEED = ("parameters", "training, s", "trained on", "one image, ms",
         "images a second, by 256")  # fmt: skip
ON_SPEED = (
    "Median times of what is served, in float32, on the machine of this comparison."
)


def speed_of(run: Trained, timing: Timing | None) -> list[Cell]:
    """The columns `SPEED` of a run."""
    return [
        number(run.parameters, ",d"),
        number(run.train_seconds, ",.0f"),
        word(f"{run.device.kind} {run.device.name}"),
        number(timing and timing.latency_ms, ".2f"),
        number(timing and timing.images_per_second, ",.0f"),
    ]


def speed(table: Table, results: Results) -> Section:
    body = [
        [word(run.title), *speed_of(run, results.timings.runs.get(name))]
        for name, run in table.runs.items()
    ]
    return Section("Size and speed", ON_SPEED, ["run", *SPEED], body)
