"""Searches the temperature by Keras Tuner.

A trial is a run of `pipelines.train`, judged on the validation images at its last
epoch; the test images are not looked at. Keras Tuner proposes the trials and keeps
what is known of them. With its own environment variables it spreads them over
machines, see docs/many-machines.md.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras_tuner
import numpy as np
import tensorflow as tf
import yaml

from pipelines import (
    datasets,
    judging,
    metrics,
    publishing,
    run_folder,
    saved_model,
    training,
    trials,
)
from pipelines.config import Config
from pipelines.errors import InputError, brief
from pipelines.metrics import METRICS
from pipelines.search import CHIEF, REDUCTION, TRIALS, Search, config_of_trial, role
from pipelines.typed_json import write_text

LEARNING_RATES = (0.02, 1.0)


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

    def run_trial(self, trial, verbose):
        config = config_of_trial(self.base, trial.hyperparameters.values)
        work = Path(self.get_trial_dir(trial.trial_id)) / "run"
        known = work / run_folder.CONFIG
        if known.exists() and known.read_bytes() != config.to_yaml().encode():
            shutil.rmtree(work)
        try:
            model, _ = training.fit(config, self.data, work, verbose)
        except FloatingPointError:
            return dict.fromkeys(METRICS, math.nan)  # which fails the trial
        except (OSError, tf.errors.OpError) as error:
            raise keras_tuner.errors.FatalError from error  # which ends the search
        model = training.serving_copy(config, self.data, model)
        found = judge(model, self.data)
        (work / run_folder.STATE).unlink(missing_ok=True)
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

    def answers():
        for _, batch in saved_model.in_batches(validation.images):
            _, p, log_p = (array.numpy() for array in answer(batch))
            yield judging.Answer(p, log_p)

    superclasses = dataset.superclasses
    facts = judging.outcomes_of(answers(), validation.labels, superclasses)
    return metrics.summary(facts, superclasses)


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
    dataset = None if role() == CHIEF else training.load_data(base)
    if dataset:
        check(base, search, dataset)
    with publishing.claim(folder, role()), contextlib.ExitStack() as stack:
        if overwrite:
            shutil.rmtree(folder, ignore_errors=True)
        describe(folder, described)
        # Keras Tuner takes brackets in a path for a pattern: it is given another name.
        link = Path(stack.enter_context(tempfile.TemporaryDirectory()), "search")
        link.symlink_to(folder.resolve())
        stack.enter_context(without_link(link, folder))
        try:
            forget_unknown(folder)
            tuner = Tuner(base, dataset, link, oracle=oracle_of(search, base))
        except (ValueError, LookupError, TypeError, RuntimeError) as error:
            raise InputError(
                f"The search in {folder} is damaged: {brief(error)}. --overwrite "
                "starts anew."
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


def space(search: Search) -> keras_tuner.HyperParameters:
    """What the trials of a search may vary."""
    values = keras_tuner.HyperParameters()
    size = {
        "min_value": search.lowest,
        "max_value": search.highest,
        "sampling": "log",
    }
    if search.search == "schedule":
        # jang is exponential in steps: nothing that a search would tell apart.
        values.Choice("kind", ["linear", "exponential", "cosine"])
        values.Float("start", **size)
        values.Float("end", **size)
    else:
        values.Float("temperature", **size)
    if search.both_signs:
        values.Choice("sign", [1, -1])
    if search.search == "learning_rate":
        values.Float("learning_rate", *LEARNING_RATES, sampling="log")
    return values


def oracle_of(search: Search, base: Config) -> keras_tuner.Oracle:
    """Keras Tuner's algorithm, set up for a search."""
    options: dict[str, Any] = {
        "objective": keras_tuner.Objective(
            search.objective, METRICS[search.objective].best
        ),
        "hyperparameters": space(search),
        "seed": base.seed + 1,  # it takes 0 for no seed
    }
    trials = search.trials or TRIALS
    match search.algorithm:
        case "random":
            return keras_tuner.oracles.RandomSearchOracle(max_trials=trials, **options)
        case "bayesian":
            return keras_tuner.oracles.BayesianOptimizationOracle(
                max_trials=trials, **options
            )
        case "hyperband":
            return keras_tuner.oracles.HyperbandOracle(
                max_epochs=base.epochs, factor=REDUCTION, **options
            )


@contextlib.contextmanager
def without_link(link: Path, folder: Path) -> Iterator[None]:
    """Names files of a folder by it in errors of the system, where a link does."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            error.filename = str(error.filename).replace(str(link), str(folder))
        raise


def forget_unknown(folder: Path):
    """Deletes trials that were written down just before a kill, and never begun.

    A trial is known once it is in the file of the search.
    """
    if role() not in ("", CHIEF):
        return
    state = folder / "oracle.json"
    known = (
        json.loads(state.read_text("utf-8"))["start_order"] if state.exists() else []
    )
    for trial in folder.iterdir():
        if trial.name.startswith("trial_") and trial.name[len("trial_") :] not in known:
            shutil.rmtree(trial)


def save_whole(path: str, content: dict) -> str:
    """Writes a file of Keras Tuner's whole or not at all, which it does not itself."""
    text = json.dumps(content)
    write_text(Path(path), text)
    return text


keras_tuner.src.utils.save_json = save_whole


def check(base: Config, search: Search, dataset: datasets.Data) -> None:
    """Refuses what Keras Tuner would take for trials that fail.

    Raises:
        InputError: If the data has no such objective, or a run cannot be built.
    """
    training.build(base, dataset, "float32")
    labels = dataset.validation.labels[:100]
    perfect = np.arange(len(dataset.class_names)) == labels[:, None]
    perfect = perfect.astype("float64")
    answer = judging.Answer(perfect, metrics.log_of(perfect))
    facts = judging.outcomes(answer, labels, dataset.superclasses)
    if search.objective not in metrics.summary(facts, dataset.superclasses):
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
