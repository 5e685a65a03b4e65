"""Compares runs: `python -m pipelines.evaluate saved_models/*`.

Runs are judged through their SavedModels' signatures alone. Only runs on the same
test images with the same labels share a table.
"""

from __future__ import annotations

import dataclasses
import functools
import shlex
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jsonargparse
import numpy as np
import tensorflow as tf

from pipelines import (
    between_runs,
    datasets,
    judging,
    metrics,
    publishing,
    report,
    run_folder,
    saved_model,
    titles,
)
from pipelines.commands import command
from pipelines.comparison import (
    FORMAT,
    Comparison,
    Results,
    Row,
    Table,
    Tested,
    Timing,
    Trained,
    keep,
)
from pipelines.config import Config
from pipelines.errors import InputError
from pipelines.options import parse
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

    Raises:
        InputError: If there are no runs, one is damaged, its data is not there, or
            `out` is a file.
    """
    out = out.resolve()
    report.check_place(out)
    found = run_folder.find(paths)
    with publishing.claim(out):
        measured = Measured({}, {}, {})
        tables = [
            compare(members, reported or {}, timings, probabilities, measured)
            for members in between_runs.comparable(found)
        ]
        tables = [
            dataclasses.replace(
                table,
                contrasts=between_runs.against_each_other(
                    table, measured.outcomes, contrasts, margin
                ),
            )
            for table in tables
        ]
        source = provenance()
        comparison = Comparison(
            format=FORMAT,
            command=made_by,
            commit=source["commit"],
            device=run_folder.Device(**source["device"]),
            versions=source["versions"],
            tables=tables,
        )
        results = Results(comparison, *measured)
        new = publishing.start(out)
        keep(results, new)
        report.write(results, new)
        report.publish(out)
    return results


class Measured(NamedTuple):
    """What is gathered beside the tables, as `Results` has it."""

    timings: dict[str, Timing]
    confusions: dict[str, np.ndarray]
    outcomes: dict[str, metrics.Outcomes]


def compare(
    members: Sequence[Run],
    reported: Mapping[str, dict],
    timings: bool,
    probabilities: Path | None,
    measured: Measured,
) -> Table:
    """Evaluates runs that can be compared: one table.

    Noisy heads have two rows: without noise, and the mean of 16 noisy samples.

    Raises:
        InputError: If the data is not what the runs were trained on.
    """
    tf.config.experimental.enable_op_determinism()
    validation_of = functools.cache(lambda seed: load_data(members[0], seed).validation)
    dataset = load_data(members[0], members[0].config.seed)
    headings = titles.headings(members)
    histories = [run_folder.read_history(run.path) for run in members]
    rows, sums = [], {}
    unseeded = {run.name: dataclasses.replace(run.config, seed=0) for run in members}
    several = {c for c, n in Counter(unseeded.values()).items() if n > 1}
    for number, (run, heading) in enumerate(zip(members, headings, strict=True), 1):
        started = time.monotonic()
        serve, class_names = saved_model.load(run.path)
        if class_names != dataset.class_names:
            raise InputError(
                f"The classes of {run.name} have other names than those of "
                f"{dataset.name}, so it was trained on another data set."
            )
        validation = validation_of(run.config.seed)
        noisy = serve.sample and run.config.noise != "never"
        for samples in (0, SAMPLES) if noisy else (0,):
            name = run.name + f"-{samples}samples" * bool(samples)
            answer = judging.ask(run, serve, dataset.test.images, samples)
            held_out = judging.ask(run, serve, validation.images, samples)
            as_is, scaled, temperature, facts = judging.judge(
                answer, held_out, dataset, validation
            )
            rows.append(
                Row(
                    id=name,
                    run=run.name,
                    title=heading + f", {samples} samples" * bool(samples),
                    samples=samples,
                    # Of scores, probabilities are made that nothing calibrated.
                    scores=run.record.outputs == "scores",
                    as_is=as_is,
                    temperature=temperature,
                    scaled=scaled,
                )
            )
            measured.outcomes[name] = facts
            config = unseeded[run.name]
            if config in several:  # probabilities may be large
                total = sums.get((config, samples), 0)
                sums[config, samples] = total + answer.probabilities
            measured.confusions[name] = metrics.confusion(
                facts["predicted"], facts["label"], len(class_names)
            )
            if probabilities:
                save(probabilities, name, answer, dataset.test.labels)
        if timings:
            measured.timings[run.name] = speed(serve, dataset.test.images)
        right = metrics.right(measured.outcomes[run.name])
        print(
            f"[{number}/{len(members)}] {heading}: accuracy {right.mean():.4f} "
            f"({time.monotonic() - started:.0f} s)",
            file=sys.stderr,
        )
    return Table(
        dataset=Tested(
            name=dataset.name,
            label=members[0].config.label,
            checksum=dataset.checksum,
            test=len(dataset.test.labels),
            validation=len(dataset.validation.labels),
        ),
        class_names=dataset.class_names,
        superclasses=dataset.superclasses,
        superclass_names=dataset.superclass_names,
        runs={
            run.name: Trained(
                title=heading,
                config=run.config,
                parameters=run.record.parameters,
                policy=run.record.policy,
                train_seconds=run.record.training_seconds,
                device=run.record.device,
                history=history,
                reported=reported.get(run.path.name),
            )
            for run, heading, history in zip(members, headings, histories, strict=True)
        },
        rows=rows,
        pairs=between_runs.pairs(
            {m.name: metrics.right(measured.outcomes[m.name]) for m in members}
        ),
        groups=[
            dataclasses.replace(
                group,
                ensemble=judging.ensemble(
                    sums[unseeded[group.runs[0]], group.samples], dataset
                ),
            )
            for group in between_runs.over_seeds(members, rows)
        ],
    )


def load_data(run: Run, seed: int) -> datasets.Data:
    """Loads the data of a run, with the validation images of a seed.

    Raises:
        InputError: If its checksum is not the one that the run wrote down.
    """
    name = run.record.dataset.name
    loaded = datasets.load(name, run.config.label, run.config.image_size, seed)
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

    many = tf.constant(np.resize(images, (256, *images.shape[1:])))
    return Timing(
        latency_ms=1000 * median_seconds(many[:1], 50),
        images_per_second=256 / median_seconds(many, 7),
    )


def save(folder: Path, name: str, answer: judging.Answer, labels: np.ndarray):
    path = folder / f"{name}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    with publishing.named(str(path)):
        np.savez_compressed(path, labels=labels, **answer._asdict())


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = jsonargparse.ArgumentParser(
        prog="python -m pipelines.evaluate",
        description="Compares runs, as JSON, CSV, Markdown, PNG and one HTML page.",
        exit_on_error=False,
    )
    parser.add_argument("runs", type=Path, nargs="+", help="Folders of runs.")
    parser.add_argument(
        "--out", type=Path, default="results/comparison", help="The folder to write."
    )
    parser.add_argument(
        "--timings", type=bool, default=True, help="Measure latency and throughput."
    )
    parser.add_argument(
        "--probabilities",
        type=Path | None,
        help="A folder for each run's probabilities on the test images.",
    )
    given = parse(parser, argv)
    evaluate(
        given.runs,
        given.out,
        timings=given.timings,
        probabilities=given.probabilities,
        made_by=f"python -m pipelines.evaluate {shlex.join(map(str, given.runs))}",
    )
    print(f"next: open {given.out / 'comparison.html'} in a browser")
    return 0


if __name__ == "__main__":
    main()
