"""The base class of the heads."""

import warnings
from typing import Any, ClassVar

import keras

from kerasoft import _keras, losses, ops
from kerasoft.heads.misreadings import misreadings
from kerasoft.losses import register as register
from kerasoft.ops import Tensor
from kerasoft.ops.common import same_shape


class Head(keras.layers.Layer):
    """Base of the heads, layers that turn logits into a distribution over classes.

    All heads share these properties:

    - They compute and return float32, whatever the dtype or dtype policy, so they can
      be the last layer of a mixed-precision model.
    - They take logits of any floating dtype and any shape, and normalise over `axis`.
      The output has the shape of the input, and is finite for all finite logits.
    - A logit of -inf masks its class: its probability is 0, and its log-probability is
      the most negative float32. A `mask` of classes has the same effect. If all classes
      of a row are masked, all its probabilities are 0.
    - A mask of time steps, such as the one from `keras.layers.Masking`, is passed on to
      the loss, which ignores the masked steps.
    - Run `import kerasoft` before you load a file that contains a head, so that Keras
      knows its layers and losses.

    To write your own head, subclass `Head` and define the method `activate`, and the
    attribute `outputs` if the head does not return probabilities.

    Args:
        axis: Integer, the axis of the classes.
        **kwargs: Base layer keyword arguments, such as `name` and `dtype`.

    Attributes:
        outputs: What the head returns: `"probabilities"`, `"log_probabilities"`,
            `"sparse_probabilities"`, some of which are exactly 0, or `"scores"`, which
            rank the classes but are not probabilities.

    Call arguments:
        inputs: Logits.
        mask: Boolean tensor. If it has as many dimensions as `inputs`, each of the same
            size or 1, `False` masks a class. If it has fewer dimensions, it is a mask
            of time steps.

    Raises:
        ValueError: If `axis` is not an integer, or a mask does not fit the logits.
    """

    outputs: ClassVar[str] = "probabilities"

    def __init__(self, axis: int = -1, **kwargs: Any):
        super().__init__(**kwargs)
        if not isinstance(axis, int):
            raise ValueError(f"`axis` must be an integer. Received: axis={axis!r}")
        self.axis = axis
        self.supports_masking = True
        self._checked = None

    @property
    def compute_dtype(self) -> str:
        return "float32"

    def activate(self, logits: Tensor) -> Tensor:
        """The output for logits, in which masked classes are -inf."""
        raise NotImplementedError

    def call(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        self._warn_of_misreading()
        return self.activate(hide_classes(inputs, mask))

    def compute_mask(self, inputs: Tensor, previous_mask: Tensor | None) -> Any:
        """The mask of the output: that of time steps, but not that of classes."""
        if previous_mask is None or len(previous_mask.shape) < len(inputs.shape):
            return previous_mask
        return _keras.get_keras_mask(inputs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def probabilities(self, outputs: Tensor) -> Tensor:
        """The probabilities, computed from the head's output."""
        if self.outputs == "log_probabilities":
            return keras.ops.exp(outputs)
        return keras.ops.convert_to_tensor(outputs)

    def log_probabilities(self, outputs: Tensor) -> Tensor:
        """The log-probabilities, computed from the head's output.

        For a probability of 0, it is the logarithm of the smallest normal float32.
        """
        if self.outputs == "log_probabilities":
            return keras.ops.convert_to_tensor(outputs)
        return ops.log_of(outputs)

    def logit_scale(self, training: bool) -> Tensor | float | None:
        """The factor `s`, if the head is `softmax(s * logits)` or its logarithm.

        `None` for all other heads. In training, a head that counts steps counts one.
        """
        return None

    def matched_loss(self, **kwargs: Any) -> keras.losses.Loss:
        """The loss that interprets the head's output correctly.

        Args:
            **kwargs: The arguments of the loss, such as `label_smoothing`.
        """
        return losses.Crossentropy(self.outputs, axis=self.axis, **kwargs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "axis": self.axis}

    def _warn_of_misreading(self) -> None:
        """Warns once if a compiled loss or metric misinterprets the head's output.

        A layer does not know how its model is compiled, so this looks up the model that
        is being called.
        """
        model = _keras.entry_layer(self)
        if not isinstance(model, keras.Model) or not model.compiled:
            return
        if not getattr(model, "outputs", None):
            return  # it does not tell whether its output comes from this head
        compiled = model._compile_config
        if compiled is self._checked:
            return
        self._checked = compiled
        from kerasoft.heads import find  # which imports this module

        try:
            ends_here = find(model) is self
        except ValueError:
            return
        for message in misreadings(model, self.outputs) if ends_here else ():
            warnings.warn(message, stacklevel=2)


def hide_classes(logits: Tensor, mask: Tensor | None) -> Tensor:
    """Sets masked classes to -inf. A mask of time steps changes nothing."""
    if mask is None:
        return logits
    of_mask, of_logits = tuple(mask.shape), tuple(logits.shape)
    first = of_logits[: len(of_mask)]
    if len(of_mask) < len(of_logits) and same_shape(of_mask, first):
        return logits
    if len(of_mask) != len(of_logits) or any(
        m not in (1, None, n) and n is not None
        for m, n in zip(of_mask, of_logits, strict=True)
    ):
        raise ValueError(
            "A mask of classes must have as many dimensions as the logits, each of the "
            "same size or 1; a mask of time steps must have the logits' first "
            f"dimensions. Received: mask.shape={of_mask}, inputs.shape={of_logits}"
        )
    return keras.ops.where(keras.ops.cast(mask, "bool"), logits, -float("inf"))
