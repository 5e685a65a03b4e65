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
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import jsonargparse
import numpy as np
import tensorflow as tf

from pipelines import datasets, metrics, report, runs, saved_model
from pipelines.config import command, parse
from pipelines.errors import InputError
from pipelines.provenance import provenance
from pipelines.runs import Run

SAMPLES = 16


def evaluate(
    paths: Iterable[Path],
    out: Path,
    reported: Mapping[str, Mapping] | None = None,
    timings: bool = True,
    probabilities: Path | None = None,
    made_by: str = "",
) -> dict:
    """Compares runs and writes the comparison as JSON, CSV, Markdown, PNG and HTML.

    Args:
        paths: The runs' folders; files among them are left out.
        out: The folder to write; what else lies there stays.
        reported: By the names of runs, figures from elsewhere to show beside ours.
        timings: Whether to measure latency and throughput too.
        probabilities: A folder in which to leave what each run said, as `RUN.npz`.
        made_by: The command, for the record.

    Returns:
        The comparison, as `report.keep` and `report.write` take it.

    Raises:
        InputError: If there are no runs, one is damaged, its data is not there, or
            `out` is a file.
    """
    out = out.resolve()
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; --out names a folder.")
    found = runs.read(paths)
    made = provenance()
    comparison = {
        "command": made_by,
        "commit": made["commit"],
        "device": made["device"],
        "versions": made["versions"],
        "tables": [
            compare(members, reported or {}, timings, probabilities)
            for members in runs.comparable(found)
        ],
    }
    work = report.workplace(out)
    report.keep(comparison, work)
    report.write(comparison, work)
    report.publish(work, out)
    return comparison


def compare(
    members: Sequence[Run],
    reported: Mapping[str, Mapping],
    timings: bool = False,
    probabilities: Path | None = None,
) -> dict:
    """Evaluates runs that can be compared: one table.

    Noisy heads have two rows: without noise, and the mean of 16 noisy samples.

    Raises:
        InputError: If the data is not what the runs were trained on.
    """
    tf.config.experimental.enable_op_determinism()
    validation_of = functools.cache(lambda seed: load_data(members[0], seed).validation)
    dataset = load_data(members[0], members[0].config.seed)
    table: dict[str, Any] = {
        "dataset": {
            "name": dataset.name,
            "label": members[0].config.label,
            "checksum": dataset.checksum,
            "test": len(dataset.test.labels),
            "validation": len(dataset.validation.labels),
        },
        "class_names": dataset.class_names,
        "superclasses": dataset.superclasses,
        "superclass_names": dataset.superclass_names,
        "runs": {},
        "rows": [],
    }
    right = {}
    for run, heading in zip(members, runs.headings(members), strict=True):
        started = time.monotonic()
        serve, class_names, _ = saved_model.load(run.path)
        if class_names != dataset.class_names:
            raise InputError(
                f"The classes of {run.name} have other names than those of "
                f"{dataset.name}, so it was trained on another data set."
            )
        validation = validation_of(run.config.seed)
        noisy = serve.sample and run.config.noise != "never"
        for samples in (0, SAMPLES) if noisy else (0,):
            answer = ask(run, serve, dataset.test.images, samples)
            held_out = ask(run, serve, validation.images, samples)
            row, facts = judge(answer, held_out, dataset, validation.labels)
            row |= {
                "outcomes": facts,
                "id": run.name + f"-{samples}samples" * bool(samples),
                "run": run.name,
                "title": heading + f", {samples} samples" * bool(samples),
                "samples": samples,
                # Of scores, probabilities are made that nothing calibrated.
                "scores": run.record.get("outputs") == "scores",
            }
            table["rows"].append(row)
            if not samples:
                right[run.name] = facts["predicted"] == facts["label"]
            if probabilities:
                keep(probabilities, row["id"], answer, dataset.test.labels)
        table["runs"][run.name] = {
            "title": heading,
            "config": dataclasses.asdict(run.config),
            "parameters": run.record["parameters"],
            "policy": run.record["policy"],
            "train_seconds": runs.training_seconds(run.record),
            "device": run.record["device"],
            "history": runs.read_history(run.path),
            "reported": reported.get(run.path.name),
            "timing": speed(serve, dataset.test.images) if timings else None,
        }
        print(
            f"[{len(table['runs'])}/{len(members)}] {heading}: accuracy "
            f"{right[run.name].mean():.4f} ({time.monotonic() - started:.0f} s)",
            file=sys.stderr,
        )
    table["pairs"] = pairs(right)
    table["seeds"] = over_seeds(members, table["rows"])
    return table


def load_data(run: Run, seed: int) -> datasets.Data:
    """Loads the data of a run, with the validation images of a seed.

    Raises:
        InputError: If its checksum is not the one that the run wrote down.
    """
    name = run.record["dataset"]["name"]
    loaded = datasets.load(name, run.config.label, run.config.image_size, seed)
    trained_on = run.record["dataset"]["checksum"]
    if loaded.checksum != trained_on:
        raise InputError(
            f"{name} is not what {run.name} was trained on: its checksum begins with "
            f"{loaded.checksum[:12]}, the run's with {trained_on[:12]}."
        )
    return loaded


class Answer(NamedTuple):
    """Probabilities and their logarithms, of shape `(n, classes)`."""

    probabilities: np.ndarray
    log_probabilities: np.ndarray


def ask(run: Run, serve: Callable, images: np.ndarray, samples: int = 0) -> Answer:
    """What a SavedModel answers.

    Args:
        run: Whose it is.
        serve: Its serving function, from `saved_model.load`.
        images: uint8 of shape `(n, height, width, 3)`.
        samples: 0 for the answer without noise, or how many noisy draws to average.

    Raises:
        InputError: If an answer is not finite.
    """
    if samples:
        means = []
        for start in range(0, len(images), saved_model.BATCH):
            batch = tf.constant(images[start : start + saved_model.BATCH])
            seeds = tf.range(start, start + samples, dtype=tf.int64)
            drawn = serve.sample(images=batch, seeds=seeds)["probabilities"].numpy()
            means.append(drawn.mean(axis=0, dtype="float64"))
        mean = np.concatenate(means)
        answer = Answer(mean, metrics.log_of(mean))
    else:
        answer = Answer(*saved_model.ask(serve, images, *Answer._fields))
    if not all(np.isfinite(array).all() for array in answer):
        raise InputError(f"The run {run.name} gives probabilities that are not finite.")
    return answer


def judge(
    answer: Answer,
    held_out: Answer,
    dataset: datasets.Data,
    held_out_labels: np.ndarray,
) -> tuple[dict, dict[str, np.ndarray]]:
    """The metrics of an answer, before and after temperature scaling.

    Args:
        answer: To the test images.
        held_out: To the validation images, on which the temperature is fitted.
        dataset: Has the test labels and the superclasses.
        held_out_labels: The labels of the validation images.

    Returns:
        The metrics by name, and what became of each test image.
    """
    classes, labels = len(dataset.class_names), dataset.test.labels

    def summary(facts):
        return metrics.summary(facts, classes, dataset.superclasses)

    facts = metrics.as_kept(
        metrics.outcomes(answer.probabilities, labels, answer.log_probabilities)
    )
    temperature = metrics.fit_temperature(held_out.log_probabilities, held_out_labels)
    scaled = metrics.tempered(answer.log_probabilities, temperature)
    calibrated = metrics.outcomes(np.exp(scaled), labels, scaled)
    row = {
        "metrics": summary(facts),
        "intervals": intervals(facts, summary),
        "calibrated": metrics.calibration(calibrated),
        "calibrated_intervals": intervals(calibrated, metrics.calibration),
        "temperature": temperature,
        "reliability": metrics.reliability(facts),
        "calibrated_reliability": metrics.reliability(calibrated),
        "confusion": metrics.confusion(facts["predicted"], facts["label"], classes),
    }
    return row, facts


def intervals(facts: metrics.Outcomes, summary: Callable) -> dict[str, list[float]]:
    """Bootstrap intervals of the metrics that have them."""
    found = metrics.bootstrap(facts, summary)
    return {n: ends for n, ends in found.items() if metrics.METRICS[n].interval}


def pairs(right: Mapping[str, np.ndarray]) -> list[dict]:
    """McNemar's test between all runs, corrected by Holm over all the pairs.

    Args:
        right: By the names of runs, which of the same images each has right.
    """
    tested = [
        {
            "a": a,
            "b": b,
            "difference": float(right[a].mean() - right[b].mean()),
            **metrics.mcnemar(right[a], right[b]),
        }
        for a, b in combinations(right, 2)
    ]
    adjusted = metrics.holm([pair["p"] for pair in tested])
    return [{**pair, "p_holm": p} for pair, p in zip(tested, adjusted, strict=True)]


def over_seeds(members: Sequence[Run], rows: Sequence[dict]) -> list[dict]:
    """Mean and standard deviation of the runs that differ by their seed alone."""
    unseeded = [dataclasses.replace(run.config, seed=0) for run in members]
    titled = dict(zip(unseeded, runs.titles(unseeded), strict=True))
    config_of = dict(zip((run.name for run in members), unseeded, strict=True))
    groups = defaultdict(list)
    for row in rows:
        groups[config_of[row["run"]], row["samples"]].append(row)
    return [
        {
            "title": titled[config] + f", {samples} samples" * bool(samples),
            "samples": samples,
            "scores": group[0]["scores"],
            "runs": [row["run"] for row in group],
            **{
                part: {
                    name: {
                        "mean": statistics.fmean(row[part][name] for row in group),
                        "std": statistics.stdev(row[part][name] for row in group),
                    }
                    for name in group[0][part]
                }
                for part in ("metrics", "calibrated")
            },
        }
        for (config, samples), group in groups.items()
        if len(group) > 1
    ]


def speed(serve: Callable, images: np.ndarray) -> dict[str, float]:
    """Median milliseconds for one image, and images a second in batches of 256."""

    def median_seconds(batch, repeats):
        times = []
        for _ in range(repeats + 2):  # the first two warm up
            started = time.perf_counter()
            serve(images=batch)["probabilities"].numpy()
            times.append(time.perf_counter() - started)
        return statistics.median(times[2:])

    many = tf.constant(np.resize(images, (256, *images.shape[1:])))
    return {
        "latency_ms": 1000 * median_seconds(many[:1], 50),
        "images_per_second": 256 / median_seconds(many, 7),
    }


def keep(folder: Path, name: str, answer: Answer, labels: np.ndarray):
    path = folder / f"{name}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
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
