"""What a run answers, and how good these answers are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from pipelines import datasets, metrics, saved_model
from pipelines.comparison import Bins, Judgement
from pipelines.datasets.source import Split
from pipelines.errors import InputError
from pipelines.run_folder import Run

MANY = 1000  # classes: of more, not all probabilities are held at once
RESAMPLES = 1000  # of the images, for intervals
HELD = 2 * 10**7  # probabilities of validation images that are


class Answer(NamedTuple):
    """Probabilities and their logarithms, of shape `(n, classes)`."""

    probabilities: np.ndarray
    log_probabilities: np.ndarray


class Judged(NamedTuple):
    """What came of a run's answers to the test images.

    Attributes:
        as_is: The metrics of the answers.
        scaled: Those after temperature scaling.
        temperature: That of the scaling.
        facts: What became of each image.
        answer: The answers, of up to `MANY` classes.
    """

    as_is: Judgement
    scaled: Judgement
    temperature: float
    facts: dict[str, np.ndarray]
    answer: Answer | None


def answers(
    run: Run, serve: Callable, images: np.ndarray, samples: int = 0
) -> Iterator[Answer]:
    """What a run answers, batch by batch.

    Args:
        run: Whose it is.
        serve: Its serving function, from `formats.load`.
        images: uint8 of shape `(n, height, width, channels)`.
        samples: 0 for the answer without noise, or how many noisy draws to average.

    Raises:
        InputError: If an answer is not finite.
    """
    for start, batch in saved_model.in_batches(images):
        if samples:
            seeds = tf.range(start, start + samples, dtype=tf.int64)
            drawn = serve.sample(images=batch, seeds=seeds)["probabilities"].numpy()
            mean = drawn.mean(axis=0, dtype="float64")
            answer = Answer(mean, metrics.log_of(mean))
        else:
            served = serve(images=batch)
            answer = Answer(*(served[name].numpy() for name in Answer._fields))
        if not all(np.isfinite(array).all() for array in answer):
            raise InputError(
                f"The run {run.name} gives probabilities that are not finite."
            )
        yield answer


def whole(parts: Sequence[Answer]) -> Answer:
    return Answer(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def judge(
    run: Run,
    serve: Callable,
    samples: int,
    dataset: datasets.Data,
    validation: Split,
) -> Judged:
    """The metrics of a run's answers, before and after temperature scaling.

    Args:
        run: Whose they are.
        serve: Its serving function, from `formats.load`.
        samples: See `answers`.
        dataset: Has the test images and the superclasses.
        validation: Images to fit the temperatures and the sets on; of very many
            classes, some of them are enough.
    """
    classes, superclasses = len(dataset.class_names), dataset.superclasses
    most = min(HELD // classes, len(validation.labels))
    rows = np.random.default_rng(0).permutation(len(validation.labels))[:most]
    rows = np.sort(rows)
    labels = validation.labels[rows]
    held = whole(list(answers(run, serve, validation.images[rows], samples)))
    temperature = metrics.fit_temperature(held.log_probabilities, labels)
    threshold = metrics.conformal_threshold(held.log_probabilities, labels)
    as_is, scaled = defaultdict(list), defaultdict(list)
    kept, kept_scaled = [], []
    tested = answers(run, serve, dataset.test.images, samples)
    for answer, truth in labelled(tested, dataset.test.labels):
        log_p = answer.log_probabilities
        facts = outcomes(answer, truth, superclasses)
        _add(facts | metrics.conformal_sets(log_p, truth, threshold), as_is)
        log_scaled = metrics.tempered(log_p, temperature)
        p_scaled = np.exp(log_scaled)
        _add(metrics.outcomes(p_scaled, truth, log_scaled), scaled)
        if classes <= MANY:
            kept.append(answer)
            kept_scaled.append(p_scaled)
    if dataset.harder:
        for answer in answers(run, serve, dataset.harder(), samples):
            predicted = answer.log_probabilities.argmax(axis=1)
            _add({"predicted_of_harder": predicted}, as_is)
    facts, answer = metrics.as_kept(_joined(as_is)), whole(kept) if kept else None
    p = answer.probabilities if answer else None
    p_scaled = np.concatenate(kept_scaled) if kept else None
    calibration = [name for name, m in metrics.METRICS.items() if m.calibration]
    return Judged(
        as_is=judged(facts, p, superclasses),
        scaled=judged(_joined(scaled), p_scaled, None, calibration),
        temperature=temperature,
        facts=facts,
        answer=answer,
    )


def labelled(
    parts: Iterable[Answer], labels: np.ndarray
) -> Iterator[tuple[Answer, np.ndarray]]:
    """Answers that come batch by batch, each with its labels."""
    start = 0
    for answer in parts:
        truth = labels[start : start + len(answer.probabilities)]
        start += len(truth)
        yield answer, truth


def _add(columns: dict[str, np.ndarray], to: dict[str, list]):
    for name, column in columns.items():
        to[name].append(column)


def _joined(columns: dict[str, list]) -> dict[str, np.ndarray]:
    return {name: np.concatenate(parts) for name, parts in columns.items()}


def ensemble(total: np.ndarray, dataset: datasets.Data) -> Judgement:
    """The metrics of the mean of several runs' probabilities, from their sum."""
    mean = total / total.sum(axis=1, keepdims=True)
    answer = Answer(mean, metrics.log_of(mean))
    facts = outcomes(answer, dataset.test.labels, dataset.superclasses)
    return judged(metrics.as_kept(facts), mean, dataset.superclasses)


def outcomes(
    answer: Answer, labels: np.ndarray, superclasses: Sequence[int] | None
) -> dict[str, np.ndarray]:
    """What became of each image, with its superclass if the classes have any."""
    probabilities, log_probabilities = answer
    facts = metrics.outcomes(probabilities, labels, log_probabilities)
    if superclasses:
        facts["superclass"] = metrics.of_superclasses(probabilities, superclasses)
    return facts


def outcomes_of(
    parts: Iterable[Answer], labels: np.ndarray, superclasses: Sequence[int] | None
) -> dict[str, np.ndarray]:
    """What became of each image, of answers that come batch by batch."""
    columns = defaultdict(list)
    for answer, truth in labelled(parts, labels):
        _add(outcomes(answer, truth, superclasses), columns)
    return _joined(columns)


def judged(
    facts: metrics.Outcomes,
    probabilities: np.ndarray | None,
    superclasses: Sequence[int] | None,
    names: Sequence[str] | None = None,
) -> Judgement:
    """Metrics of outcomes, with bootstrap intervals of those that have them.

    The class-wise calibration error is of all the probabilities, if they are given.
    """
    small = metrics.has_small_classes(facts["label"])
    resampled = [
        name
        for name in names or metrics.METRICS
        if metrics.METRICS[name].interval
        and not (small and metrics.METRICS[name].macro)
    ]
    known = dict(facts)
    if probabilities is not None:
        gaps = metrics.classwise_gaps(probabilities, facts["label"])
        known["classwise_gap"] = gaps
    return Judgement(
        metrics=metrics.summary(known, superclasses, names),
        intervals=metrics.bootstrap(
            facts,
            lambda drawn: metrics.summary(drawn, superclasses, resampled),
            RESAMPLES,
        ),
        floors=metrics.floors(facts, probabilities),
        reliability=Bins(**metrics.reliability(facts)),
    )
