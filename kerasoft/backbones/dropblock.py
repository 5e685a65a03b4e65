"""DropBlock: dropout of contiguous regions of a feature map."""

from typing import Any

import keras
from keras import ops

from kerasoft.ops import Tensor
from kerasoft.seed_generator import SeedGenerator


@keras.saving.register_keras_serializable(package="kerasoft")
class DropBlock(keras.layers.Layer):
    """Drops square blocks of a feature map in training, separately for each channel.

    Formula:

    ```python
    places = (H - block_size + 1) * (W - block_size + 1)
    gamma = rate / block_size**2 * H * W / places
    outputs = inputs * kept * size(kept) / sum(kept)
    ```

    where a block centred inside the map is dropped with probability `gamma`. On a map
    smaller than the block, the block shrinks to the map.

    Args:
        rate: Float in [0, 1), the approximate share of the map that is dropped.
        block_size: Positive integer, the side of a block.
        seed: Integer, the random seed.
        **kwargs: Base layer keyword arguments, such as `name` and `dtype`.

    Call arguments:
        inputs: Feature maps, channels last.
        training: Boolean. Outside training the layer is the identity.

    Input shape:
        4D tensor, `(batch, height, width, channels)`; in training, only the batch may
        be of unknown size.

    Output shape:
        Same as the input.

    Raises:
        ValueError: If `rate` is outside [0, 1) or `block_size` is below 1.

    Reference:
        [Ghiasi et al., 2018](https://arxiv.org/abs/1810.12890), equation 1.

    Example:

    >>> layer = DropBlock(rate=0.2, block_size=3, seed=0)
    >>> maps = np.ones((2, 8, 8, 4), "float32")
    >>> bool(np.all(layer(maps) == maps)), bool(np.all(layer(maps, training=True) > 0))
    (True, False)
    """

    def __init__(
        self,
        rate: float,
        block_size: int = 5,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(
                f"`rate` must be at least 0 and below 1. Received: rate={rate}"
            )
        if block_size < 1:
            raise ValueError(
                f"`block_size` must be at least 1. Received: block_size={block_size}"
            )
        self.rate = rate
        self.block_size = block_size
        self.seed = seed
        self.seed_generator = SeedGenerator(seed)

    def call(self, inputs: Tensor, training: bool | None = False) -> Tensor:
        if not training or self.rate == 0:
            return inputs
        if None in inputs.shape[1:]:
            raise ValueError(
                "In training, DropBlock needs feature maps of a known size; resize the "
                f"images to one size. Received: inputs.shape={tuple(inputs.shape)}"
            )
        batch, height, width, channels = ops.shape(inputs)
        rows, columns = min(self.block_size, height), min(self.block_size, width)
        corners = (batch, height - rows + 1, width - columns + 1, channels)
        gamma = (
            self.rate
            / (rows * columns)
            * (height * width)
            / ((height - rows + 1) * (width - columns + 1))
        )
        drawn = keras.random.uniform(corners, dtype="float32", seed=self.seed_generator)
        starts = ops.pad(
            ops.cast(drawn < gamma, "float32"),
            ((0, 0), (rows - 1, rows - 1), (columns - 1, columns - 1), (0, 0)),
        )
        # A pixel is dropped if a block starts anywhere in the window that ends at it.
        dropped = ops.max_pool(
            starts,
            (rows, columns),
            strides=1,
            padding="valid",
            data_format="channels_last",
        )
        kept = 1.0 - dropped
        kept = kept / ops.maximum(ops.mean(kept), keras.config.epsilon())
        return inputs * ops.cast(kept, inputs.dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "rate": self.rate,
            "block_size": self.block_size,
            "seed": self.seed,
        }
