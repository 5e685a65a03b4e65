"""The loss that matches a head, and the mismatch of which the name warns."""

import keras
from keras import ops

from kerasoft import heads
from kerasoft import ops as family

LOG_PROBABILITIES = {
    "probabilities": lambda y: ops.log(ops.maximum(y, family.TINY)),
    "log_probabilities": lambda y: y,
    "logits": family.log_softmax,
}


@keras.saving.register_keras_serializable(package="kerasoft")
class Crossentropy(keras.losses.Loss):
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
        reads: `"probabilities"`, `"log_probabilities"` or `"logits"`.
        label_smoothing: Float in [0, 1), the share of each target that is spread
            evenly over the classes.
        **kwargs: Base loss keyword arguments, such as `name` and `reduction`.

    Call arguments:
        y_true: Integer labels of shape `(...)` or `(..., 1)`, or a distribution over
            the classes of shape `(..., num_classes)`.
        y_pred: The head's output, of shape `(..., num_classes)`.

    Raises:
        ValueError: If `reads` is none of the three, or `label_smoothing` is outside
            [0, 1).

    Example:

    >>> loss = Crossentropy(reads="probabilities")
    >>> float(loss(np.array([1]), np.array([[0.5, 0.25, 0.25]]))) == np.log(4).astype("f")
    True
    """

    def __init__(
        self, reads="log_probabilities", label_smoothing=0.0, name=None, **kwargs
    ):
        super().__init__(name=name or f"crossentropy_of_{reads}", **kwargs)
        if reads not in LOG_PROBABILITIES:
            raise ValueError(
                f"`reads` must be one of {', '.join(LOG_PROBABILITIES)}. "
                f"Received: reads={reads!r}"
            )
        if not 0 <= label_smoothing < 1:
            raise ValueError(
                "`label_smoothing` must be at least 0 and below 1. "
                f"Received: label_smoothing={label_smoothing}"
            )
        self.reads = reads
        self.label_smoothing = label_smoothing

    def call(self, y_true, y_pred):
        log_probabilities = LOG_PROBABILITIES[self.reads](y_pred)
        target = as_distribution(y_true, y_pred)
        if self.label_smoothing:
            share = self.label_smoothing
            target = target * (1 - share) + share / y_pred.shape[-1]
        return -ops.sum(target * log_probabilities, axis=-1)

    def get_config(self):
        return {
            **super().get_config(),
            "reads": self.reads,
            "label_smoothing": self.label_smoothing,
        }


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
    return Crossentropy(heads.outputs_of(head), label_smoothing=label_smoothing)


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
    return Crossentropy("logits", label_smoothing=label_smoothing)


def as_distribution(y_true, y_pred):
    """Integer labels as one-hot rows of the shape of `y_pred`; distributions as is."""
    if len(y_true.shape) == len(y_pred.shape) and y_true.shape[-1] != 1:
        return y_true
    if len(y_true.shape) == len(y_pred.shape):
        y_true = ops.squeeze(y_true, axis=-1)
    return ops.one_hot(ops.cast(y_true, "int32"), y_pred.shape[-1], dtype="float32")
