"""ResNet-12, a common network for few-shot learning, with any head."""

from functools import partial

import keras
from keras import layers

from kerasoft.backbones.dropblock import DropBlock
from kerasoft.backbones.normalization import BatchNormalization
from kerasoft.backbones.parts import classifier, four_filters, images

conv = partial(
    layers.Conv2D,
    data_format="channels_last",
    padding="same",
    use_bias=False,
    # He-normal over the fan-out. A config, not an object, so that each layer creates
    # its own initialiser with its own seed; one object would give all the same weights.
    kernel_initializer={
        "class_name": "VarianceScaling",
        "config": {
            "scale": 2.0,
            "mode": "fan_out",
            "distribution": "untruncated_normal",
        },
    },
)
activation = partial(layers.LeakyReLU, negative_slope=0.1)


def resnet12(
    num_classes: int = 100,
    head: str | keras.layers.Layer | None = None,
    width: int | tuple[int, ...] = 64,
    input_shape: tuple[int, ...] = (32, 32, 3),
    dropblock: float = 0.0,
    block_size: int = 5,
    seed: int | None = None,
    synchronized: bool = False,
    momentum: float = 0.9,
    name: str = "resnet12",
) -> keras.Model:
    """ResNet-12 with raw pixels as input.

    Four residual blocks of three 3x3 convolutions with batch normalisation and
    LeakyReLU(0.1), each followed by 2x2 max-pooling; then global average pooling and
    a dense layer. The logits, in float32, are the output of the layer `logits`.

    Args:
        num_classes: Positive integer.
        head: The output layer after the logits: a head's name, a layer, or `None` to
            output the logits.
        width: The filters of the four blocks: an integer `w` for
            `(w, 2 * w, 4 * w, 8 * w)`, or a tuple of four integers.
        input_shape: Tuple of integers, at least 16 pixels on each side.
        dropblock: Float in [0, 1), the rate of `DropBlock` after each block.
        block_size: Positive integer, the side of DropBlock's blocks.
        seed: Integer, the random seed of DropBlock.
        synchronized: Boolean, whether batch normalisation computes mean and variance
            over all replicas of a `tf.distribute` strategy. Only on TensorFlow.
        momentum: Float in [0, 1), the momentum of batch normalisation's moving
            averages. Use a smaller value for a short training.
        name: String, the name of the model.

    Returns:
        A functional `keras.Model` that takes pixels in 0..255.

    Raises:
        ValueError: If the filters are not four positive integers, an image has a
            side below 16 pixels, or `head` is not known.

    Reference:
        [Lee et al., 2019](https://arxiv.org/abs/1904.03758), section 4.1, whose
        filters are (64, 160, 320, 640).

    Example:

    >>> model = resnet12(num_classes=10, head="log_softmax", width=8)
    >>> model(np.zeros((2, 32, 32, 3), "uint8")).shape == (2, 10)
    True
    """
    inputs, x = images(input_shape)

    def norm(name):
        return BatchNormalization(
            momentum=momentum, synchronized=synchronized, name=name
        )

    for block, filters in enumerate(four_filters(width), start=1):
        x = _residual(x, filters, norm, name=f"block{block}")
        if dropblock:
            block_seed = None if seed is None else seed + block
            x = DropBlock(
                dropblock, block_size, seed=block_seed, name=f"block{block}_drop"
            )(x)
    return classifier(inputs, x, num_classes, head, name)


def _residual(x, filters, norm, name):
    shortcut = conv(filters, 1, name=f"{name}_shortcut_conv")(x)
    shortcut = norm(name=f"{name}_shortcut_norm")(shortcut)
    for i in (1, 2, 3):
        x = conv(filters, 3, name=f"{name}_conv{i}")(x)
        x = norm(name=f"{name}_norm{i}")(x)
        if i < 3:
            x = activation(name=f"{name}_act{i}")(x)
    x = layers.Add(name=f"{name}_add")([x, shortcut])
    x = activation(name=f"{name}_act3")(x)
    pool = layers.MaxPooling2D(2, data_format="channels_last", name=f"{name}_pool")
    return pool(x)
