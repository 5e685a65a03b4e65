"""Trains the runs of an experiment and compares them.

`pipelines.experiment` says what the file holds.
"""

from __future__ import annotations

import contextlib
import os
import queue
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipelines import evaluation, files, publishing, run_folder
from pipelines.comparison import Results
from pipelines.config import Config
from pipelines.errors import InputError, brief
from pipelines.experiment import read
from pipelines.provenance import all_cores

OTHER = "another run of that name is there; move it away"
CLAIMED = "another process is training it"
TRAIN = (sys.executable, "-m", "pipelines.train")


def seconds(configs: Sequence[Config], saved_models: Path) -> list[float | None]:
    """How long runs will take, by those of the same size that are there already."""

    def size(config: Config) -> tuple:
        names = ("dataset", "classes", "backbone", "width", "image_size", "batch_size",
                 "steps_per_epoch")  # fmt: skip
        return tuple(getattr(config, name) for name in names)

    known: dict[tuple, list[float]] = {}
    for path in sorted(filter(Path.is_dir, saved_models.glob("[!.]*"))):
        try:
            record = run_folder.read_record(path)
        except InputError as error:
            print(f"skipped: {brief(error, 500)}", file=sys.stderr)
            continue
        if epochs := record.config.epochs - record.resumed_at_epoch:
            rates = known.setdefault(size(record.config), [])
            rates.append(record.wall_seconds / epochs)
    estimates = []
    for config in configs:
        rates = known.get(size(config))
        estimates.append(statistics.median(rates) * config.epochs if rates else None)
    return estimates


def plan(configs: Sequence[Config], saved_models: Path) -> str:
    """Says what is there, what is to train, and how long that will take."""
    lines, known, unknown = [], [], 0
    estimates = seconds(configs, saved_models)
    for config, estimate in zip(configs, estimates, strict=True):
        standing = run_folder.standing(saved_models / config.run_name, config)
        line = f"{standing:8}{config.run_name}"
        if standing in ("new", "stopped"):
            if estimate is None:
                unknown += 1
            else:
                known.append(estimate)
                line += f"  ({_minutes(estimate)})"
        lines.append(line)
    words = f"{len(known) + unknown} of {len(configs)} runs to train"
    if known:
        words += f"; {len(known)} of them in {_minutes(sum(known))}"
    if unknown:
        words += (
            f"; the time of {unknown} is not known until one of their size is there"
        )
    return "\n".join([*lines, words])


def _minutes(duration: float) -> str:
    return f"about {duration / 60:.0f} min" if duration >= 60 else "under 1 min"


def train_all(
    configs: Sequence[Config], saved_models: Path, jobs: int = 1
) -> dict[str, str]:
    """Trains every run that is not there, each in a process of its own.

    A run that was stopped goes on from its last epoch. One that fails does not keep
    the next from being trained.

    Args:
        configs: The runs.
        saved_models: The folder of the runs.
        jobs: How many to train at once, each on its share of the processor's cores.

    Returns:
        By the names of the runs that failed, why.
    """
    shares = queue.SimpleQueue()
    for share in share_cores(jobs):
        shares.put(share)
    saved_models.mkdir(parents=True, exist_ok=True)
    trainers: set[subprocess.Popen] = set()

    def train(number: int, config: Config) -> str | None:
        cores = shares.get()
        try:
            counted = f"[{number}/{len(configs)}] {config.run_name}"
            return train_one(config, saved_models, counted, cores, trainers)
        finally:
            shares.put(cores)

    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(train, i, c) for i, c in enumerate(configs, start=1)]
        try:
            reasons = [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            while not all(future.done() for future in futures):
                for trainer in list(trainers):
                    trainer.kill()
                time.sleep(0.1)
            raise
    names = (config.run_name for config in configs)
    return {n: why for n, why in zip(names, reasons, strict=True) if why}


def train_one(
    config: Config,
    saved_models: Path,
    counted: str,
    cores: Sequence[int],
    trainers: set[subprocess.Popen],
) -> str | None:
    """Trains a run if it is not there.

    Args:
        config: The run.
        saved_models: The folder of the runs.
        counted: The run's name, as the lines printed here begin.
        cores: Those to train on. If they are not all, the trainer's own lines go to a
            file, so as not to mingle with those of another.
        trainers: Where the process is kept while it runs.

    Returns:
        Why it failed, or `None`.
    """
    path, started = saved_models / config.run_name, time.monotonic()
    standing = run_folder.standing(path, config)
    print(f"{counted}: {standing}", flush=True)
    if standing == "there":
        return None
    if standing == "other":
        return OTHER
    if publishing.is_claimed(path):
        return CLAIMED
    log = saved_models / f".{config.run_name}.log"
    with (
        tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file,
        contextlib.ExitStack() as stack,
    ):
        file.write(config.to_yaml())
        file.flush()
        options = ["--config", file.name, "--saved_models", str(saved_models)]
        if standing == "stopped":
            options.append("--resume")
        alone = len(cores) == len(all_cores())
        stdout = None if alone else stack.enter_context(log.open("w"))
        trainer = subprocess.Popen(
            [*TRAIN, *options],
            stdout=stdout,
            stderr=None if alone else subprocess.STDOUT,
        )
        trainers.add(trainer)
        try:
            if not alone:
                # Before TensorFlow counts the cores for its threads.
                os.sched_setaffinity(trainer.pid, cores)
            status = trainer.wait()
        finally:
            trainers.discard(trainer)
    if status:
        words = f"the training ended with status {status}"
        return words if alone else f"{words}; its last words are in {log}"
    if not alone:
        log.unlink()
    print(f"{counted}: {_minutes(time.monotonic() - started)}", flush=True)
    return None


def share_cores(jobs: int) -> list[list[int]]:
    """Parts the cores among jobs.

    Raises:
        InputError: If there are fewer cores than jobs, or none can be assigned.
    """
    cores = all_cores()
    assignable = hasattr(os, "sched_setaffinity")
    if jobs < 1 or (jobs > 1 and (jobs > len(cores) or not assignable)):
        raise InputError(
            f"jobs must be at least 1 and at most {len(cores) if assignable else 1}, "
            f"the cores that can be assigned here. Received: {jobs}"
        )
    return [cores[job::jobs] for job in range(jobs)]


def run(
    experiment: Path,
    saved_models: Path,
    out: Path,
    train: Callable[[Sequence[Config], Path], dict[str, str]] = train_all,
) -> tuple[dict[str, str], Results | None]:
    """Trains an experiment's runs and compares those that ended.

    Args:
        experiment: The file.
        saved_models: The folder of the runs.
        out: The folder of the comparison.
        train: Trains them, as `train_all` does.

    Returns:
        By the names of the runs that failed, why; and how the others compare, if there
        are any.
    """
    described = read(experiment)
    planned = described.runs
    files.check_place(out.resolve())
    print(plan([one.config for one in planned], saved_models), flush=True)
    failures = train([one.config for one in planned], saved_models)
    ended = {
        one.config.run_name: one.reported
        for one in planned
        if one.config.run_name not in failures
    }
    compared = None
    if ended:
        compared = evaluation.evaluate(
            [saved_models / name for name in ended],
            out,
            {name: reported for name, reported in ended.items() if reported},
            made_by=f"python -m pipelines.run {experiment}",
            contrasts=described.contrasts,
            margin=described.margin,
        )
    return failures, compared
