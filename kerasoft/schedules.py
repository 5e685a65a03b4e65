"""Schedules that Keras lacks, for a temperature or a learning rate."""

import math
import numbers
from typing import Any, TypeAlias

import keras
from keras import ops

from kerasoft.ops import Tensor

LearningRateSchedule = keras.optimizers.schedules.LearningRateSchedule
LearningRate: TypeAlias = "float | keras.optimizers.schedules.LearningRateSchedule"


@keras.saving.register_keras_serializable(package="kerasoft")
class FlooredExponentialDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Exponential decay in steps, down to a floor.

    Formula:

    ```python
    t = update_every * (step // update_every)
    value = max(minimum, initial_value * exp(-rate * t))
    ```

    It depends only on the step, so a resumed run continues with the same values.

    Args:
        initial_value: Float, the value at step 0.
        rate: Non-negative float, the decay per step.
        update_every: Positive integer, the number of steps between changes.
        minimum: Float, the floor.

    Raises:
        ValueError: If `rate` is negative, `update_every` is below 1, or `minimum` is
            above `initial_value`.

    Reference:
        [Jang et al., 2017](https://arxiv.org/abs/1611.01144), section 4, where
        the temperature is `max(0.5, exp(-rate * t))`.

    Example:

    >>> schedule = FlooredExponentialDecay(1.0, rate=1e-3, update_every=500)
    >>> [round(float(schedule(step)), 4) for step in (0, 499, 500, 5000)]
    [1.0, 1.0, 0.6065, 0.5]
    """

    def __init__(
        self,
        initial_value: float,
        rate: float,
        update_every: int = 1,
        minimum: float = 0.5,
    ):
        if rate < 0:
            raise ValueError(
                "`rate` must not be negative, because the value must decrease. "
                f"Received: rate={rate}"
            )
        if update_every < 1:
            raise ValueError(
                "`update_every` must be a number of steps, at least 1. "
                f"Received: update_every={update_every}"
            )
        if minimum > initial_value:
            raise ValueError(
                "`minimum` must not be above `initial_value`. "
                f"Received: minimum={minimum}, initial_value={initial_value}"
            )
        self.initial_value = initial_value
        self.rate = rate
        self.update_every = update_every
        self.minimum = minimum

    def __call__(self, step: Tensor | int) -> Tensor:
        step = ops.cast(step, "int32")
        held = ops.cast(step - step % self.update_every, "float32")
        return ops.maximum(
            self.minimum, self.initial_value * ops.exp(-self.rate * held)
        )

    def get_config(self) -> dict[str, Any]:
        return {
            "initial_value": self.initial_value,
            "rate": self.rate,
            "update_every": self.update_every,
            "minimum": self.minimum,
        }


@keras.saving.register_keras_serializable(package="kerasoft")
class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up from 0, then another schedule.

    Formula:

    ```python
    value = schedule(0) * step / warmup_steps    # while step < warmup_steps
    value = schedule(step - warmup_steps)        # after that
    ```

    Keras has it built into `CosineDecay` alone. It is for a learning rate: a head would
    divide by the temperature of step 0.

    Args:
        schedule: A `keras.optimizers.schedules.LearningRateSchedule`.
        warmup_steps: Positive integer, the steps of the warm-up.

    Raises:
        ValueError: If `schedule` is none, or `warmup_steps` is not a positive integer.

    Example:

    >>> falling = keras.optimizers.schedules.PolynomialDecay(0.1, 8, 0.0)
    >>> schedule = WarmUp(falling, warmup_steps=2)
    >>> [round(float(schedule(step)), 4) for step in (0, 1, 2, 6, 10)]
    [0.0, 0.05, 0.1, 0.05, 0.0]
    """

    def __init__(self, schedule: Any, warmup_steps: int):
        if not isinstance(schedule, LearningRateSchedule):
            raise ValueError(
                "`schedule` must be a `keras.optimizers.schedules."
                f"LearningRateSchedule`. Received: schedule={schedule!r}"
            )
        if not isinstance(warmup_steps, numbers.Integral) or warmup_steps < 1:
            raise ValueError(
                "`warmup_steps` must be a number of steps, at least 1. "
                f"Received: warmup_steps={warmup_steps}"
            )
        self.schedule = schedule
        self.warmup_steps = warmup_steps

    def __call__(self, step: Tensor | int) -> Tensor:
        step = ops.cast(step, "float32")
        risen = ops.minimum(step / self.warmup_steps, 1.0)
        value = self.schedule(ops.maximum(step - self.warmup_steps, 0.0))
        return risen * ops.cast(value, "float32")

    def get_config(self) -> dict[str, Any]:
        return {
            "schedule": keras.optimizers.schedules.serialize(self.schedule),
            "warmup_steps": self.warmup_steps,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "WarmUp":
        schedule = keras.optimizers.schedules.deserialize(config["schedule"])
        return cls(schedule, config["warmup_steps"])


# The learning rate of a layer that updates its own weights


def checked_rate(rate: Any) -> LearningRate:
    """Checks a learning rate that was passed or read from a config, and returns it.

    Raises:
        ValueError: If it is neither a positive number nor a schedule.
    """
    if isinstance(rate, dict):
        rate = keras.optimizers.schedules.deserialize(rate)
    if isinstance(rate, LearningRateSchedule):
        return rate
    number = isinstance(rate, numbers.Real) and not isinstance(rate, bool)
    if not number or not 0 < float(rate) < math.inf:
        raise ValueError(
            "`learning_rate` must be a positive number or a `keras.optimizers."
            f"schedules.LearningRateSchedule`. Received: learning_rate={rate!r}"
        )
    return float(rate)


def rate_at(rate: LearningRate, step: Tensor) -> Tensor | float:
    """The learning rate at a step."""
    if isinstance(rate, LearningRateSchedule):
        return ops.cast(rate(step), "float32")  # pyright: ignore[reportCallIssue]
    return rate


def rate_config(rate: LearningRate) -> Any:
    """The learning rate as a config that `checked_rate` reads."""
    if isinstance(rate, LearningRateSchedule):
        return keras.optimizers.schedules.serialize(rate)
    return rate
