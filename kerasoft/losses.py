"""The loss that matches a head, and the mismatch of which the name warns."""

import keras
from keras import ops

from kerasoft import heads
from kerasoft import ops as family
from kerasoft.heads.base import register

LOG_PROBABILITIES = {
    "probabilities": lambda y: ops.log(ops.maximum(y, family.TINY)),
    "sparse_probabilities": lambda y: ops.log(ops.maximum(y, family.TINY)),
    "log_probabilities": lambda y: y,
    "logits": family.log_softmax,
}


class HeadLoss(keras.losses.Loss):
    """Base of the losses: labels or distributions as targets, smoothed.

    Args:
        label_smoothing: Float in [0, 1), the share of each target that is spread
            evenly over the classes.
        **kwargs: Base loss keyword arguments, such as `name` and `reduction`.

    Raises:
        ValueError: If `label_smoothing` is outside [0, 1).
    """

    def __init__(self, label_smoothing=0.0, **kwargs):
        super().__init__(**kwargs)
        if not 0 <= label_smoothing < 1:
            raise ValueError(
                "`label_smoothing` must be at least 0 and below 1. "
                f"Received: label_smoothing={label_smoothing}"
            )
        self.label_smoothing = label_smoothing

    def targets(self, y_true, y_pred):
        """The distributions that `y_true` asks for, of the shape of `y_pred`."""
        num_classes = y_pred.shape[-1]
        if len(y_true.shape) == len(y_pred.shape) and y_true.shape[-1] == 1:
            y_true = ops.squeeze(y_true, axis=-1)
        if len(y_true.shape) < len(y_pred.shape):
            y_true = ops.one_hot(
                ops.cast(y_true, "int32"), num_classes, dtype="float32"
            )
        share = self.label_smoothing
        return y_true * (1 - share) + share / num_classes if share else y_true

    def get_config(self):
        return {**super().get_config(), "label_smoothing": self.label_smoothing}


@register
class Crossentropy(HeadLoss):
    """Cross-entropy of a head's output, taken for what `reads` says that it is.

    Formula:

    ```python
    target = (1 - label_smoothing) * one_hot(y_true) + label_smoothing / num_classes
    loss = -sum(target * log_probabilities)
    ```

    Where `reads="probabilities"`, the log-probabilities are `log(max(y_pred, tiny))`;
    where `reads="logits"`, they are `log_softmax(y_pred)`, applied to the output
    itself. (Keras's own cross-entropy looks behind the output of a softmax for the
    logits that it came from, and so hides the difference.)

    Args:
        reads: `"probabilities"`, `"sparse_probabilities"`, `"log_probabilities"` or
            `"logits"`.
        label_smoothing: Float in [0, 1), the share of each target that is spread
            evenly over the classes.
        **kwargs: Base loss keyword arguments, such as `name` and `reduction`.

    Call arguments:
        y_true: Integer labels of shape `(...)` or `(..., 1)`, or a distribution over
            the classes of shape `(..., num_classes)`.
        y_pred: The head's output, of shape `(..., num_classes)`.

    Raises:
        ValueError: If `reads` is none of the four, or `label_smoothing` is outside
            [0, 1).

    Example:

    >>> loss = Crossentropy(reads="probabilities")
    >>> float(loss(np.array([1]), np.array([[0.5, 0.25, 0.25]])) / np.log(2))
    2.0
    """

    def __init__(
        self, reads="log_probabilities", label_smoothing=0.0, name=None, **kwargs
    ):
        super().__init__(
            label_smoothing, name=name or f"crossentropy_of_{reads}", **kwargs
        )
        if reads not in LOG_PROBABILITIES:
            raise ValueError(
                f"`reads` must be one of {', '.join(LOG_PROBABILITIES)}. "
                f"Received: reads={reads!r}"
            )
        self.reads = reads

    def call(self, y_true, y_pred):
        log_probabilities = LOG_PROBABILITIES[self.reads](y_pred)
        return -ops.sum(self.targets(y_true, y_pred) * log_probabilities, axis=-1)

    def get_config(self):
        return {**super().get_config(), "reads": self.reads}


@register
class SquaredError(HeadLoss):
    """Half the squared distance between probabilities and target.

    Formula:

    ```python
    target = (1 - label_smoothing) * one_hot(y_true) + label_smoothing / num_classes
    loss = 0.5 * sum((y_pred - target) ** 2)
    ```

    Its gradient is `y_pred - target`, which a straight-through `Sparsemax` hands to
    the logits: the gradient of the sparsemax loss.

    Args:
        label_smoothing: Float in [0, 1), the share of each target that is spread
            evenly over the classes.
        **kwargs: Base loss keyword arguments, such as `name` and `reduction`.

    Call arguments:
        y_true: Integer labels of shape `(...)` or `(..., 1)`, or a distribution over
            the classes of shape `(..., num_classes)`.
        y_pred: Probabilities of shape `(..., num_classes)`.

    Raises:
        ValueError: If `label_smoothing` is outside [0, 1).

    Reference:
        [Martins and Astudillo, 2016](https://arxiv.org/abs/1602.02068), section 3.

    Example:

    >>> float(SquaredError()(np.array([0]), np.array([[0.5, 0.5]])))
    0.25
    """

    def call(self, y_true, y_pred):
        error = y_pred - self.targets(y_true, y_pred)
        return ops.sum(error * error, axis=-1) / 2


def matched_loss(head, label_smoothing=0.0):
    """The loss that takes a head's output for what it is.

    Args:
        head: A layer of `kerasoft.heads`, or `keras.layers.Softmax`.
        label_smoothing: Float in [0, 1).

    Returns:
        A `keras.losses.Loss`.

    Raises:
        ValueError: If `head` is no head, or `label_smoothing` is outside [0, 1).

    Example:

    >>> matched_loss(heads.LogSoftmax()).reads
    'log_probabilities'
    """
    outputs = heads.outputs_of(head)
    if outputs == "sparse_probabilities":
        return SquaredError(label_smoothing)
    return Crossentropy(outputs, label_smoothing)


def as_logits_loss(head, label_smoothing=0.0):
    """The mistake by its name: the head's output taken for logits.

    The loss applies log-softmax to it once more. That changes nothing for
    log-probabilities. For probabilities over N classes it keeps the loss above
    `log(1 + (N - 1) / e)`, 3.62 for 100 classes, and flattens the gradient.

    Args:
        head: A layer of `kerasoft.heads`, or `keras.layers.Softmax`.
        label_smoothing: Float in [0, 1).

    Returns:
        A `keras.losses.Loss`.

    Raises:
        ValueError: If `head` is no head, or `label_smoothing` is outside [0, 1).

    Example:

    >>> as_logits_loss(heads.LogSoftmax()).reads
    'logits'
    """
    heads.outputs_of(head)
    return Crossentropy("logits", label_smoothing)
