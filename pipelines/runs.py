"""Runs as they lie on disk: what they say of themselves, and what to call them."""

from __future__ import annotations

import csv
import dataclasses
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipelines import saved_model
from pipelines.config import Annealing, Config
from pipelines.errors import InputError

FACTS = (
    "dataset",
    "parameters",
    "policy",
    "wall_seconds",
    "resumed_at_epoch",
    "device",
)


class Run(NamedTuple):
    """A run that ended: its name, its folder, and what it says of itself."""

    name: str
    path: Path
    config: Config
    record: dict[str, Any]


def read(paths: Iterable[Path]) -> list[Run]:
    """Reads what runs say of themselves, each folder once, in the order of names.

    Raises:
        InputError: If there are none, or a folder holds no run of this version.
    """
    folders = sorted({path.resolve() for path in paths if not path.is_file()})
    if not folders:
        raise InputError("There are no runs to compare; `python -m pipelines.train` "
                         "makes one.")  # fmt: skip
    root = os.path.commonpath([folder.parent for folder in folders])
    count = Counter(folder.name for folder in folders)
    runs = []
    for folder in folders:
        record = saved_model.read_record(folder)
        try:
            fields = dict(record["config"])
            if isinstance(fields["temperature"], dict):
                fields["temperature"] = Annealing(**fields["temperature"])
            config = Config(**fields)
            for name in FACTS:
                record[name]
        except (KeyError, TypeError) as error:
            raise InputError(
                f"The run {folder} is of another version: {error}. Train it anew."
            ) from error
        alone = count[folder.name] == 1
        name = folder.name if alone else folder.relative_to(root).as_posix()
        runs.append(Run(name, folder, config, record))
    return runs


def comparable(runs: Sequence[Run]) -> list[list[Run]]:
    """Parts runs into those on the same images with the same labels."""
    groups = defaultdict(list)
    for run in runs:
        dataset = run.record["dataset"]
        groups[dataset["name"], run.config.label, dataset["checksum"]].append(run)
    return list(groups.values())


def read_history(path: Path) -> dict[str, list[float]]:
    """The columns of a run's history, one number an epoch.

    Raises:
        InputError: If there is none.
    """
    try:
        text = (path / saved_model.EXTRA / "history.csv").read_text("utf-8")
        rows = list(csv.DictReader(text.splitlines()))
        return {name: [float(row[name]) for row in rows] for name in rows[0]}
    except (OSError, IndexError, TypeError, ValueError) as error:
        raise InputError(f"The history of the run {path} is damaged.") from error


def training_seconds(record: dict) -> float | None:
    """How long a run took; not known of one that was stopped and resumed."""
    return None if record["resumed_at_epoch"] else record["wall_seconds"]


def headings(runs: Sequence[Run]) -> list[str]:
    """The runs' titles; those of the same config are told apart by their names."""
    made = titles([run.config for run in runs])
    return [
        title if made.count(title) == 1 else f"{title}, {run.name}"
        for run, title in zip(runs, made, strict=True)
    ]


def titles(configs: Sequence[Config]) -> list[str]:
    """Names configs by their head, temperature, and what differs among them.

    Of what differs, a default goes without saying, but for the loss and the seed.
    """
    differing = [
        field
        for field in dataclasses.fields(Config)
        if field.name not in {"head", "temperature"}
        and len({getattr(config, field.name) for config in configs}) > 1
    ]

    def title(config):
        parts = [config.head]
        match config.temperature:
            case Annealing(kind, start, end):
                parts[0] += f" t {start:g} to {end:g} {kind}"
            case float() | int() as temperature:
                parts[0] += f" t {temperature:g}"
            case "learned":
                parts[0] += " t learned"
        for field in differing:
            value = getattr(config, field.name)
            default = getattr(config.defaults, field.name)
            if value != default or field.name in {"loss", "seed"}:
                words = field.name.replace("_", " ")
                parts.append(value if isinstance(value, str) else f"{words} {value:g}")
        return ", ".join(parts)

    return [title(config) for config in configs]
