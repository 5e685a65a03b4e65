"""The matched losses of the heads, and the loss that treats outputs as logits."""

from typing import TYPE_CHECKING

import keras

from kerasoft.losses.base import (
    HeadLoss,
    attach_logits,
    attached_logits,
    checked_labels,
    raise_unless,
    register,
)
from kerasoft.losses.crossentropy import Crossentropy
from kerasoft.losses.entmax import EntmaxLoss
from kerasoft.losses.generalized import GeneralizedCrossentropy
from kerasoft.losses.z import ZLoss

if TYPE_CHECKING:
    from kerasoft.heads import Head

__all__ = [
    "Crossentropy",
    "EntmaxLoss",
    "GeneralizedCrossentropy",
    "HeadLoss",
    "ZLoss",
    "as_logits_loss",
    "attach_logits",
    "attached_logits",
    "checked_labels",
    "matched_loss",
    "raise_unless",
    "register",
]


def matched_loss(
    head: "str | keras.layers.Layer",
    label_smoothing: float = 0.0,
    ignore_class: int | None = None,
) -> keras.losses.Loss:
    """The loss that interprets a head's output correctly.

    Args:
        head: A head, its name, a layer that wraps one (such as
            `keras.layers.TimeDistributed`), or a model that ends in one.
        label_smoothing: See `HeadLoss`.
        ignore_class: See `HeadLoss`.

    Returns:
        A `keras.losses.Loss`.

    Raises:
        ValueError: If there is no head there, or `label_smoothing` is outside [0, 1).

    Example:

    >>> matched_loss(heads.LogSoftmax()).reads
    'log_probabilities'
    """
    return _find(head).matched_loss(
        label_smoothing=label_smoothing, ignore_class=ignore_class
    )


def as_logits_loss(
    head: "str | keras.layers.Layer",
    label_smoothing: float = 0.0,
    ignore_class: int | None = None,
) -> keras.losses.Loss:
    """The loss that interprets a head's output as logits, which is a mistake.

    It applies log-softmax to the output once more. That changes nothing for
    log-probabilities. For probabilities of N classes, the loss cannot fall below
    `log(1 + (N - 1) / e)`, 3.62 for 100 classes, and its gradient is small.

    Args:
        head: As for `matched_loss`.
        label_smoothing: See `HeadLoss`.
        ignore_class: See `HeadLoss`.

    Returns:
        A `keras.losses.Loss`.

    Raises:
        ValueError: If there is no head there, or `label_smoothing` is outside [0, 1).

    Example:

    >>> as_logits_loss(heads.LogSoftmax()).reads
    'logits'
    """
    return Crossentropy("logits", label_smoothing, ignore_class, _find(head).axis)


def _find(head: "str | keras.layers.Layer") -> "Head":
    from kerasoft import heads  # which imports this module

    return heads.find(head)
