"""A comparison as files: CSV, Markdown, PNG and one self-contained page.

They are made of what `keeping` reads.
"""

from __future__ import annotations

import csv
import html
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from pipelines import (
    draw_png,
    merging,
    metrics,
    page,
    plots,
    publishing,
    robustness_tables,
    tables,
    wording,
)
from pipelines.comparison import Results, Row, Table
from pipelines.errors import InputError
from pipelines.experiment import Experiment
from pipelines.keeping import DAMAGE, keep, read
from pipelines.tables import Cell, Section

SHOWN_CURVES = ("val_accuracy", "val_classes_predicted")  # in Markdown


def write(results: Results, folder: Path):
    """Writes what is made of a comparison into a folder without it."""
    every = results.comparison.tables
    (folder / "plots").mkdir()
    for table, prefix in zip(every, prefixes(every), strict=True):
        draw_png.save_all(table, results, folder / "plots", prefix)
    _write_csv(folder / "comparison.csv", [r for t in every for r in flat_rows(t)])
    _write_csv(
        folder / "classes.csv", [r for t in every for r in flat_classes(t, results)]
    )
    _write_csv(folder / "pairs.csv", [vars(p) for t in every for p in t.pairs])
    _write_csv(folder / "contrasts.csv", [r for t in every for r in flat_contrasts(t)])
    (folder / "comparison.md").write_text(markdown(results), "utf-8")
    (folder / "comparison.html").write_text(page.render(results), "utf-8")


def check_place(out: Path):
    """Refuses a place that no comparison can take.

    Raises:
        InputError: If it is a file, or the folder in which the command runs or which
            holds that one: the whole folder is replaced by the new one.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; name a folder.")
    if Path.cwd().is_relative_to(out):
        raise InputError(f"{out} is not a folder of its own; name one inside it.")


def publish(out: Path):
    """Puts a new comparison into its place, whole; what else lay there stays."""
    publishing.take_along(out, publishing.partial(out) / "new")
    publishing.publish(out)


def prefixes(tables: Iterable[Table]) -> list[str]:
    """A name for each table that can stand in a file's name."""
    names = []
    for table in tables:
        dataset = table.dataset
        name = Path(dataset.name.replace("folder:", "")).name
        name = re.sub(r"\W+", "-", f"{name}-{dataset.label}")
        names.append(name if name not in names else f"{name}-{dataset.checksum[:8]}")
    return names


def flat_rows(table: Table) -> list[dict]:
    """The rows of a table, one flat mapping each."""
    flat = []
    for row in table.rows:
        run = table.runs[row.run]
        numbers = {}
        for judgement, prefix in ((row.as_is, ""), (row.scaled, "scaled_")):
            for name, value in judgement.metrics.items():
                numbers[prefix + name] = value
                if name in judgement.intervals:
                    low, high = judgement.intervals[name]
                    numbers |= {
                        f"{prefix}{name}_low": low,
                        f"{prefix}{name}_high": high,
                    }
        options = ("head", "temperature", "loss", "backbone", "width", "epochs", "seed")
        flat.append(
            {
                **_whose(row, table),
                **{name: getattr(run.config, name) for name in options},
                **numbers,
                "scaling_temperature": row.temperature,
                "parameters": run.parameters,
            }
        )
    return flat


def flat_classes(table: Table, results: Results) -> list[dict]:
    """The classes of each row, one flat mapping each."""
    return [
        {**_whose(row, table), **line}
        for row in table.rows
        for line in metrics.class_lines(results.confusions[row.id], table.class_names)
    ]


def flat_contrasts(table: Table) -> list[dict]:
    """The contrasts of a table, one flat mapping each."""
    flat = []
    for contrast in table.contrasts:
        cells = vars(contrast) | {
            "runs_a": " ".join(contrast.runs_a),
            "runs_b": " ".join(contrast.runs_b),
        }
        low, high = cells.pop("interval") or ("", "")
        flat.append(cells | {"low": low, "high": high})
    return flat


def _whose(row: Row, table: Table) -> dict:
    return {
        "dataset": table.dataset.name,
        "label": table.dataset.label,
        "run": row.run,
        "samples": row.samples,
    }


def markdown(results: Results) -> str:
    """The comparison as Markdown."""
    comparison = results.comparison
    lines = ["# Comparison", ""]
    for made in comparison.made:
        lines += [f"`{made.command}`", "", wording.made_with(made), ""]
    every = comparison.tables
    for table, prefix in zip(every, prefixes(every), strict=True):
        lines += [f"## {_in_markdown(wording.heading(table))}", ""]
        lines += [wording.explanation(table), ""]
        for caption, note, head, body, _ in sections(table, results):
            lines += [f"### {_in_markdown(caption)}", ""]
            lines += [note, ""] if note else []
            lines += ["| " + " | ".join(head) + " |"]
            lines += ["|---" * len(head) + "|"]
            lines += ["| " + " | ".join(map(_cell, row)) + " |" for row in body]
            lines += [""]
        rows = plots.drawn(table.rows)
        if len(rows) < len(table.rows):
            note = (
                f"The plots show {len(rows)} of {len(table.rows)} rows, from the "
                "least to the most accurate; the page has all."
            )
            lines += [note, ""]
        logged = plots.logged(table.runs[row.run] for row in rows)
        names = ["test_accuracy", "reliability"]
        names += [name for name in SHOWN_CURVES if name in logged]
        names += ["by_temperature"] * bool(plots.temperatures(table))
        for name in names:
            lines += [f"![{name}](plots/{prefix}-{name}.png)", ""]
    return "\n".join(lines)


def sections(table: Table, results: Results) -> list[Section]:
    """The tables to show, those with nothing in them left out."""
    found = [
        tables.reported(table),
        tables.results_of(table),
        tables.seeds(table),
        tables.contrasts(table),
        *robustness_tables.shifted(table),
        robustness_tables.unfamiliar(table),
        tables.pairs(table),
        tables.speed(table, results),
    ]
    return [section for section in found if section.body]


def _cell(cell: Cell) -> str:
    return _in_markdown(f"{cell.text} ({cell.note})" if cell.note else cell.text)


def _in_markdown(text: str) -> str:
    """Text that a renderer shows as it is, on one line."""
    return " ".join(html.escape(text, quote=False).replace("|", "\\|").split())


def _write_csv(path: Path, rows: Sequence[dict]):
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({name: _in_csv(value) for name, value in row.items()})


def _in_csv(value):
    """A value that no spreadsheet takes for a formula."""
    formula = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t"))
    return f"'{value}" if formula else value


def remake(folder: Path):
    """Makes the files of a comparison again.

    Raises:
        InputError: If it is not there or damaged, or the place cannot be written.
    """
    check_place(folder)
    if not folder.exists() and not publishing.finished(folder).exists():
        read(folder)  # which says what is missing
    with publishing.claim(folder):
        results = read(folder)
        new = publishing.start(folder)
        try:
            write(results, new)
        except OSError:  # of the disk that is written, not of what was read
            raise
        except DAMAGE as error:
            shutil.rmtree(publishing.partial(folder))
            raise InputError(
                f"The comparison in {folder} is damaged: {error}"
            ) from error
        publish(folder)


def merge(folders: Sequence[Path], out: Path, described: Experiment | None):
    """Puts several comparisons into one.

    Raises:
        InputError: If one is not there or damaged, they have different figures of one
            run, or the place cannot be written.
    """
    check_place(out)
    parts = [read(folder, outcomes=True) for folder in folders]
    contrasts, margin = None, None
    if described:
        contrasts, margin = described.contrasts, described.margin
    results = merging.merge(parts, contrasts, margin)
    with publishing.claim(out):
        new = publishing.start(out)
        keep(results, new)
        write(results, new)
        publish(out)
