"""Compares runs.

Runs are judged by what they serve alone. Only runs on the same
test images with the same labels share a table.
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from scipy.sparse import csr_array

from pipelines import (
    between_runs,
    datasets,
    files,
    formats,
    judging,
    metrics,
    publishing,
    robustness,
    run_folder,
)
from pipelines.comparison import (
    FORMAT,
    Comparison,
    Judgement,
    Made,
    Results,
    Row,
    Table,
    Tested,
    Timing,
    Timings,
    Trained,
    first_of_each,
)
from pipelines.config import Config
from pipelines.datasets import Split
from pipelines.errors import InputError
from pipelines.keeping import keep
from pipelines.pixels import rgb
from pipelines.provenance import provenance
from pipelines.run_folder import Run

SAMPLES = 16


def evaluate(
    paths: Iterable[Path],
    out: Path,
    reported: Mapping[str, dict] | None = None,
    timings: bool = True,
    probabilities: Path | None = None,
    made_by: str = "",
    contrasts: Sequence[tuple[Config, Config]] = (),
    margin: float = between_runs.MARGIN,
    shift: bool = False,
    ood: str | None = None,
) -> Results:
    """Compares runs and writes the comparison as JSON, CSV, Markdown, PNG and HTML.

    Args:
        paths: The runs' folders; files among them are left out.
        out: The folder to write; what else lies there stays.
        reported: By the names of runs, figures from elsewhere to show beside ours.
        timings: Whether to measure latency and throughput too.
        probabilities: A folder in which to leave what each run said, as `RUN.npz`.
        made_by: The command, for the record.
        contrasts: The configurations to compare over seeds, with seed 0; if none, those
            of several seeds with the most accurate of them.
        margin: The difference of accuracy that is too small to matter.
        shift: Whether to judge the runs on corrupted test images too.
        ood: A data set whose images the runs should be less sure of.

    Raises:
        InputError: If there are no runs, one is damaged, its data is not there, or
            `out` is a file.
    """
    out = out.resolve()
    files.check_place(out)
    # Exports after the runs, of which they are copies.
    found = sorted(
        run_folder.find(paths), key=lambda run: bool(formats.kind_of(run.path))
    )
    ood = datasets.resolve(ood) if ood else None
    wanted = Wanted(reported or {}, timings, probabilities, shift, ood)
    parted = between_runs.comparable(found)
    for members in parted:
        check(members[0], wanted)
    with publishing.claim(out):
        kept = Kept({}, {}, {})
        tables = []
        for members in parted:
            table, ensembles = judge_all(members, wanted, kept)
            tables.append(
                between_runs.assemble(
                    table, kept.outcomes, ensembles, contrasts, margin
                )
            )
        between_runs.name_left_out(contrasts, tables)
        how = made(made_by)
        results = Results(
            comparison=Comparison(FORMAT, [how], tables),
            timings=Timings(how.device, kept.timings),
            confusions=kept.confusions,
            outcomes=kept.outcomes,
        )
        new = publishing.start(out)
        keep(results, new)
        files.write(results, new)
        files.publish(out)
    return results


def check(run: Run, wanted: Wanted):
    """Refuses what cannot be made of a run, before any is judged.

    Raises:
        InputError: If its probabilities are too many, or the other data set is its own.
    """
    name, classes = run.record.dataset.name, run.record.dataset.classes
    if wanted.probabilities and classes > judging.MANY:
        raise InputError(
            f"--probabilities keeps every probability, of at most {judging.MANY:,} "
            f"classes. Received: {name} with {classes:,}"
        )
    if wanted.ood:
        robustness.check_other(wanted.ood, name)


def made(command: str) -> Made:
    """How the rows are made: here and now."""
    source = provenance()
    device = run_folder.Device(**source["device"])
    return Made(command, source["commit"], device, source["versions"])


class Wanted(NamedTuple):
    """What to make of runs, as `evaluate` has it."""

    reported: Mapping[str, dict]
    timings: bool
    probabilities: Path | None
    shift: bool
    ood: str | None


class Kept(NamedTuple):
    """What is gathered beside the tables, as `Results` has it."""

    timings: dict[str, Timing]
    confusions: dict[str, csr_array]
    outcomes: dict[str, metrics.Outcomes]


def judge_all(
    members: Sequence[Run], wanted: Wanted, kept: Kept
) -> tuple[Table, dict[between_runs.Members, Judgement]]:
    """Judges runs that can be compared.

    Noisy heads have two rows: without noise, and the mean of 16 noisy samples.

    Returns:
        The runs and their rows, still without what is said of several of them; and
        their ensembles.

    Raises:
        InputError: If the data is not what the runs were trained on.
    """
    tf.config.experimental.enable_op_determinism()
    config = members[0].config
    dataset = load_data(members[0], config.seed, config.validation_share)

    @functools.cache
    def validation_of(seed: int, share: float) -> Split:
        same = (seed, share) == (config.seed, config.validation_share)
        return (dataset if same else load_data(members[0], seed, share)).validation

    foreign = None
    if wanted.ood:
        foreign = robustness.others(wanted.ood, config.image_size)
    histories = {run.name: run_folder.read_history(run.path) for run in members}
    unseeded = {run.name: dataclasses.replace(run.config, seed=0) for run in members}
    first = first_of_each({run.name: run.config for run in members})
    counts = Counter(unseeded[name] for name in first)
    rows, shifted, unfamiliar, sums, seeds = [], [], [], {}, defaultdict(list)
    for number, run in enumerate(members, 1):
        started = time.monotonic()
        serve, class_names = formats.load(run.path)
        if class_names != dataset.class_names:
            raise InputError(
                f"The classes of {run.name} have other names than those of "
                f"{dataset.name}, so it was trained on another data set."
            )
        validation = validation_of(run.config.seed, run.config.validation_share)
        noisy = serve.sample and run.config.noise != "never"
        for samples in (0, SAMPLES) if noisy else (0,):
            name = run.name + f"-{samples}samples" * bool(samples)
            judged = judging.judge(run, serve, samples, dataset, validation)
            facts, answer = judged.facts, judged.answer
            rows.append(
                Row(
                    id=name,
                    run=run.name,
                    title="",
                    samples=samples,
                    # Of scores, probabilities are made that nothing calibrated.
                    scores=run.record.outputs == "scores",
                    as_is=judged.as_is,
                    temperature=judged.temperature,
                    scaled=judged.scaled,
                )
            )
            kept.outcomes[name] = facts
            kept.confusions[name] = metrics.confusion(
                facts["predicted"], facts["label"], len(class_names)
            )
            key = unseeded[run.name], samples
            if answer and counts[key[0]] > 1 and run.name in first:
                sums[key] = sums.get(key, 0) + answer.probabilities
                seeds[key].append(run.name)
            if answer and wanted.probabilities:
                save(wanted.probabilities, name, answer, dataset.test.labels)
        if wanted.shift:
            shifted += robustness.shifted(run, serve, dataset)
        if foreign:
            unfamiliar += robustness.unfamiliar(run, serve, dataset, foreign)
        if wanted.timings:
            kept.timings[run.name] = speed(serve, dataset.test.images)
        right = metrics.right(kept.outcomes[run.name])
        print(
            f"[{number}/{len(members)}] {run.name}: accuracy {right.mean():.4f} "
            f"({time.monotonic() - started:.0f} s)",
            file=sys.stderr,
        )
    table = Table(
        dataset=Tested(
            name=dataset.name,
            label=config.label,
            checksum=dataset.checksum,
            test=len(dataset.test.labels),
            validation=len(dataset.validation.labels),
        ),
        class_names=dataset.class_names,
        superclasses=dataset.superclasses,
        superclass_names=dataset.superclass_names,
        runs={
            run.name: Trained(
                title="",
                config=run.config,
                parameters=run.record.parameters,
                policy=run.record.policy,
                train_seconds=run.record.training_seconds,
                device=run.record.device,
                history=histories[run.name],
                reported=wanted.reported.get(run.path.name),
            )
            for run in members
        },
        rows=rows,
        shifted=shifted,
        unfamiliar=unfamiliar,
    )
    ensembles = {
        (frozenset(runs), key[1]): judging.ensemble(sums[key], dataset)
        for key, runs in seeds.items()
    }
    return table, ensembles


def load_data(run: Run, seed: int, validation_share: float) -> datasets.Data:
    """Loads the data of a run, with the validation images of a seed and a share.

    Raises:
        InputError: If its checksum is not the one that the run wrote down.
    """
    name = run.record.dataset.name
    config = run.config
    loaded = datasets.load(
        name,
        config.label,
        config.image_size,
        seed,
        config.classes,
        validation_share,
    )
    trained_on = run.record.dataset.checksum
    if loaded.checksum != trained_on:
        raise InputError(
            f"{name} is not what {run.name} was trained on: its checksum begins with "
            f"{loaded.checksum[:12]}, the run's with {trained_on[:12]}."
        )
    return loaded


def speed(serve: Callable, images: np.ndarray) -> Timing:
    """Median milliseconds for one image, and images a second in batches of 256."""

    def median_seconds(batch, repeats):
        times = []
        for _ in range(repeats + 2):  # the first two warm up
            started = time.perf_counter()
            serve(images=batch)["probabilities"].numpy()
            times.append(time.perf_counter() - started)
        return statistics.median(times[2:])

    many = rgb(tf.constant(np.resize(images, (256, *images.shape[1:]))))
    return Timing(
        latency_ms=1000 * median_seconds(many[:1], 50),
        images_per_second=256 / median_seconds(many, 7),
    )


def save(folder: Path, name: str, answer: judging.Answer, labels: np.ndarray):
    path = folder / f"{name}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    with publishing.named(str(path)):
        np.savez_compressed(path, labels=labels, **answer._asdict())
