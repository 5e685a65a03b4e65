"""The first and the last layers of the backbones."""

import keras
from keras import layers

from kerasoft import heads
from kerasoft.ops import Tensor


def images(input_shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The first layers of a backbone: the input, and its pixels scaled around 0."""
    if None in input_shape:
        raise ValueError(
            "The size of the images must be known; resize them to one size. "
            f"Received: input_shape={input_shape}"
        )
    if min(input_shape[:2]) < 16:
        raise ValueError(
            "Images must measure at least 16 pixels on each side, because the network "
            f"halves them four times. Received: input_shape={input_shape}"
        )
    inputs = keras.Input(input_shape, name="images")
    return inputs, layers.Rescaling(1 / 64, offset=-2.0, name="pixels")(inputs)


def four_filters(width: int | tuple[int, ...]) -> tuple[int, ...]:
    """The filters of four blocks, from four integers or from the first one."""
    filters = (
        (width, 2 * width, 4 * width, 8 * width) if isinstance(width, int) else width
    )
    if len(filters) != 4 or any(f < 1 for f in filters):
        raise ValueError(
            "`width` must be a positive integer or four of them. "
            f"Received: width={width}"
        )
    return filters


def classifier(
    inputs: Tensor,
    features: Tensor,
    num_classes: int,
    head: str | keras.layers.Layer | None,
    name: str,
) -> keras.Model:
    """Adds the last layers of a backbone: pooling, logits in float32, and the head.

    Args:
        inputs: The input of the network.
        features: The output of the network, feature maps or vectors.
        num_classes: Positive integer.
        head: A head's name, a layer, or `None` to output the logits.
        name: String, the name of the model.
    """
    x = features
    if len(x.shape) > 2:
        pool = layers.GlobalAveragePooling2D("channels_last", name="features")
        x = pool(x)
    x = layers.Dense(num_classes, dtype="float32", name="logits")(x)
    if isinstance(head, str):
        head = heads.get(head, name="head")
    if head is not None:
        x = head(x)
    return keras.Model(inputs, x, name=name)
