"""The typed description of a search for a temperature."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from typing import Any, Literal

from pipelines.config import Annealing, Config
from pipelines.errors import InputError

CHIEF = "chief"
TRIALS = 8
REDUCTION = 3  # Hyperband's: how many times longer each round of trials is


@dataclasses.dataclass(frozen=True)
class Search:
    """What is searched, how, and what for.

    Attributes:
        search: What a trial varies: the temperature, a schedule (its kind, start and
            end), or the temperature and the learning rate together (not the one of the
            config).
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


def shortest(epochs: int) -> int:
    """The epochs of Hyperband's shortest trial, if its longest has so many."""
    share = float(epochs)
    while share >= REDUCTION:
        share /= REDUCTION
    return math.ceil(share)


def role() -> str:
    """What this process is among several that search together; empty if alone."""
    return os.environ.get("KERASTUNER_TUNER_ID", "")
