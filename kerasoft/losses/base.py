"""What the losses of heads share: labels, masks, smoothing, and attached logits."""

from collections.abc import Callable
from typing import Any

import keras
from keras import backend, ops

from kerasoft import _keras
from kerasoft.ops import Tensor
from kerasoft.ops.common import same_shape

register = keras.saving.register_keras_serializable(package="kerasoft")

_LOGITS = "_kerasoft_logits"
NARROW = ("bool", "int8", "uint8", "int16", "uint16")
MASKED = 1e38  # the value of a masked class is larger, in magnitude


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
            evenly over the classes that are not masked. (Where a head returns
            probabilities, a masked class cannot be told from one of probability 0, and
            takes part with the smallest positive float32.)
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
        # As heads compute: labels of many classes do not fit into a half-precision
        # `floatx`, and a cast would lose the logits that sparse heads attach.
        super().__init__(**{"dtype": "float32", **kwargs})
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

    @_keras.without_autograph
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
        self._check_shape(tuple(y_true.shape), tuple(y_pred.shape))
        labels, valid, ignored = checked_labels(
            y_true, y_pred.shape[axis], self.ignore_class
        )
        loss = ops.where(valid, self.of_labels(labels, y_pred), float("nan"))
        if ignored is not None:
            loss = ops.where(ignored, 0.0, loss)
            _keras.set_keras_mask(loss, ops.logical_not(ignored))
        return loss

    def _check_shape(self, of_labels: tuple, of_outputs: tuple) -> None:
        expected = list(of_outputs)
        del expected[self.axis]
        if not same_shape(of_labels, expected):
            raise ValueError(
                "Labels must have the shape of the outputs without the axis of the "
                f"classes, or with size 1 there. Received: y_true.shape={of_labels}, "
                f"y_pred.shape={of_outputs}"
            )

    def of_labels(self, labels: Tensor, y_pred: Tensor) -> Tensor:
        """The loss of each row, for integer labels in `0..N-1`."""
        raise NotImplementedError

    def of_distributions(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """The loss of each row, for distributions of the shape of `y_pred`."""
        raise NotImplementedError

    def smooth(
        self,
        by_target: Tensor,
        values: Callable[[], Tensor],
        of: Callable[[Tensor], Tensor] = lambda values: values,
    ) -> Tensor:
        """The expected loss under the smoothed target, from that under the target.

        Args:
            by_target: The expected loss under the target.
            values: Returns the value of each class, see `evenly`.
            of: The loss of a value.
        """
        share = self.label_smoothing
        if not share:
            return by_target
        values_ = values()
        evenly = ops.sum(self.evenly(values_, of(values_)), axis=self.axis)
        return (1 - share) * by_target + share * evenly

    def evenly(self, values: Tensor, numbers: Tensor | float = 1.0) -> Tensor:
        """Numbers divided by how many classes are not masked, and 0 for those that are.

        Args:
            values: The value of each class, which is above 1e38 in magnitude where the
                class is masked.
            numbers: Of the shape of `values`, or one for all classes.
        """
        shown = ops.abs(values) < MASKED
        count = ops.sum(ops.cast(shown, "float32"), axis=self.axis, keepdims=True)
        return ops.divide_no_nan(ops.where(shown, numbers, 0.0), count)

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
    labels = ops.convert_to_tensor(labels)
    if keras.backend.standardize_dtype(labels.dtype) in NARROW:
        labels = ops.cast(labels, "int32")  # in which `num_classes` may not fit
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
