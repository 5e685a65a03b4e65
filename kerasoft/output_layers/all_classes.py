"""An output layer's answer for every class, as a layer."""

from typing import Any

import keras

from kerasoft.ops import Tensor
from kerasoft.output_layers.base import OutputLayer, register


@register
class AllClasses(keras.layers.Layer):
    """The log-probabilities of all classes, from a trained output layer.

    `Classifier` predicts the likeliest classes. Put this layer after its backbone where
    all classes are wanted, for example to export a model. The output layer keeps its
    weights.

    Args:
        output_layer: An `OutputLayer` whose predictions are log-probabilities.
        **kwargs: Base layer keyword arguments, such as `name` and `dtype`.

    Call arguments:
        inputs: Features, float tensor of shape `(batch, dim)`.

    Returns:
        Float32 tensor of shape `(batch, num_classes)`.

    Raises:
        ValueError: If `output_layer` is not an `OutputLayer`, or predicts scores.

    Example:

    >>> layer = output_layers.TwoLevelOutput(num_classes=100)
    >>> log_p = output_layers.AllClasses(layer)(np.ones((2, 8)))
    >>> log_p.shape == (2, 100)
    True
    """

    def __init__(self, output_layer: OutputLayer, **kwargs: Any):
        super().__init__(**kwargs)
        known = getattr(output_layer, "value_name", None)
        if known != "log_probabilities":
            raise ValueError(
                "`output_layer` must be a layer of `kerasoft.output_layers` that "
                f"predicts log-probabilities. Received: output_layer={output_layer!r}"
            )
        self.output_layer = output_layer

    @property
    def compute_dtype(self) -> str:
        return "float32"

    def build(self, input_shape: Any) -> None:
        if not self.output_layer.built:
            self.output_layer.build(input_shape)

    def call(self, inputs: Tensor) -> Tensor:
        return self.output_layer.all_log_probabilities(inputs)

    def compute_output_spec(self, inputs: Any, **kwargs: Any) -> Any:
        shape = (inputs.shape[0], self.output_layer.num_classes)
        return keras.KerasTensor(shape, "float32")

    def get_config(self) -> dict[str, Any]:
        inner = keras.saving.serialize_keras_object(self.output_layer)
        return {**super().get_config(), "output_layer": inner}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        inner = keras.saving.deserialize_keras_object(
            config["output_layer"], custom_objects
        )
        return cls(**{**config, "output_layer": inner})
