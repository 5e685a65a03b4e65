"""What every head has in common."""

import keras

register = keras.saving.register_keras_serializable(package="kerasoft")


class Head(keras.layers.Layer):
    """Base of the heads: float32 inside and out, reduced over one axis.

    Args:
        axis: Integer, the axis of the classes.
        **kwargs: Base layer keyword arguments, such as `name` and `dtype`.

    Raises:
        ValueError: If `axis` is not an integer.
    """

    outputs = "probabilities"

    def __init__(self, axis=-1, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(axis, int):
            raise ValueError(f"`axis` must be an integer. Received: axis={axis!r}")
        self.axis = axis

    @property
    def compute_dtype(self):
        return "float32"

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "axis": self.axis}
