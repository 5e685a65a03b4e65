"""Searches the temperature: `python -m pipelines.tune --head log_gumbel_softmax`.

A trial is a run of `pipelines.train`, judged on the validation images at its last
epoch; the test images are not looked at. Keras Tuner proposes the trials and keeps
what is known of them. With its own environment variables it spreads them over
machines, see docs/many-machines.md.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import keras_tuner
import matplotlib.figure
import numpy as np
import yaml

from pipelines import datasets, metrics, saved_model, train
from pipelines.config import (
    Annealing,
    Config,
    command,
    config_of,
    parse,
    parser,
)
from pipelines.errors import InputError
from pipelines.figures import COLOURS
from pipelines.metrics import METRICS

# TensorFlow after pipelines, which keeps it quiet.
import tensorflow as tf  # isort: skip

LEARNING_RATES = (0.02, 1.0)
CHIEF = "chief"
TRIALS = 8
EPOCHS = 3


@dataclasses.dataclass(frozen=True)
class Search:
    """What is searched, how, and what for.

    Attributes:
        search: What a trial varies: the temperature, a schedule (its kind, start and
            end), or the temperature and the learning rate together.
        algorithm: Keras Tuner's: random search, Bayesian optimisation or Hyperband.
        objective: A metric of the validation images, at the last epoch: accuracy, nll,
            ece or another of the comparison's.
        trials: How many, 8 if not given. Hyperband's follow from the epochs.
        lowest: The smallest size of a temperature.
        highest: The largest.
        both_signs: Whether temperatures may be negative too.
    """

    search: Literal["temperature", "schedule", "learning_rate"] = "temperature"
    algorithm: Literal["random", "bayesian", "hyperband"] = "bayesian"
    objective: str = "accuracy"
    trials: int | None = None
    lowest: float = 0.1
    highest: float = 10.0
    both_signs: bool = False

    def __post_init__(self):
        if self.objective not in METRICS:
            raise InputError(
                f"objective must be one of {', '.join(METRICS)}. "
                f"Received: {self.objective}"
            )
        if not 0 < self.lowest < self.highest < math.inf:
            raise InputError(
                "lowest must be above 0 and below highest; --both_signs true adds the "
                f"negative temperatures. Received: {self.lowest} and {self.highest}"
            )
        if self.trials is not None and self.algorithm == "hyperband":
            raise InputError(
                "trials belongs to random and bayesian: the number of Hyperband's "
                f"trials follows from the epochs. Received: {self.trials}"
            )
        if self.trials is not None and self.trials < 1:
            raise InputError(f"trials must be at least 1. Received: {self.trials}")


def space(search: Search) -> keras_tuner.HyperParameters:
    """What the trials of a search may vary."""
    made = keras_tuner.HyperParameters()
    size = {
        "min_value": search.lowest,
        "max_value": search.highest,
        "sampling": "log",
    }
    if search.search == "schedule":
        # jang is exponential in steps: nothing that a search would tell apart.
        made.Choice("kind", ["linear", "exponential", "cosine"])
        made.Float("start", **size)
        made.Float("end", **size)
    else:
        made.Float("temperature", **size)
    if search.both_signs:
        made.Choice("sign", [1, -1])
    if search.search == "learning_rate":
        made.Float("learning_rate", *LEARNING_RATES, sampling="log")
    return made


def config_of_trial(base: Config, values: Mapping[str, Any]) -> Config:
    """The run that a trial's values describe."""
    sign = values.get("sign", 1)
    if "kind" in values:
        ends = sign * values["start"], sign * values["end"]
        temperature = Annealing(values["kind"], *ends)
    else:
        temperature = sign * values["temperature"]
    return dataclasses.replace(
        base,
        temperature=temperature,
        learning_rate=values.get("learning_rate", base.learning_rate),
        epochs=values.get("tuner/epochs", base.epochs),  # Hyperband's
    )


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
                max_epochs=base.epochs, **options
            )


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
        known = work / "config.yaml"
        if known.exists() and known.read_text("utf-8") != config.to_yaml():
            shutil.rmtree(work)
        try:
            model, _ = train.fit(config, self.data, work, verbose)
        except FloatingPointError:
            return dict.fromkeys(METRICS, math.nan)  # which fails the trial
        model = train.serving_copy(config, self.data, model)
        found = judge(model, self.data)
        shutil.rmtree(work / "checkpoints")
        return found

    def on_trial_end(self, trial):
        super().on_trial_end(trial)
        trial = self.oracle.get_trial(trial.trial_id)
        row = row_of(self.base, trial)
        print(line(self.oracle.objective.name, row), flush=True)


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


def row_of(base: Config, trial) -> dict[str, Any]:
    """A trial as a row of the table; what it does not have is `None`."""
    config = config_of_trial(base, trial.hyperparameters.values)
    match config.temperature:
        case Annealing(kind, start, end):
            curve = {"kind": kind, "start": start, "end": end}
        case constant:
            curve = {"kind": "constant", "start": constant, "end": constant}

    def metric(name):
        known = trial.status == "COMPLETED" and trial.metrics.exists(name)
        return trial.metrics.get_best_value(name) if known else None

    return {
        "trial": trial.trial_id,
        "status": trial.status.lower(),
        **curve,
        "learning_rate": config.learning_rate,
        "epochs": config.epochs,
        **{name: metric(name) for name in METRICS},
    }


COLUMNS: dict[str, tuple[int, Callable[[Any], str]]] = {
    "trial": (5, str),
    "status": (9, str),
    "kind": (11, str),
    "start": (8, "{:.3f}".format),
    "end": (8, "{:.3f}".format),
    "learning_rate": (13, "{:.4f}".format),
    "epochs": (6, str),
}
ALWAYS = ("accuracy", "nll", "ece")  # shown beside the objective


def line(objective: str, row: Mapping[str, Any] | None = None) -> str:
    """A row of the table of trials, or its heading."""
    shown = {n: (max(8, len(n)), "{:.4f}".format) for n in (*ALWAYS, objective)}
    cells = []
    for name, (width, words) in {**COLUMNS, **shown}.items():
        value = name.replace("_", " ") if row is None else row[name]
        text = value if row is None else "" if value is None else words(value)
        cells.append(text.rjust(width))
    return "  ".join(cells).rstrip()


def plot(rows: Sequence[dict], search: Search, best: dict) -> matplotlib.figure.Figure:
    """The objective against the temperature, each trial by itself."""
    made = matplotlib.figure.Figure((8, 4.5), layout="constrained")
    axes = made.subplots()
    kinds = sorted({row["kind"] for row in rows})
    for row in rows:
        colour = COLOURS[kinds.index(row["kind"])]
        value = row[search.objective]
        if value is None:
            foot = axes.get_xaxis_transform()
            axes.plot(row["end"], 0.02, "x", color=COLOURS[3], transform=foot)
            continue
        if row["start"] != row["end"]:
            ends = row["start"], row["end"]
            axes.plot(ends, (value, value), color=colour, alpha=0.5)
        axes.plot(row["end"], value, "o", color=colour, gid=f"trial-{row['trial']}")
    axes.plot(best["end"], best[search.objective], "o", ms=14, mfc="none", mec="k")
    for kind, colour in zip(kinds, COLOURS, strict=False):
        axes.plot([], [], "o", color=colour, label=kind)
    failed = sum(row[search.objective] is None for row in rows)
    if failed:
        axes.plot([], [], "x", color=COLOURS[3], label=f"failed ({failed})")
    axes.plot([], [], "o", ms=14, mfc="none", mec="k", label=f"trial {best['trial']}")
    if search.both_signs:
        axes.set_xscale("symlog", linthresh=search.lowest)
    else:
        axes.set_xscale("log")
    axes.set(
        xlabel="temperature" + " at the end" * (search.search == "schedule"),
        ylabel=f"validation {search.objective}",
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return made


def tune(base: Config, search: Search, folder: Path, overwrite: bool) -> Path | None:
    """Searches, from where a search in the folder stopped, and reports.

    Args:
        base: What all trials share.
        search: What they vary.
        folder: The search's own.
        overwrite: Start anew, whatever is there.

    Returns:
        The file of the best config; `None` for a worker, whose chief has it.

    Raises:
        InputError: If another search is in the folder, or what is there is damaged.
        RuntimeError: If no trial ended, or three failed on end.
    """
    described = dataclasses.asdict(search) | dataclasses.asdict(base)
    del described["trials"]  # more may be asked for
    role = os.environ.get("KERASTUNER_TUNER_ID")
    dataset = None if role == CHIEF else train.load_data(base)
    if dataset:
        check(base, search, dataset)
    if overwrite:
        shutil.rmtree(folder, ignore_errors=True)
    claim(folder, described)
    try:
        tuner = Tuner(base, dataset, folder, oracle=oracle_of(search, base))
    except (json.JSONDecodeError, KeyError) as error:
        raise InputError(
            f"The search in {folder} is damaged: {error}. --overwrite starts anew."
        ) from error
    print(line(search.objective))
    if role in (None, CHIEF):
        for trial in known_trials(tuner):
            if trial.status == "COMPLETED":
                print(line(search.objective, row_of(base, trial)), flush=True)
    # A chief trains nothing, and tells of its workers' trials as Keras Tuner does.
    tuner.search(verbose=int(role == CHIEF))
    if role in (None, CHIEF):
        return report(known_trials(tuner), base, search, folder)
    return None


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


def known_trials(tuner: Tuner) -> list:
    """A search's trials in the order of their numbers."""
    return sorted(tuner.oracle.trials.values(), key=lambda trial: trial.trial_id)


def claim(folder: Path, described: dict):
    """Writes down what a folder's search is, or finds that it is the same."""
    file = folder / "search.yaml"
    text = yaml.safe_dump(described, sort_keys=False)
    if file.exists():
        if file.read_text("utf-8") != text:
            raise InputError(
                f"Another search is in {folder}; --overwrite replaces it, and "
                "--searches names another place."
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    write(file, text)


def report(trials: Sequence, base: Config, search: Search, folder: Path) -> Path:
    """Writes the table of trials, the plot and the best config."""
    rows = [row_of(base, trial) for trial in trials]
    ended = [trial for trial in trials if trial.status == "COMPLETED"]
    if not ended:
        raise RuntimeError("No trial ended well.")
    choose = max if METRICS[search.objective].best == "max" else min
    best = choose(ended, key=lambda trial: trial.score)
    table = io.StringIO()
    writer = csv.DictWriter(table, [*COLUMNS, *METRICS], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write(folder / "trials.csv", table.getvalue())
    partial = folder / ".trials.png"
    plot(rows, search, row_of(base, best)).savefig(
        partial, dpi=120, format="png", metadata={"Software": None}
    )
    partial.replace(folder / "trials.png")
    config = config_of_trial(base, best.hyperparameters.values)
    write(folder / "best.yaml", config.to_yaml())
    print(f"best: trial {best.trial_id}, {search.objective} {best.score:.4f}")
    return folder / "best.yaml"


def write(file: Path, text: str):
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    partial.write_text(text, "utf-8")
    partial.replace(file)


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
    base = config_of(given)
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
        best = tune(base, search, folder, given.overwrite)
    except RuntimeError as error:
        # What follows its first line is where the last trial failed.
        print(f"error: {str(error).splitlines()[0]}", file=sys.stderr)
        return 1
    if best:
        print(f"next: python -m pipelines.train --config {best}")
    return 0


if __name__ == "__main__":
    main()
