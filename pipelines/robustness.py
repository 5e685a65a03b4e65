"""What a run answers to changed images and to images of other things."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp
from sklearn.metrics import roc_auc_score, roc_curve

from pipelines import datasets, judging, metrics, saved_model
from pipelines.comparison import Shifted, Unfamiliar
from pipelines.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from pipelines.errors import InputError
from pipelines.pixels import rgb
from pipelines.run_folder import Run

METRICS = ("accuracy", "nll", "ece")
ACCEPTED = 0.95  # of the test images
NO_ENERGY = 1e-4  # the rounding of the logarithm of a sum that is 1


def shifted(run: Run, serve: Callable, dataset: datasets.Data) -> list[Shifted]:
    """The metrics on the test images under each corruption, by severity.

    Args:
        run: Whose answers they are.
        serve: Its serving function, from `formats.load`.
        dataset: Has the test images.
    """
    images, labels = np.asarray(rgb(dataset.test.images)), dataset.test.labels

    def numbers(name, severity):
        changed = corrupt(images, name, severity)
        answers = judging.answers(run, serve, changed)
        return metrics.summary(
            judging.outcomes_of(answers, labels, None), names=METRICS
        )

    found = []
    for name in CORRUPTIONS:
        by_severity = [numbers(name, severity) for severity in SEVERITIES]
        columns = {metric: [n[metric] for n in by_severity] for metric in METRICS}
        found.append(Shifted(row=run.name, corruption=name, metrics=columns))
    return found


class Others(NamedTuple):
    """The test images of another data set, and its name."""

    name: str
    images: np.ndarray


def check_other(name: str, own: str):
    """Refuses a data set that is none, or that of the runs.

    Raises:
        InputError: If it is.
    """
    datasets.find(name)
    if name == own:
        raise InputError(
            f"The runs are judged on {own}: as --ood, name another data set."
        )


def others(name: str, size: int) -> Others:
    """The test images of another data set.

    Args:
        name: One of `datasets.DATASETS`.
        size: The side to which images are resized, where they are not all of one size.
    """
    return Others(name, datasets.find(name)(size).test)


def unfamiliar(
    run: Run, serve: Callable, dataset: datasets.Data, foreign: Others
) -> list[Unfamiliar]:
    """How well scores tell a run's test images from others.

    The scores are the maximum probability (arXiv 1610.02136) and the logarithm of the
    sum of the exponentials of the logits, the energy with its sign changed (arXiv
    2010.03759, equation 4). SavedModels of before they gave logits have no energy; nor
    have networks whose logits are log-probabilities, of which it is 0.

    Args:
        run: Whose answers they are.
        serve: Its serving function, from `formats.load`.
        dataset: Has the test images.
        foreign: The others.
    """

    def of_batch(images):
        answer = serve(images=images)
        found = {"maximum probability": answer["probabilities"].numpy().max(axis=1)}
        if "logits" in answer:
            logits = answer["logits"].numpy().astype("float64")
            found["energy"] = logsumexp(logits, axis=1)
        return found

    ours, theirs = (
        saved_model.gather(of_batch, images)
        for images in (dataset.test.images, foreign.images)
    )
    if np.abs(ours.get("energy", 1.0)).max() < NO_ENERGY:
        del ours["energy"]
    return [
        Unfamiliar(
            row=run.name,
            dataset=foreign.name,
            images=len(foreign.images),
            score=score,
            **separation(ours[score], theirs[score]),
        )
        for score in ours
    ]


def separation(ours: np.ndarray, theirs: np.ndarray) -> dict[str, float]:
    """How well a score that is high for ours tells them from theirs."""
    scores = np.concatenate([ours, theirs])
    is_ours = np.arange(len(scores)) < len(ours)
    false, true, _ = roc_curve(is_ours, scores, drop_intermediate=False)
    return {
        "auroc": float(roc_auc_score(is_ours, scores)),
        "fpr95": float(false[np.argmax(true >= ACCEPTED)]),
    }
