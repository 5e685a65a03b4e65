"""A comparison as files: `python -m pipelines.report results/NAME` makes them again.

Kept are `comparison.json`, `timings.json`, `confusion.npz` and `outcomes/`, what became
of each image. Made of them are CSV, Markdown, PNG and one self-contained page.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import jsonargparse
import numpy as np
import plotly.offline

from pipelines import figures, metrics
from pipelines.config import command, parse
from pipelines.errors import InputError
from pipelines.tables import INTERVALS, Cell, sections

FORMAT = 1  # of what is kept
DAMAGE = (OSError, ValueError, LookupError, TypeError, AttributeError, EOFError,
          zipfile.BadZipFile, zlib.error)  # fmt: skip


def keep(comparison: dict, folder: Path):
    """Writes what a comparison is made of into a folder.

    Args:
        comparison: `command`, `commit`, `device`, `versions`, and `tables` as
            `evaluate.compare` makes them.
        folder: Where to.
    """
    tables = comparison["tables"]
    _write_json(folder / "comparison.json", plain(comparison) | {"format": FORMAT})
    timings = {
        name: run["timing"]
        for table in tables
        for name, run in table["runs"].items()
        if run["timing"]
    }
    _write_json(
        folder / "timings.json", {"device": comparison["device"], "runs": timings}
    )
    matrices = {
        f"table{number}": np.stack([row["confusion"] for row in table["rows"]])
        for number, table in enumerate(tables)
    }
    _write_arrays(folder / "confusion.npz", matrices)
    for table in tables:
        for row in table["rows"]:
            _write_arrays(folder / "outcomes" / f"{row['id']}.npz", row["outcomes"])


def read(folder: Path) -> dict:
    """Reads what a comparison is made of, but for the outcomes.

    Raises:
        InputError: If it is not there, damaged or of another version.
    """
    try:
        comparison = json.loads((folder / "comparison.json").read_text("utf-8"))
        found = comparison.pop("format", None)
        if found != FORMAT:
            raise InputError(
                f"The comparison in {folder} is of another version (its format is "
                f"{found}, this one's {FORMAT}); `python -m pipelines.evaluate` makes "
                "it anew from its runs."
            )
        timed = json.loads((folder / "timings.json").read_text("utf-8"))["runs"]
        # Opened here, for np.load leaves a damaged file open.
        confusion = folder / "confusion.npz"
        with confusion.open("rb") as file, np.load(file) as matrices:
            for number, table in enumerate(comparison["tables"]):
                kept = matrices[f"table{number}"].astype("int64")
                for row, matrix in zip(table["rows"], kept, strict=True):
                    right = np.trace(matrix) / matrix.sum()
                    if not np.isclose(right, row["metrics"]["accuracy"]):
                        raise ValueError("confusion.npz is of another comparison")
                    row["confusion"] = matrix
                for name, run in table["runs"].items():
                    run["timing"] = timed.get(name)
    except FileNotFoundError as error:
        raise InputError(
            f"There is no comparison in {folder} ({Path(error.filename).name} is "
            "missing); `python -m pipelines.evaluate` makes one."
        ) from error
    except InputError:
        raise
    except DAMAGE as error:
        raise InputError(f"The comparison in {folder} is damaged: {error}") from error
    return comparison


def read_outcomes(file: Path) -> dict[str, np.ndarray]:
    """What became of each image in a row of a table, as `metrics.outcomes` has it."""
    with np.load(file) as kept:
        return {
            name: kept[name].astype("float64" if kept[name].dtype.kind == "f" else int)
            for name in kept.files
        }


def write(comparison: dict, folder: Path):
    """Writes what is made of a comparison into an empty folder."""
    tables = comparison["tables"]
    plots = folder / "plots"
    plots.mkdir()
    for table, prefix in zip(tables, prefixes(tables), strict=True):
        figures.save(table, plots, prefix)
    _write_csv(folder / "comparison.csv", [r for t in tables for r in flat_rows(t)])
    _write_csv(folder / "classes.csv", [r for t in tables for r in flat_classes(t)])
    _write_csv(folder / "pairs.csv", [p for t in tables for p in t["pairs"]])
    (folder / "comparison.md").write_text(markdown(comparison), "utf-8")
    (folder / "comparison.html").write_text(page(comparison), "utf-8")


def workplace(out: Path, kind: str = "partial") -> Path:
    """An empty folder beside another, in which to make what goes there."""
    work = out.with_name(f".{out.name}.{kind}")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    return work


def publish(work: Path, out: Path):
    """Moves each entry of a finished folder into its place."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".replaced-", dir=out) as replaced:
        for entry in sorted(work.iterdir()):
            if entry.is_dir() and (out / entry.name).exists():
                (out / entry.name).rename(Path(replaced, entry.name))
            entry.replace(out / entry.name)
    work.rmdir()


def plain(comparison: dict) -> dict:
    """The comparison without its arrays and timings: same input, same bytes."""

    def without(item: dict, *names: str) -> dict:
        return {key: value for key, value in item.items() if key not in names}

    return comparison | {
        "tables": [
            table
            | {
                "rows": [without(r, "confusion", "outcomes") for r in table["rows"]],
                "runs": {n: without(r, "timing") for n, r in table["runs"].items()},
            }
            for table in comparison["tables"]
        ]
    }


def prefixes(tables: Iterable[dict]) -> list[str]:
    """A name for each table that can stand in a file's name."""
    made = []
    for table in tables:
        dataset = table["dataset"]
        name = Path(dataset["name"].replace("folder:", "")).name
        name = re.sub(r"\W+", "-", f"{name}-{dataset['label']}")
        made.append(name if name not in made else f"{name}-{dataset['checksum'][:8]}")
    return made


def flat_rows(table: dict) -> list[dict]:
    """The rows of a table, one flat mapping each."""
    flat = []
    for row in table["rows"]:
        run = table["runs"][row["run"]]
        numbers = {}
        for part, intervals in INTERVALS.items():
            prefix = "" if part == "metrics" else "scaled_"
            for name, value in row[part].items():
                numbers[prefix + name] = value
                if name in row[intervals]:
                    low, high = row[intervals][name]
                    numbers |= {
                        f"{prefix}{name}_low": low,
                        f"{prefix}{name}_high": high,
                    }
        flat.append(
            {
                "dataset": table["dataset"]["name"],
                "label": table["dataset"]["label"],
                "run": row["run"],
                "samples": row["samples"],
                **{
                    name: run["config"][name]
                    for name in ("head", "temperature", "loss", "backbone", "width")
                    + ("epochs", "seed")
                },
                **numbers,
                "scaling_temperature": row["temperature"],
                "parameters": run["parameters"],
            }
        )
    return flat


def flat_classes(table: dict) -> list[dict]:
    return [
        {
            "dataset": table["dataset"]["name"],
            "label": table["dataset"]["label"],
            "run": row["run"],
            "samples": row["samples"],
            **line,
        }
        for row in table["rows"]
        for line in class_lines(row, table["class_names"])
    ]


def class_lines(row: dict, names: Sequence[str]) -> list[dict]:
    """Of each class: its metrics, and what it is most often taken for."""
    matrix = row["confusion"]
    errors = matrix - np.diag(np.diag(matrix))
    columns = metrics.by_class(matrix)
    return [
        {
            "class": names[i],
            **{name: column[i].item() for name, column in columns.items()},
            "taken_for": names[errors[i].argmax()] if errors[i].any() else "",
            "times": int(errors[i].max()),
        }
        for i in range(len(names))
    ]


def markdown(comparison: dict) -> str:
    """The comparison as Markdown."""
    lines = ["# Comparison", "", f"`{comparison['command']}`", ""]
    lines += [made_with(comparison), ""]
    tables = comparison["tables"]
    for table, prefix in zip(tables, prefixes(tables), strict=True):
        lines += [f"## {heading(table)}", "", explanation(table), ""]
        for caption, note, head, body in sections(table):
            lines += [f"### {caption}", ""]
            lines += [note, ""] if note else []
            lines += ["| " + " | ".join(head) + " |"]
            lines += ["|---" * len(head) + "|"]
            lines += ["| " + " | ".join(map(_in_markdown, row)) + " |" for row in body]
            lines += [""]
        rows = figures.drawn(table)
        if len(rows) < len(table["rows"]):
            note = (
                f"The plots show {len(rows)} of {len(table['rows'])} rows, from the "
                "least to the most accurate; the page has all."
            )
            lines += [note, ""]
        shown = [table["runs"][row["run"]] for row in rows]
        logged = {name for run in shown for name in run["history"]}
        names = ["test_accuracy", "reliability"]
        names += [name for name in ("val_accuracy", "val_loss") if name in logged]
        names += ["temperature"] * bool(figures.temperatures(table))
        for name in names:
            lines += [f"![{name}](plots/{prefix}-{name}.png)", ""]
    return "\n".join(lines)


def _in_markdown(cell: Cell) -> str:
    text = f"{cell.text} ({cell.note})" if cell.note else cell.text
    return text.replace("|", "\\|")


def made_with(comparison: dict) -> str:
    versions = ", ".join(f"{k} {v}" for k, v in comparison["versions"].items())
    device = comparison["device"]
    commit = re.sub(r"^(\w{12})\w+", r"\1", comparison["commit"] or "unknown")
    return (
        f"Commit {commit}; {versions}; "
        f"{device['kind']} {device['name']}, {device['cores']} cores."
    )


def heading(table: dict) -> str:
    dataset = table["dataset"]
    return f"{dataset['name']}, {len(table['class_names'])} classes"


def explanation(table: dict) -> str:
    dataset = table["dataset"]
    return (
        f"On {dataset['test']:,} test images (SHA-256 of the data set "
        f"{dataset['checksum'][:12]}). In brackets 95 % intervals, by bootstrap over "
        "the test images: they tell nothing of the spread between seeds. Precision, "
        "recall and F1 are macro-averaged. ECE has 15 bins, and no interval because "
        "resampling inflates it. 'Scaled' is after temperature scaling, at the "
        "temperature that fits the "
        f"{dataset['validation']:,} validation images best. '16 samples' "
        "averages the probabilities of 16 noisy draws."
        + (
            " 'superclasses' counts a prediction as right if its superclass is."
            if table["superclasses"]
            else ""
        )
    )


def page(comparison: dict) -> str:
    """The comparison as one HTML page that needs nothing else."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    tables = [
        {
            "id": f"table{number}",
            "heading": heading(table),
            "explanation": explanation(table),
            "sections": sections(table),
            "titles": [row["title"] for row in table["rows"]],
            "figures": figures.figures(table),
            "classes": {
                row["title"]: [
                    list(line.values())
                    for line in class_lines(row, table["class_names"])
                ]
                for row in table["rows"]
            },
        }
        for number, table in enumerate(comparison["tables"], start=1)
    ]
    return environment.get_template("report.html").render(
        command=comparison["command"],
        made_with=made_with(comparison),
        tables=tables,
        plotly=plotly.offline.get_plotlyjs(),
    )


def _write_json(path: Path, content: Any):
    text = json.dumps(content, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", "utf-8")


def _write_csv(path: Path, rows: Sequence[dict]):
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _write_arrays(path: Path, arrays: Mapping[str, np.ndarray]):
    """Writes arrays compressed, each in a type no larger than its numbers need."""
    path.parent.mkdir(parents=True, exist_ok=True)

    def small(array):
        kind = "float32" if array.dtype.kind == "f" else np.min_scalar_type(array.max())
        return array.astype(kind)

    given: Any = {name: small(array) for name, array in arrays.items()}
    np.savez_compressed(path, **given)


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = jsonargparse.ArgumentParser(
        prog="python -m pipelines.report",
        description="Makes a comparison's CSV, Markdown, PNG and page again.",
        exit_on_error=False,
    )
    parser.add_argument("folder", type=Path, help="A folder of results/.")
    given = parse(parser, argv)
    folder = given.folder.resolve()
    comparison = read(folder)
    work = workplace(folder, "report")
    try:
        write(comparison, work)
    except DAMAGE as error:
        shutil.rmtree(work)
        raise InputError(f"The comparison in {folder} is damaged: {error}") from error
    publish(work, folder)
    print(f"next: open {given.folder / 'comparison.html'} in a browser")
    return 0


if __name__ == "__main__":
    main()
