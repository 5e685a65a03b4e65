"""The comparison's tables: what they show, in which words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from pipelines.metrics import METRICS, percent


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


class Column(NamedTuple):
    """A column of the main table: where its number is in a row, and how it reads."""

    heading: str
    part: str
    name: str
    words: Callable[[float], str]


def all_columns() -> list[Column]:
    """A column for each metric, and one more where scaling changes it."""
    return [
        *(Column(m.heading, "metrics", name, m.words) for name, m in METRICS.items()),
        *(
            Column(f"{m.heading}, scaled", "calibrated", name, m.words)
            for name, m in METRICS.items()
            if m.calibration
        ),
    ]


INTERVALS = {"metrics": "intervals", "calibrated": "calibrated_intervals"}


def sections(table: dict) -> list[Section]:
    """The tables to show, those with nothing in them left out."""
    made = (_reported, _results, _seeds, _pairs, _speed)
    return [section for make in made if (section := make(table)).body]


def word(text: str) -> Cell:
    return Cell(text, text)


def number(value: float | None, words: str) -> Cell:
    return Cell("", -1) if value is None else Cell(format(value, words), value)


def likelihood(p: float) -> Cell:
    return Cell(f"{p:.3g}" if p else "below 1e-300", p)


def told(row: dict, column: Column) -> bool:
    """Whether a column says something of a row, or of a group of seeds."""
    uncalibrated = row.get("scores") and column.part == "metrics"
    return not (uncalibrated and METRICS[column.name].calibration)


def _results(table: dict) -> Section:
    rows = sorted(table["rows"], key=lambda row: -row["metrics"]["accuracy"])
    columns = [c for c in all_columns() if c.name in rows[0][c.part]]

    def cell(row, column):
        if not told(row, column):
            return number(None, "")
        value = row[column.part][column.name]
        if column.name not in row[INTERVALS[column.part]]:
            return Cell(column.words(value), value)
        low, high = row[INTERVALS[column.part]][column.name]
        bounds = f"{column.words(low)} to {column.words(high)}".replace(" % to", " to")
        return Cell(column.words(value), value, bounds)

    body = [
        [
            word(row["title"]),
            *(cell(row, column) for column in columns),
            number(row["temperature"], ".3f"),
        ]
        for row in rows
    ]
    head = ["run", *(column.heading for column in columns), "scaling temperature"]
    note = (
        "Heads that put out scores have no probabilities until they are scaled."
        if any(row.get("scores") for row in rows)
        else ""
    )
    return Section("Results", note, head, body)


def _reported(table: dict) -> Section:
    """Our figures beside those reported elsewhere, and beside the matched loss."""
    runs = {name: run for name, run in table["runs"].items() if run["reported"]}
    ours = {row["run"]: row["metrics"] for row in table["rows"] if not row["samples"]}
    columns = [
        column
        for column in all_columns()
        if column.part == "metrics"
        and any(column.name in run["reported"] for run in runs.values())
    ]

    def theirs(value, column):
        if isinstance(value, float | int):
            return Cell(column.words(value), value)
        return Cell(value or "", -1)

    def matched(run):
        twin = run["config"] | {"loss": "matched"}
        for name, other in table["runs"].items():
            if other["config"] == twin:
                return Cell(percent(ours[name]["accuracy"]), ours[name]["accuracy"])
        return Cell("", -1)

    body = [
        [
            word(run["reported"].get("row", "")),
            word(run["title"]),
            *(
                cell
                for column in columns
                for cell in (
                    theirs(run["reported"].get(column.name), column),
                    Cell(
                        column.words(ours[name][column.name]), ours[name][column.name]
                    ),
                )
            ),
            matched(run),
        ]
        for name, run in runs.items()
    ]
    head = ["reported row", "our run"]
    for column in columns:
        head += [f"{column.heading}, reported", f"{column.heading}, ours"]
    note = (
        "Ours is the same protocol; the last column is our accuracy of the same run "
        "with the loss that matches its head."
    )
    head.append("accuracy, matched loss")
    return Section("Beside the reported figures", note, head, body)


def _seeds(table: dict) -> Section:
    def cell(group, column):
        if not told(group, column):
            return number(None, "")
        spread = group[column.part][column.name]
        mean, std = column.words(spread["mean"]), column.words(spread["std"])
        return Cell(f"{mean} ± {std}".replace(" % ±", " ±"), spread["mean"])

    groups = table["seeds"]
    columns = [c for c in all_columns() if groups and c.name in groups[0][c.part]]
    body = [
        [
            word(group["title"]),
            number(len(group["runs"]), "d"),
            *(cell(group, column) for column in columns),
        ]
        for group in groups
    ]
    note = "Mean ± standard deviation of runs that differ by their seed alone."
    head = ["run", "seeds", *(column.heading for column in columns)]
    return Section("Over seeds", note, head, body)


def _pairs(table: dict) -> Section:
    titles = {name: run["title"] for name, run in table["runs"].items()}
    best = max(
        (row for row in table["rows"] if not row["samples"]),
        key=lambda row: row["metrics"]["accuracy"],
    )["run"]
    body = []
    for pair in table["pairs"]:
        if best in (pair["a"], pair["b"]):
            side, other = ("a", "b") if pair["a"] == best else ("b", "a")
            body.append(
                [
                    word(titles[pair[other]]),
                    number(100 * abs(pair["difference"]), ".2f"),
                    number(pair[f"only_{side}"], "d"),
                    number(pair[f"only_{other}"], "d"),
                    likelihood(pair["p"]),
                    likelihood(pair["p_holm"]),
                ]
            )
    body.sort(key=lambda row: row[1].key)
    note = (
        "McNemar's exact test on the same images. The last column is corrected (Holm) "
        f"for {len(table['pairs'])} comparisons, those of pairs.csv. The test tells "
        "nothing of the spread between seeds."
    )
    head = ["run", "points behind", "right only in the best", "right only in this run"]
    head += ["p", "p, corrected"]
    return Section(f"Against the most accurate, {titles[best]}", note, head, body)


def _speed(table: dict) -> Section:
    body = []
    for run in table["runs"].values():
        timing = run["timing"] or {}
        body.append(
            [
                word(run["title"]),
                number(run["parameters"], ",d"),
                number(run["train_seconds"], ",.0f"),
                word(f"{run['device']['kind']} {run['device']['name']}"),
                number(timing.get("latency_ms"), ".2f"),
                number(timing.get("images_per_second"), ",.0f"),
            ]
        )
    note = (
        "Median times of the SavedModel, in float32, on the machine of this comparison."
    )
    head = ["run", "parameters", "training, s", "trained on", "one image, ms"]
    head.append("images a second, by 256")
    return Section("Size and speed", note, head, body)
