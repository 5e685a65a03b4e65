"""What is kept of a training after each epoch, so that it can go on."""

from __future__ import annotations

import csv
import zipfile
from pathlib import Path

import keras
import numpy as np

from pipelines import publishing
from pipelines.errors import InputError, one_line


class Progress(keras.callbacks.Callback):
    """Keeps the state of the last epoch: weights, optimiser, and random generators.

    `keras.callbacks.BackupAndRestore` leaves out the generators of noise, without
    which a resumed run is another run. TensorFlow's checkpoints cannot be read from a
    path with brackets.
    """

    def __init__(self, file: Path, model: keras.Model):
        super().__init__()
        self.file = file
        self.epochs = 0
        # In their order, for names are counted through a process and may be shared.
        known = {id(v): v for v in [*model.variables, *model.optimizer.variables]}
        self.state = list(known.values())

    def restore(self) -> int:
        """Restores the state, if there is one. Returns the number of epochs done."""
        if self.file.exists():
            try:
                with np.load(self.file) as kept:
                    for number, variable in enumerate(self.state):
                        variable.assign(kept[str(number)])
                    self.epochs = int(kept["epochs"])
            except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
                raise InputError(
                    f"The stopped run in {self.file.parent} is damaged "
                    f"({one_line(error)}); --overwrite starts anew."
                ) from error
        return self.epochs

    def on_epoch_end(self, epoch, logs=None):
        self.epochs = epoch + 1
        values = {str(i): variable.numpy() for i, variable in enumerate(self.state)}
        with publishing.whole(self.file) as partial, partial.open("wb") as file:
            np.savez(file, epochs=self.epochs, **values)


def trim(history: Path, epochs: int):
    """Drops the rows of an epoch that was logged but not kept."""
    if history.exists():
        lines = history.read_bytes().splitlines(keepends=True)
        with publishing.whole(history) as partial:
            partial.write_bytes(b"".join(lines[: epochs + 1] if epochs else []))


def last_loss(history: Path) -> float:
    with history.open(encoding="utf-8") as file:
        return float(list(csv.DictReader(file))[-1]["loss"])
