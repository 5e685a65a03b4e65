"""What a run minimises: a loss of its head, or first one and then another.

A loss is named as `NAME` or, with a number, as `NAME:NUMBER`. To add one, add a
function to `LOSSES`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import keras

from kerasoft import losses
from kerasoft.heads import Head
from pipelines.config import Switch
from pipelines.errors import InputError


class Loss(NamedTuple):
    """A kind of loss.

    Attributes:
        make: From a head, the share of label smoothing and the number (`usual` if it is
            not given) to a loss.
        usual: The number, if it is not given; `None` if the loss has none.
        most: The number must be above 0, and at most this.
    """

    make: Callable[[Head, float, float], Callable]
    usual: float | None = None
    most: float = math.inf


def _of_scaled(head: Head, label_smoothing: float, factor: float) -> Callable:
    as_logits = losses.as_logits_loss(head, label_smoothing)
    if factor == 1:
        return as_logits
    return lambda labels, outputs: as_logits(labels, factor * outputs)


def _generalized(head: Head, label_smoothing: float, q: float) -> Callable:
    loss = losses.GeneralizedCrossentropy(
        q, label_smoothing=label_smoothing, axis=head.axis
    )
    return lambda labels, outputs: loss(labels, head.log_probabilities(outputs))


LOSSES = {
    "matched": Loss(lambda head, smoothing, _: losses.matched_loss(head, smoothing)),
    "as_logits": Loss(_of_scaled, usual=1.0),
    "generalized": Loss(_generalized, usual=0.7, most=1.0),
}


def find(name: str) -> tuple[Loss, float]:
    """Finds a loss by its name. Returns it and its number.

    Raises:
        InputError: If there is none, or its number is not possible.
    """
    kind, _, given = name.partition(":")
    loss = LOSSES.get(kind)
    if loss is None:
        raise InputError(f"it must be one of {', '.join(LOSSES)}, not {name}")
    if not given:
        return loss, loss.usual or 0.0
    if loss.usual is None:
        raise InputError(f"{kind} has no number; without it, it is {kind}, not {name}")
    try:
        number = float(given)
    except ValueError:
        number = math.nan
    if not 0 < number <= loss.most or math.isinf(number):
        most = f" and at most {loss.most:g}" if math.isfinite(loss.most) else ""
        raise InputError(f"the number of {kind} must be above 0{most}, not {given}")
    return loss, number


def make(
    loss: str | Switch, head: Head, label_smoothing: float, step: Callable, steps: int
) -> Callable:
    """Makes the loss of a head.

    Of two losses, the validation after the last epoch of the first has the second one
    already, for it counts the steps that were trained.

    Args:
        loss: Its name, or one and another.
        head: The head whose outputs it takes.
        label_smoothing: The share of each target that is spread over the classes.
        step: Tells how many steps were trained.
        steps: How many an epoch has.
    """
    if isinstance(loss, Switch):
        first = make(loss.first, head, label_smoothing, step, steps)
        then = make(loss.then, head, label_smoothing, step, steps)

        def switched(labels, outputs):
            return keras.ops.cond(
                step() < loss.after * steps,
                lambda: first(labels, outputs),
                lambda: then(labels, outputs),
            )

        return switched
    kind, number = find(loss)
    return kind.make(head, label_smoothing, number)
