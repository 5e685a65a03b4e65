"""A run's folder: its files, what it says of itself, and where it stands.

A finished run is a TensorFlow SavedModel whose `assets.extra` holds the run's own
files. While it is trained, `publishing.partial` holds the state of its last epoch.
"""

from __future__ import annotations

import csv
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from pipelines import publishing, typed_json
from pipelines.config import Config
from pipelines.errors import InputError, brief
from pipelines.typed_json import record

EXTRA = "assets.extra"
CONFIG = "config.yaml"
HISTORY = "history.csv"
TENSORBOARD = "tensorboard"
MODEL = "model.keras"
RECORD = "run.json"
STATE = "state.npz"  # of the last epoch, in the partial folder


@record
class TrainedOn:
    """The data set of a run: its name, its SHA-256, how many images and classes."""

    name: str
    checksum: str
    train: int
    validation: int
    test: int
    classes: int


@record
class Device:
    """What a number was measured on."""

    kind: str
    name: str | None
    cores: int | None


@record
class Record:
    """What a run says of itself."""

    config: Config
    metrics: dict[str, float]
    dataset: TrainedOn
    parameters: int
    policy: str
    wall_seconds: float
    resumed_at_epoch: int
    versions: dict[str, str]
    commit: str | None
    device: Device
    outputs: str = "probabilities"

    @property
    def training_seconds(self) -> float | None:
        """How long it took; not known of a run that was stopped and resumed."""
        return None if self.resumed_at_epoch else self.wall_seconds


class Run(NamedTuple):
    """A run that ended: its name, its folder, and what it says of itself."""

    name: str
    path: Path
    record: Record

    @property
    def config(self) -> Config:
        return self.record.config


def find(paths: Iterable[Path]) -> list[Run]:
    """Reads what runs say of themselves, each folder once, in the order of names.

    Folders that hold no run are left out, with a line that says so.

    Raises:
        InputError: If there are no runs, or one is damaged or of another version.
    """
    folders, foreign = [], []
    for path in sorted({path.resolve() for path in paths if not path.is_file()}):
        if (path / EXTRA / RECORD).is_file():
            folders.append(path)
        else:
            foreign.append(path)
    if not folders and foreign:
        raise no_run(foreign[0])
    if not folders:
        raise InputError("There are no runs to compare; `python -m pipelines.train` "
                         "makes one.")  # fmt: skip
    for path in foreign:
        print(f"skipped: there is no run in {brief(path, 300)}", file=sys.stderr)
    root = os.path.commonpath([folder.parent for folder in folders])
    count = Counter(folder.name for folder in folders)
    runs = []
    for folder in folders:
        alone = count[folder.name] == 1
        name = folder.name if alone else folder.relative_to(root).as_posix()
        runs.append(Run(name, folder, read_record(folder)))
    return runs


def read_record(path: Path) -> Record:
    """Reads what a run says of itself.

    Raises:
        InputError: If the folder holds no run, or one of another version.
    """
    try:
        text = (path / EXTRA / RECORD).read_bytes()
    except OSError as error:
        raise no_run(path) from error
    try:
        return typed_json.parse(Record, text)
    except ValueError as error:
        raise InputError(
            f"The run {path} is damaged or of another version ({error}); train it anew."
        ) from error


def no_run(path: Path) -> InputError:
    """What is said of a folder that holds no run."""
    return InputError(
        f"There is no run in {path}; `python -m pipelines.train` makes one."
    )


def read_history(path: Path) -> dict[str, list[float]]:
    """The columns of a run's history, one number an epoch.

    Raises:
        InputError: If there is none.
    """
    try:
        with (path / EXTRA / HISTORY).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return {name: [float(row[name]) for row in rows] for name in rows[0]}
    except (OSError, IndexError, TypeError, ValueError, csv.Error) as error:
        raise InputError(f"The history of the run {path} is damaged.") from error


def standing(path: Path, config: Config) -> str:
    """Where a run stands: `there`, `stopped`, `other` (in its place), or `new`."""
    if publishing.finished(path).exists():
        return "stopped"
    if path.exists():
        try:
            return "there" if read_record(path).config == config else "other"
        except InputError:
            return "other"
    return "stopped" if is_stopped(path) else "new"


def is_stopped(path: Path) -> bool:
    """Whether training was stopped and can go on."""
    return (publishing.partial(path) / CONFIG).exists()


def check_free(path: Path, config: Config, resume: bool, overwrite: bool):
    """Refuses to train over what is there, unless it was asked for.

    Raises:
        InputError: What is there, and the way out.
    """
    if overwrite:
        return
    if not is_stopped(path):
        if path.exists():
            raise InputError(f"{path} is there already; --overwrite replaces it.")
        if resume:
            raise InputError(
                f"There is no stopped run {path.name} in {path.parent}; without "
                "--resume it starts."
            )
        return
    work = publishing.partial(path)
    if not resume:
        raise InputError(
            f"A stopped run is in {work}; --resume goes on, --overwrite starts anew."
        )
    if (work / CONFIG).read_bytes() != config.to_yaml().encode():
        raise InputError(
            f"The stopped run in {work} has another config; --overwrite starts anew."
        )


def collect(path: Path, facts: Record):
    """Adds a run's own files to its SavedModel in the partial folder, and publishes."""
    work = publishing.partial(path)
    extra = work / "new" / EXTRA
    for name in (CONFIG, HISTORY):
        shutil.copyfile(work / name, extra / name)
    shutil.copytree(work / TENSORBOARD, extra / TENSORBOARD)
    typed_json.write(extra / RECORD, facts)
    publishing.publish(path)
