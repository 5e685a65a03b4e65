"""What every head has in common."""

import warnings
from typing import Any, ClassVar

import keras

from kerasoft import _keras, losses, ops
from kerasoft.heads.misreadings import misreadings
from kerasoft.losses import register as register
from kerasoft.ops import Tensor


class Head(keras.layers.Layer):
    """Base of the heads, layers that turn logits into a distribution over classes.

    What all of them have in common:

    - They compute in float32 and return float32, whatever dtype or dtype policy they
      are given, so that they are safe at the end of a mixed-precision model.
    - They take logits of any floating dtype and any shape, and reduce over `axis`. The
      output has the shape of the input. It is finite for all finite logits.
    - A logit of -inf masks its class: its probability is 0, and its log-probability the
      lowest float32. So does a `mask`. A row whose classes are all masked has
      probability 0 everywhere, as in `keras.layers.Softmax`.
    - A mask of time steps, such as `keras.layers.Masking` makes, goes through to the
      loss, which leaves the masked steps out.
    - A file that holds a head is loaded after `import kerasoft`, which tells Keras
      about its layers and losses.

    A head of your own is a subclass with a method `activate`, and an attribute
    `outputs` if it does not put out probabilities.

    Args:
        axis: Integer, the axis of the classes.
        **kwargs: Base layer keyword arguments, such as `name` and `dtype`.

    Attributes:
        outputs: What the head puts out: `"probabilities"`, `"log_probabilities"`,
            `"sparse_probabilities"`, of which some are exactly 0, or `"scores"`, which
            order the classes and are no probabilities.

    Call arguments:
        inputs: Logits.
        mask: Boolean tensor of as many dimensions as `inputs`, each of them equal to
            that of `inputs` or 1: `False` masks a class. A mask with fewer dimensions
            is one of time steps.

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
        """The head's function: what it puts out for logits, masked classes at -inf."""
        raise NotImplementedError

    def call(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        self._warn_of_misreading()
        return self.activate(hide_classes(inputs, mask))

    def compute_mask(self, inputs: Tensor, previous_mask: Tensor | None) -> Any:
        """The mask of time steps, which the output keeps; not that of classes."""
        if previous_mask is None or len(previous_mask.shape) < len(inputs.shape):
            return previous_mask
        return _keras.get_keras_mask(inputs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def probabilities(self, outputs: Tensor) -> Tensor:
        """The probabilities, from what the head put out."""
        if self.outputs == "log_probabilities":
            return keras.ops.exp(outputs)
        return keras.ops.convert_to_tensor(outputs)

    def log_probabilities(self, outputs: Tensor) -> Tensor:
        """The log-probabilities, from what the head put out.

        That of a probability of 0 is the logarithm of the smallest normal float32.
        """
        if self.outputs == "log_probabilities":
            return keras.ops.convert_to_tensor(outputs)
        return ops.log_of(outputs)

    def logit_scale(self, training: bool) -> Tensor | float | None:
        """What the logits are multiplied by, where softmax or its logarithm follows.

        `None` of a head that is neither. A head that counts training steps counts one.
        """
        return None

    def matched_loss(self, **kwargs: Any) -> keras.losses.Loss:
        """The loss that takes the head's output for what it is.

        Args:
            **kwargs: The arguments of the loss, such as `label_smoothing`.
        """
        return losses.Crossentropy(self.outputs, axis=self.axis, **kwargs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "axis": self.axis}

    def _warn_of_misreading(self) -> None:
        """Warns once of a compiled loss or metric that misreads the head's output.

        A layer does not see what its model is compiled with, but it sees the model that
        is being called.
        """
        model = _keras.entry_layer(self)
        if not isinstance(model, keras.Model) or not model.compiled:
            return
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
    """Puts -inf where a mask of classes is false. A mask of time steps hides none."""
    if mask is None:
        return logits
    mine, theirs = tuple(mask.shape), tuple(logits.shape)
    if len(mine) < len(theirs) and mine == theirs[: len(mine)]:
        return logits
    if len(mine) != len(theirs) or any(
        m not in (1, None, n) and n is not None
        for m, n in zip(mine, theirs, strict=True)
    ):
        raise ValueError(
            "A mask of classes must have as many dimensions as the logits, each equal "
            "to theirs or 1; a mask of time steps must have their first dimensions. "
            f"Received: mask.shape={mine}, inputs.shape={theirs}"
        )
    return keras.ops.where(keras.ops.cast(mask, "bool"), logits, -float("inf"))
