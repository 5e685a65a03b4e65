"""A plain convolutional network, the baseline for ResNet-12."""

import keras
from keras import layers

from kerasoft.backbones.parts import classifier, four_filters, images


def plain_cnn(
    num_classes: int = 100,
    head: str | keras.layers.Layer | None = None,
    width: int | tuple[int, ...] = 64,
    input_shape: tuple[int, ...] = (32, 32, 3),
    name: str = "plain_cnn",
) -> keras.Model:
    """Four 3x3 convolutions with ReLU, each followed by 2x2 max-pooling.

    It has no batch normalisation and no shortcuts, so a comparison shows what these add
    in ResNet-12. The logits, in float32, are the output of the layer `logits`.

    Args:
        num_classes: Positive integer.
        head: The output layer after the logits: a head's name, a layer, or `None` to
            output the logits.
        width: The filters of the four convolutions: an integer `w` for
            `(w, 2 * w, 4 * w, 8 * w)`, or a tuple of four integers.
        input_shape: Tuple of integers, at least 16 pixels on each side.
        name: String, the name of the model.

    Returns:
        A functional `keras.Model` that takes pixels in 0..255.

    Raises:
        ValueError: If the filters are not four positive integers, an image has a
            side below 16 pixels, or `head` is not known.

    Example:

    >>> model = plain_cnn(num_classes=10, head="softmax", width=8)
    >>> model(np.zeros((2, 32, 32, 3), "uint8")).shape == (2, 10)
    True
    """
    inputs, x = images(input_shape)
    for block, filters in enumerate(four_filters(width), start=1):
        x = layers.Conv2D(
            filters,
            3,
            data_format="channels_last",
            padding="same",
            activation="relu",
            kernel_initializer="he_normal",
            name=f"conv{block}",
        )(x)
        pool = layers.MaxPooling2D(2, data_format="channels_last", name=f"pool{block}")
        x = pool(x)
    return classifier(inputs, x, num_classes, head, name)
