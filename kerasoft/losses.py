"""The matched losses of the heads, and the loss that treats outputs as logits."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras
from keras import backend, ops

from kerasoft import _keras
from kerasoft import ops as family
from kerasoft.ops import Tensor

if TYPE_CHECKING:
    from kerasoft.heads import Head

register = keras.saving.register_keras_serializable(package="kerasoft")

PROJECTIONS = {1.5: family.entmax15, 2.0: family.sparsemax}
_LOGITS = "_kerasoft_logits"


class HeadLoss(keras.losses.Loss):
    """Base of the losses: labels or distributions as targets, with label smoothing.

    All losses share these properties:

    - Targets are integer labels of the shape of `y_pred` without the axis of the
      classes (or with size 1 there), or distributions of the shape of `y_pred`. Labels
      are not converted to one-hot.
    - A label outside `0..N-1` raises an error where values can be checked: on
      TensorFlow, on PyTorch on the CPU, and on JAX outside `jit`. Elsewhere the loss
      is NaN.
    - Steps that a Keras mask hides, and labels equal to `ignore_class`, have a loss of
      0 and are not counted in the mean.

    Args:
        label_smoothing: Float in [0, 1), the share of each target that is distributed
            evenly over the classes.
        ignore_class: Integer label that is ignored, such as -1 for unlabelled pixels,
            or `None`.
        axis: Integer, the axis of the classes.
        **kwargs: Base loss keyword arguments, such as `name` and `reduction`.

    Raises:
        ValueError: If `label_smoothing` is outside [0, 1), or `axis` or `ignore_class`
            is not an integer.
    """

    def __init__(
        self,
        label_smoothing: float = 0.0,
        ignore_class: int | None = None,
        axis: int = -1,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if not 0 <= label_smoothing < 1:
            raise ValueError(
                "`label_smoothing` must be at least 0 and below 1. "
                f"Received: label_smoothing={label_smoothing}"
            )
        if not isinstance(axis, int):
            raise ValueError(f"`axis` must be an integer. Received: axis={axis!r}")
        if not isinstance(ignore_class, int | None):
            raise ValueError(
                "`ignore_class` must be an integer or None. "
                f"Received: ignore_class={ignore_class!r}"
            )
        self.label_smoothing = label_smoothing
        self.ignore_class = ignore_class
        self.axis = axis

    def __call__(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> Tensor:
        if (mask := _keras.get_keras_mask(y_pred)) is not None:
            # The target of a masked step is padding, which may not be a valid label.
            y_true = ops.convert_to_tensor(y_true)
            shape = (*ops.shape(mask), *(1,) * (len(y_true.shape) - len(mask.shape)))
            mask = ops.cast(ops.reshape(mask, shape), "bool")
            y_true = ops.where(mask, y_true, ops.zeros_like(y_true))
        return super().__call__(y_true, y_pred, sample_weight)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        axis = self.axis
        if len(y_true.shape) == len(y_pred.shape) and y_true.shape[axis] == 1:
            y_true = ops.squeeze(y_true, axis=axis)
        if len(y_true.shape) == len(y_pred.shape):
            return self.of_distributions(y_true, y_pred)
        labels, valid, ignored = checked_labels(
            y_true, y_pred.shape[axis], self.ignore_class
        )
        loss = ops.where(valid, self.of_labels(labels, y_pred), float("nan"))
        if ignored is not None:
            loss = ops.where(ignored, 0.0, loss)
            _keras.set_keras_mask(loss, ops.logical_not(ignored))
        return loss

    def of_labels(self, labels: Tensor, y_pred: Tensor) -> Tensor:
        """The loss of each row, for integer labels in `0..N-1`."""
        raise NotImplementedError

    def of_distributions(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """The loss of each row, for distributions of the shape of `y_pred`."""
        raise NotImplementedError

    def smooth(self, by_target: Tensor, values: Callable[[], Tensor]) -> Tensor:
        """The expected value under the smoothed target, from that under the target."""
        share = self.label_smoothing
        if not share:
            return by_target
        values_ = values()
        # Divided before the sum, because several values may be the lowest float32.
        evenly = ops.sum(values_ / values_.shape[self.axis], axis=self.axis)
        return (1 - share) * by_target + share * evenly

    def at_labels(self, labels: Tensor, values: Tensor) -> Tensor:
        """The value at each row's label."""
        at = ops.expand_dims(labels, self.axis)
        return ops.squeeze(ops.take_along_axis(values, at, axis=self.axis), self.axis)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "label_smoothing": self.label_smoothing,
            "ignore_class": self.ignore_class,
            "axis": self.axis,
        }

    def __repr__(self) -> str:
        options = ", ".join(f"{k}={v!r}" for k, v in self.get_config().items())
        return f"{type(self).__name__}({options})"


@register
class Crossentropy(HeadLoss):
    """Cross-entropy of a head's output, whose type is given by `reads`.

    Formula:

    ```python
    target = (1 - label_smoothing) * one_hot(y_true) + label_smoothing / num_classes
    loss = -sum(target * log_probabilities)
    ```

    With `reads="probabilities"`, the log-probabilities are `log(max(y_pred, tiny))`;
    with `reads="logits"`, they are `log_softmax(y_pred)`. (If the output comes from a
    softmax, Keras's own cross-entropy uses the logits before that softmax instead, and
    so hides the difference.)

    Args:
        reads: `"probabilities"`, `"log_probabilities"` or `"logits"`.
        label_smoothing: See `HeadLoss`.
        ignore_class: See `HeadLoss`.
        axis: See `HeadLoss`.
        **kwargs: Base loss keyword arguments, such as `name` and `reduction`.

    Call arguments:
        y_true: Integer labels, or distributions over the classes, see `HeadLoss`.
        y_pred: The head's output.

    Raises:
        ValueError: If `reads` has another value, and as in `HeadLoss`.

    Example:

    >>> loss = Crossentropy(reads="probabilities")
    >>> float(loss(np.array([1]), np.array([[0.5, 0.25, 0.25]])) / np.log(2))
    2.0
    """

    READS = ("probabilities", "log_probabilities", "logits")

    def __init__(
        self,
        reads: str = "log_probabilities",
        label_smoothing: float = 0.0,
        ignore_class: int | None = None,
        axis: int = -1,
        name: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(
            label_smoothing,
            ignore_class,
            axis,
            name=name or f"crossentropy_of_{reads}",
            **kwargs,
        )
        if reads not in self.READS:
            raise ValueError(
                f"`reads` must be one of {', '.join(self.READS)}. "
                f"Received: reads={reads!r}"
            )
        self.reads = reads

    def of_labels(self, labels: Tensor, y_pred: Tensor) -> Tensor:
        values, log = self._values(y_pred)
        picked = log(self.at_labels(labels, values))
        return -self.smooth(picked, lambda: log(values))

    def of_distributions(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        values, log = self._values(y_pred)
        log_probabilities = log(values)
        mean = ops.sum(y_true * log_probabilities, axis=self.axis)
        return -self.smooth(mean, lambda: log_probabilities)

    def _values(self, y_pred: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """The output, and the elementwise function to log-probabilities."""
        if self.reads == "logits":
            return family.log_softmax(y_pred, axis=self.axis), lambda y: y
        return y_pred, family.log_of if self.reads == "probabilities" else lambda y: y

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "reads": self.reads}


@register
class EntmaxLoss(HeadLoss):
    """The loss that matches sparsemax or 1.5-entmax, a Fenchel-Young loss.

    Formula:

    ```python
    entropy(p) = sum(p - p**alpha) / (alpha * (alpha - 1))
    loss = entropy(p) - entropy(target) + sum((p - target) * logits)
    ```

    where `p` is sparsemax of the logits for `alpha=2`, and 1.5-entmax for `alpha=1.5`.
    It is never negative, and 0 if `p` is the target. Its gradient with respect to the
    logits is `p - target`; second derivatives are not correct.

    Args:
        alpha: 2.0 or 1.5.
        reads: `"logits"`, for a model without a head, or `"sparse_probabilities"`, the
            output of a `Sparsemax` or `Entmax15` head, which has its logits attached.
        label_smoothing: See `HeadLoss`.
        ignore_class: See `HeadLoss`.
        axis: See `HeadLoss`.
        **kwargs: Base loss keyword arguments, such as `name` and `reduction`.

    Call arguments:
        y_true: Integer labels, or distributions over the classes, see `HeadLoss`.
        y_pred: Logits, or the head's output.

    Raises:
        ValueError: If `alpha` or `reads` has another value, if no logits are attached
            to the output of a head, and as in `HeadLoss`.

    Reference:
        [Blondel et al., 2020](https://arxiv.org/abs/1901.02324), definition 2, with the
        Tsallis entropy of section 4.3; [Martins and
        Astudillo, 2016](https://arxiv.org/abs/1602.02068), section 3, for sparsemax.

    Example:

    >>> loss = EntmaxLoss(alpha=2.0)
    >>> float(loss(np.array([0, 0]), np.array([[0.0, 0.0], [1.0, 0.0]])))
    0.125
    """

    READS = ("logits", "sparse_probabilities")

    def __init__(
        self,
        alpha: float = 1.5,
        reads: str = "logits",
        label_smoothing: float = 0.0,
        ignore_class: int | None = None,
        axis: int = -1,
        name: str = "entmax_loss",
        **kwargs: Any,
    ):
        super().__init__(label_smoothing, ignore_class, axis, name=name, **kwargs)
        if alpha not in PROJECTIONS:
            raise ValueError(
                "`alpha` must be 1.5 (1.5-entmax) or 2.0 (sparsemax). "
                f"Received: alpha={alpha!r}"
            )
        if reads not in self.READS:
            raise ValueError(
                f"`reads` must be one of {', '.join(self.READS)}. "
                f"Received: reads={reads!r}"
            )
        self.alpha = float(alpha)
        self.reads = reads

    def of_labels(self, labels: Tensor, y_pred: Tensor) -> Tensor:
        p, x = self._distribution_and_logits(y_pred)
        # The smoothed target has `top` at the label and `rest` at the other classes.
        rest = self.label_smoothing / x.shape[self.axis]
        top = 1 - self.label_smoothing + rest
        of_target = _entropy_terms(top, self.alpha) + (
            x.shape[self.axis] - 1
        ) * _entropy_terms(rest, self.alpha)
        by_target = self.smooth(self.at_labels(labels, x), lambda: x)
        return self._loss(p, x, of_target, by_target)

    def of_distributions(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        p, x = self._distribution_and_logits(y_pred)
        share = self.label_smoothing
        target = y_true * (1 - share) + share / x.shape[self.axis]
        of_target = ops.sum(_entropy_terms(target, self.alpha), axis=self.axis)
        return self._loss(p, x, of_target, ops.sum(target * x, axis=self.axis))

    def _loss(
        self, p: Tensor, x: Tensor, of_target: Tensor | float, by_target: Tensor
    ) -> Tensor:
        # The derivative with respect to p is 0: p maximises entropy(p) + sum(p * x).
        p = ops.stop_gradient(p)
        entropy = ops.sum(_entropy_terms(p, self.alpha), axis=self.axis)
        return entropy - of_target + ops.sum(p * x, axis=self.axis) - by_target

    def _distribution_and_logits(self, y_pred: Tensor) -> tuple[Tensor, Tensor]:
        """The distribution, and the logits minus their maximum."""
        if self.reads == "logits":
            logits, p = y_pred, PROJECTIONS[self.alpha](y_pred, axis=self.axis)
        else:
            logits, p = attached_logits(y_pred), y_pred
        x = ops.cast(logits, "float32")
        largest = ops.stop_gradient(ops.max(x, axis=self.axis, keepdims=True))
        x = x - ops.maximum(largest, family.LOWEST)
        return p, ops.maximum(x, family.LOWEST)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "alpha": self.alpha, "reads": self.reads}


def _entropy_terms(p: Any, alpha: float) -> Any:
    powers = p * p if alpha == 2 else p * p**0.5
    return (p - powers) / (alpha * (alpha - 1))


@register
class ZLoss(HeadLoss):
    """Z-loss of the scores that a `ZScore` head returns.

    Formula:

    ```python
    loss = sum(target * softplus(a * (b - scores)) / a)
    ```

    It raises the label's score up to about `b`. The smaller `a` is, the more gradually
    the gradient decreases towards `b`.

    Args:
        a: Positive float.
        b: Float.
        label_smoothing: See `HeadLoss`.
        ignore_class: See `HeadLoss`.
        axis: See `HeadLoss`.
        **kwargs: Base loss keyword arguments, such as `name` and `reduction`.

    Call arguments:
        y_true: Integer labels, or distributions over the classes, see `HeadLoss`.
        y_pred: Scores.

    Raises:
        ValueError: If `a` is not positive, and as in `HeadLoss`.

    Reference:
        [de Brébisson and Vincent, 2016](https://arxiv.org/abs/1604.08859), section 3.

    Example:

    >>> loss = ZLoss(a=1.0, b=1.0)
    >>> float(loss(np.array([1]), np.array([[-1.0, 1.0]])) / np.log(2))
    1.0
    """

    def __init__(
        self,
        a: float = 0.1,
        b: float = 10.0,
        label_smoothing: float = 0.0,
        ignore_class: int | None = None,
        axis: int = -1,
        name: str = "z_loss",
        **kwargs: Any,
    ):
        super().__init__(label_smoothing, ignore_class, axis, name=name, **kwargs)
        if not a > 0:
            raise ValueError(f"`a` must be positive. Received: a={a!r}")
        self.a, self.b = float(a), float(b)

    def of_labels(self, labels: Tensor, y_pred: Tensor) -> Tensor:
        by_target = self._of_scores(self.at_labels(labels, y_pred))
        return self.smooth(by_target, lambda: self._of_scores(y_pred))

    def of_distributions(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        losses = self._of_scores(y_pred)
        return self.smooth(ops.sum(y_true * losses, axis=self.axis), lambda: losses)

    def _of_scores(self, scores: Tensor) -> Tensor:
        return family.z_loss_of_score(scores, self.a, self.b)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "a": self.a, "b": self.b}


def attach_logits(outputs: Tensor, logits: Tensor) -> None:
    """Attaches logits to the output of a sparse head, for its loss."""
    _keras.set_tensor_attr(outputs, _LOGITS, logits)


def attached_logits(outputs: Tensor) -> Tensor:
    """The logits that a sparse head attached to its output.

    Raises:
        ValueError: If there are none.
    """
    logits = _keras.get_tensor_attr(outputs, _LOGITS)
    if logits is None and _keras.in_symbolic_scope():
        return outputs  # Keras computes only the shape of the loss, from new tensors
    if logits is None:
        raise ValueError(
            "The loss of sparsemax and entmax15 needs the logits behind the head's "
            "output, but `y_pred` is not the unmodified output of such a head. Make "
            "the head the model's last layer, or remove it and use "
            f"`EntmaxLoss(reads='logits')`. Received: y_pred={outputs!r}"
        )
    return logits


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


def checked_labels(
    labels: Tensor, num_classes: int, ignore_class: int | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Checks labels, and returns them in the range of the classes.

    Args:
        labels: Tensor of labels, of any dtype.
        num_classes: Positive integer.
        ignore_class: Integer label that is allowed too, or `None`.

    Returns:
        Integer labels, clipped to `0..N-1`; a boolean tensor of which labels were valid
        or ignored; and one of which are ignored, or `None` without `ignore_class`.

    Raises:
        ValueError: If a label is invalid and values can be checked; on TensorFlow it is
            an `InvalidArgumentError`.
    """
    valid = ops.logical_and(labels >= 0, labels < num_classes)
    ignored = None if ignore_class is None else ops.equal(labels, ignore_class)
    if ignored is not None:
        valid = ops.logical_or(valid, ignored)
    says = f"Labels must lie in 0..{num_classes - 1}. Received: labels="
    valid = raise_unless(valid, says, labels)
    return ops.clip(ops.cast(labels, "int32"), 0, num_classes - 1), valid, ignored


def raise_unless(valid: Tensor, says: str, found: Tensor) -> Tensor:
    """Raises an error unless all is valid, if the backend can check values here.

    Args:
        valid: Boolean tensor.
        says: The error's message, which ends in the name of the tensor.
        found: Tensor, whose first ten values the error shows.

    Returns:
        `valid`, which on TensorFlow is evaluated only after the check.
    """
    if _keras.in_symbolic_scope():
        return valid
    match backend.backend():
        case "tensorflow":
            import tensorflow as tf

            # In eager mode it raises here; in a graph, when the graph runs. XLA
            # leaves assertions out.
            check = tf.debugging.Assert(
                tf.reduce_all(valid), [says, found], summarize=10
            )
            with tf.control_dependencies([check] if check is not None else []):
                return tf.identity(valid)
        case "torch":
            import torch

            # On a GPU, reading a value would wait for all kernels.
            visible = valid.device.type == "cpu" and not torch.compiler.is_compiling()
        case "jax":
            import jax.core

            visible = not isinstance(valid, jax.core.Tracer)
        case _:
            visible = True
    if visible and not ops.convert_to_numpy(valid).all():
        raise ValueError(f"{says}{ops.convert_to_numpy(found).ravel()[:10]}")
    return valid
