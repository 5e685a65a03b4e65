"""Searches the temperature: `python -m pipelines.tune --head log_gumbel_softmax`.

A trial is a run of `pipelines.train`, judged on the validation images at its last
epoch; the test images are not looked at. Keras Tuner proposes the trials and keeps
what is known of them. With its own environment variables it spreads them over
machines, see docs/many-machines.md.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras_tuner
import numpy as np
import yaml
from keras_tuner.engine.trial import Trial
from keras_tuner.src.engine.stateful import Stateful

from pipelines import (
    datasets,
    metrics,
    publishing,
    run_folder,
    saved_model,
    train,
    trials,
)
from pipelines.commands import command
from pipelines.config import (
    Config,
    config_of,
    parse,
    parser,
)
from pipelines.errors import InputError
from pipelines.metrics import METRICS
from pipelines.search import Search, config_of_trial, oracle_of
from pipelines.typed_json import write_text

# TensorFlow after pipelines, which keeps it quiet.
import tensorflow as tf  # isort: skip

CHIEF = "chief"
EPOCHS = 3


def _save(state: Stateful, file: str) -> str:
    """Saves what Keras Tuner knows, whole or not at all."""
    text = json.dumps(state.get_state())
    write_text(Path(file), text)
    return text


Stateful.save = _save  # its own empties the file first, which a full disk leaves so


class Tuner(keras_tuner.Tuner):
    """Keras Tuner with our runs for trials.

    A trial that was stopped goes on from its last epoch. Hyperband's longer trials
    start anew, so that each has the whole of its learning-rate schedule.
    """

    def __init__(
        self, base: Config, dataset: datasets.Data | None, folder: Path, **kwargs
    ):
        self.base = base
        self.data: Any = dataset  # None for a chief, which trains nothing
        super().__init__(directory=folder.parent, project_name=folder.name, **kwargs)

    def reload(self):
        # Keras Tuner takes brackets in a path for a pattern, and finds no trials there.
        for file in Path(self.project_dir).glob("trial_*/trial.json"):
            trial = Trial.load(str(file))
            self.oracle.trials[trial.trial_id] = trial
        super().reload()

    def run_trial(self, trial, verbose):
        config = config_of_trial(self.base, trial.hyperparameters.values)
        work = Path(self.get_trial_dir(trial.trial_id)) / "run"
        known = work / run_folder.CONFIG
        if known.exists() and known.read_bytes() != config.to_yaml().encode():
            shutil.rmtree(work)
        try:
            model, _ = train.fit(config, self.data, work, verbose)
        except FloatingPointError:
            return dict.fromkeys(METRICS, math.nan)  # which fails the trial
        except (OSError, tf.errors.OpError) as error:
            raise keras_tuner.errors.FatalError from error  # which ends the search
        model = train.serving_copy(config, self.data, model)
        found = judge(model, self.data)
        (work / run_folder.STATE).unlink()
        return found

    def on_trial_end(self, trial):
        super().on_trial_end(trial)
        trial = self.oracle.get_trial(trial.trial_id)
        row = trials.row_of(self.base, trial)
        print(trials.line(self.oracle.objective.name, row), flush=True)


def judge(model, dataset: datasets.Data) -> dict[str, float]:
    """The metrics of a model without noise, on the validation images."""
    validation = dataset.validation
    answer = tf.function(saved_model.without_noise(model), reduce_retracing=True)
    names = "probabilities", "log_probabilities"

    def serve(images):
        return dict(zip(names, answer(images), strict=True))

    probabilities, log_probabilities = saved_model.ask(serve, validation.images, *names)
    facts = metrics.outcomes(probabilities, validation.labels, log_probabilities)
    return metrics.summary(facts, len(dataset.class_names), dataset.superclasses)


def tune(
    base: Config,
    search: Search,
    folder: Path,
    overwrite: bool,
    epochs: int | None = None,
) -> Path | None:
    """Searches, from where a search in the folder stopped, and reports.

    Args:
        base: What all trials share.
        search: What they vary.
        folder: The search's own.
        overwrite: Start anew, whatever is there.
        epochs: Those of the best config, if not those of its trial.

    Returns:
        The file of the best config; `None` for a worker, whose chief has it.

    Raises:
        InputError: If another search is in the folder, or what is there is damaged.
        RuntimeError: If no trial ended, or three failed on end.
    """
    described = dataclasses.asdict(search) | dataclasses.asdict(base)
    del described["trials"]  # more may be asked for
    dataset = None if role() == CHIEF else train.load_data(base)
    if dataset:
        check(base, search, dataset)
    with publishing.claim(folder, role()):
        if overwrite:
            shutil.rmtree(folder, ignore_errors=True)
        describe(folder, described)
        try:
            tuner = Tuner(base, dataset, folder, oracle=oracle_of(search, base))
        except (json.JSONDecodeError, KeyError) as error:
            raise InputError(
                f"The search in {folder} is damaged: {error}. --overwrite starts anew."
            ) from error
        print(trials.line(search.objective))
        if role() in ("", CHIEF):
            for trial in trials_of(tuner):
                if trial.status == "COMPLETED":
                    row = trials.row_of(base, trial)
                    print(trials.line(search.objective, row), flush=True)
        # A chief trains nothing, and tells of its workers' trials as Keras Tuner does.
        try:
            tuner.search(verbose=int(role() == CHIEF))
        except keras_tuner.errors.FatalError as error:
            raise error.__cause__ or error from None
        if role() in ("", CHIEF):
            return trials.report(trials_of(tuner), base, search, folder, epochs)
    return None


def role() -> str:
    """What this process is among several that search together; empty if alone."""
    return os.environ.get("KERASTUNER_TUNER_ID", "")


def check(base: Config, search: Search, dataset: datasets.Data) -> None:
    """Refuses what Keras Tuner would take for trials that fail.

    Raises:
        InputError: If the data has no such objective, or a run cannot be built.
    """
    train.build(base, dataset, "float32")
    labels, classes = dataset.validation.labels, len(dataset.class_names)
    perfect = metrics.outcomes(np.eye(classes)[labels], labels)
    if search.objective not in metrics.summary(perfect, classes, dataset.superclasses):
        raise InputError(
            f"objective {search.objective} has no value on {dataset.name} with label "
            f"{base.label}."
        )


def trials_of(tuner: Tuner) -> list:
    """A search's trials in the order of their numbers."""
    return sorted(tuner.oracle.trials.values(), key=lambda trial: trial.trial_id)


def describe(folder: Path, described: dict):
    """Writes down what a folder's search is, or finds that it is the same."""
    file = folder / "search.yaml"
    text = yaml.safe_dump(described, sort_keys=False)
    if file.exists():
        if file.read_bytes() != text.encode():
            raise InputError(
                f"Another search is in {folder}; --overwrite replaces it, and "
                "--searches names another place."
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_text(file, text)


@command
def main(argv: Sequence[str] | None = None) -> int:
    options = parser("tune", "Searches the temperature of a Gumbel head.")
    options.add_class_arguments(Search)
    options.set_defaults({"head": "log_gumbel_softmax", "epochs": EPOCHS})
    options.add_argument(
        "--searches", type=Path, default="searches", help="Where searches are kept."
    )
    options.add_argument(
        "--overwrite", action="store_true", help="Start anew, if the search is there."
    )
    given = parse(options, argv)
    if role() not in ("", CHIEF) and not os.environ.get("KERASTUNER_ORACLE_IP"):
        raise InputError(
            f"KERASTUNER_TUNER_ID={role()} makes this a worker, whose chief is at "
            "KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT; they are not set."
        )
    base = config_of(given)
    # Trials are short unless it was asked for; what they find is trained as usual.
    asked = options.parse_args(argv, defaults=False)
    epochs = None if "epochs" in asked else Config.epochs
    search = Search(**{f.name: given[f.name] for f in dataclasses.fields(Search)})
    if base.temperature is not None:
        raise InputError(
            "temperature is what is searched; --lowest and --highest bound it. "
            f"Received: {base.temperature}"
        )
    config_of_trial(base, {"temperature": 1.0})  # whether the head has one
    base.check_backbone()
    base = dataclasses.replace(base, dataset=datasets.resolve(base.dataset))
    parts = (base.run_name, search.search, search.algorithm, search.objective)
    folder = given.searches / "-".join(parts)
    try:
        best = tune(base, search, folder, given.overwrite, epochs)
    except RuntimeError as error:
        # What follows its first line is where the last trial failed.
        print(f"error: {str(error).splitlines()[0]}", file=sys.stderr)
        return 1
    if best:
        print(f"next: python -m pipelines.train --config {best}")
    return 0


if __name__ == "__main__":
    main()
