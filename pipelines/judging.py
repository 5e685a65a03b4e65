"""What a run answers, and how good these answers are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from pipelines import datasets, metrics, saved_model
from pipelines.comparison import Bins, Judgement
from pipelines.errors import InputError
from pipelines.pixels import rgb
from pipelines.run_folder import Run


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
            batch = rgb(tf.constant(images[start : start + saved_model.BATCH]))
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
    answer: Answer, held_out: Answer, dataset: datasets.Data, validation: datasets.Split
) -> tuple[Judgement, Judgement, float, dict[str, np.ndarray]]:
    """The metrics of an answer, before and after temperature scaling.

    Args:
        answer: To the test images.
        held_out: To the validation images.
        dataset: Has the test labels and the superclasses.
        validation: Those images with their labels.

    Returns:
        Both, the temperature of the scaling, and what became of each test image.
    """
    labels = dataset.test.labels
    facts = metrics.as_kept(
        outcomes(answer, dataset)
        | metrics.conformal_sets(
            held_out.log_probabilities,
            validation.labels,
            answer.log_probabilities,
            labels,
        )
    )
    temperature = metrics.fit_temperature(held_out.log_probabilities, validation.labels)
    log_scaled = metrics.tempered(answer.log_probabilities, temperature)
    p_scaled = np.exp(log_scaled)
    scaled = metrics.outcomes(p_scaled, labels, log_scaled)
    calibration = [name for name, m in metrics.METRICS.items() if m.calibration]
    return (
        judged(facts, answer.probabilities, dataset.superclasses),
        judged(scaled, p_scaled, None, calibration),
        temperature,
        facts,
    )


def ensemble(total: np.ndarray, dataset: datasets.Data) -> Judgement:
    """The metrics of the mean of several runs' probabilities, from their sum."""
    mean = total / total.sum(axis=1, keepdims=True)
    facts = metrics.as_kept(outcomes(Answer(mean, metrics.log_of(mean)), dataset))
    return judged(facts, mean, dataset.superclasses)


def outcomes(answer: Answer, dataset: datasets.Data) -> dict[str, np.ndarray]:
    """What became of each test image, with its superclass if the classes have any."""
    probabilities, log_probabilities = answer
    facts = metrics.outcomes(probabilities, dataset.test.labels, log_probabilities)
    if dataset.superclasses:
        facts["superclass"] = metrics.of_superclasses(
            probabilities, dataset.superclasses
        )
    return facts


def judged(
    facts: metrics.Outcomes,
    probabilities: np.ndarray,
    superclasses: Sequence[int] | None,
    names: Sequence[str] | None = None,
) -> Judgement:
    """Metrics of outcomes, with bootstrap intervals of those that have them."""
    classes = probabilities.shape[1]
    resampled = [n for n in names or metrics.METRICS if metrics.METRICS[n].interval]
    return Judgement(
        metrics=metrics.summary(facts, classes, superclasses, names),
        intervals=metrics.bootstrap(
            facts,
            lambda drawn: metrics.summary(drawn, classes, superclasses, resampled),
        ),
        floors=metrics.floors(facts, probabilities),
        reliability=Bins(**metrics.reliability(facts)),
    )
