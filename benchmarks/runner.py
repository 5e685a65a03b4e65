"""What every benchmark goes through: its options, its result, and what it writes."""

from __future__ import annotations

import json
import os
import platform
import shlex
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonargparse
import matplotlib.figure

from pipelines import draw_png, publishing
from pipelines.commands import command as ending
from pipelines.markdown import table as table
from pipelines.options import parse
from pipelines.provenance import all_cores, provenance


def command(
    name: str,
    measured: Callable[..., dict],
    page: Callable[[dict], Sequence[str]],
    plot: Callable[[dict], matplotlib.figure.Figure],
) -> Callable:
    """Makes the command of a benchmark.

    Args:
        name: Of its module, and of the files that it writes.
        measured: Measures. Its parameters are the command's options, and what it
            returns is added to the result.
        page: From the result to its page in Markdown, as `markdown` takes it.
        plot: From the result to the figure.
    """

    @ending
    def main(argv: Sequence[str] | None = None) -> int:
        options = parser(name, measured)
        given = parse(options, argv)
        result = begun(options, given)
        folder = given.pop("out")
        result |= measured(**given.as_dict())
        publish(folder, name, result, markdown(result, page(result)), plot(result))
        return 0

    return main


def parser(name: str, measured: Callable[..., dict]) -> jsonargparse.ArgumentParser:
    """A parser of a benchmark's options, which are the parameters of a function."""
    options = jsonargparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}", exit_on_error=False
    )
    options.add_function_arguments(measured)
    options.add_argument("--out", type=Path, default="results/benchmarks")
    return options


def begun(parser: jsonargparse.ArgumentParser, given: jsonargparse.Namespace) -> dict:
    """What a result begins with: its command, with options, and the idle machine."""
    options, usual = (
        json.loads(json.dumps(space.as_dict(), default=str))
        for space in (given, parser.get_defaults())
    )
    del options["out"]
    words = {k: v if isinstance(v, str) else json.dumps(v) for k, v in options.items()}
    told = [
        f"--{name} {shlex.quote(words[name])}"
        for name in options
        if options[name] != usual[name]
    ]
    return {"made_by": " ".join([parser.prog, *told]), "machine": machine(), **options}


def machine() -> dict:
    """The machine and the versions that times belong to."""
    source = provenance()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":")[1].strip() for line in lines if "model name" in line]
    optional = ("torch", "onnxruntime", "tensorflow_probability")
    others = [name for name in optional if find_spec(name)]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": len(all_cores()),
        "load_before": round(os.getloadavg()[0], 2),
        "versions": source["versions"] | {name: version(name) for name in others},
        "commit": source["commit"],
        "device": source["device"],
    }


def publish(
    folder: Path, name: str, result: dict, markdown: str, plot: matplotlib.figure.Figure
):
    """Writes a result as JSON, Markdown and plot, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    writers = {
        "json": lambda path: path.write_text(json.dumps(result, indent=1) + "\n"),
        "md": lambda path: path.write_text(markdown, "utf-8"),
        "png": lambda path: draw_png.save(plot, path),
    }
    for suffix, write in writers.items():
        with publishing.whole(folder / f"{name}.{suffix}") as partial:
            write(partial)
    print(f"next: read {folder / name}.md")


def markdown(result: dict, page: Sequence[str]) -> str:
    """The text of a page.

    Args:
        result: Its command and machine are put before the page's conditions.
        page: The title, the conditions of the measurement, then further paragraphs.
    """
    machine, (title, conditions, *paragraphs) = result["machine"], page
    versions = ", ".join(f"{k} {v}" for k, v in machine["versions"].items())
    source = (
        f"`{result['made_by']}`, on {machine['cores']} cores of "
        f"{machine['processor']}; {versions}; commit {machine['commit']}; load before "
        f"the first measurement {machine['load_before']}."
    )
    return "\n\n".join([title, f"{source} {conditions}", *paragraphs]) + "\n"


def ratio(row: dict, name: str, words: str = ".2f") -> str:
    """A ratio as `measure.ratio` gives it: the median, and the range over rounds."""
    return with_range(row[name], row[f"{name}, from"], row[f"{name}, to"], words)


def apart(row: dict, reference: dict, words: str = ".2f") -> str:
    """How many times as long a side takes as another, each timed by itself.

    Returns:
        The ratio of the medians, and from its fastest round to the other's slowest up
        to its slowest to the other's fastest; of a side to itself, 1.
    """
    if row is reference:
        return format(1, words)
    low, high = (
        row[mine] / reference[other]
        for mine, other in (("fastest", "slowest"), ("slowest", "fastest"))
    )
    return with_range(row["seconds"] / reference["seconds"], low, high, words)


def with_range(middle: float, low: float, high: float, words: str) -> str:
    """A number with its range in brackets, all three in one format."""
    return f"{middle:{words}} ({low:{words}} to {high:{words}})"


def times_by_classes(rows: Iterable[dict], key: str, name_of_ratio: str) -> list[dict]:
    """Of each name, milliseconds by the number of classes, and a ratio."""
    return [
        {"": name}
        | {
            f"{row['classes']:,}": (
                f"{1000 * row['seconds']:.3g}; {ratio(row, name_of_ratio)}"
            )
            for row in found
        }
        for name, found in by(key, rows).items()
    ]


def by(key: str, rows: Iterable[dict]) -> dict[Any, list[dict]]:
    """Rows by their value of a key, in the order in which the values occur."""
    groups = {}
    for row in rows:
        groups.setdefault(row[key], []).append(row)
    return groups
