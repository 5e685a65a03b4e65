import keras
import numpy as np
import pytest
from references import numpy
from scipy import ndimage

from kerasoft.backbones.dropblock import DropBlock


def dropped(layer, shape):
    """The dropped pixels of a map of ones, once the others are seen to be even."""
    outputs = numpy(layer(np.ones(shape, "float32"), training=True))
    assert len(np.unique(outputs[outputs > 0])) == 1
    return outputs == 0


def expected_share(side, block, rate):
    """The share of a square map that is dropped: the mean chance of a pixel."""
    starts = side - block + 1
    gamma = rate / block**2 * side**2 / starts**2
    pixel = np.arange(side)
    covering = np.minimum(pixel, starts - 1) - np.maximum(pixel - block + 1, 0) + 1
    return np.mean(1 - (1 - gamma) ** np.outer(covering, covering))


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_out_of_training_it_is_the_identity(rate):
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 4)).astype("float32")
    layer = DropBlock(rate, seed=0)
    np.testing.assert_array_equal(layer(x), x)
    np.testing.assert_array_equal(layer(x, training=False), x)
    assert np.array_equal(layer(x, training=True), x) == (rate == 0)


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.3])
@pytest.mark.parametrize(("side", "block"), [(8, 1), (8, 3), (12, 5), (5, 5)])
def test_the_share_that_is_dropped(side, block, rate):
    share = np.mean(dropped(DropBlock(rate, block, seed=0), (100, side, side, 40)))
    expected = expected_share(side, block, rate)
    blocks = 4000 * (side / block) ** 2
    assert share == pytest.approx(expected, abs=4 * np.sqrt(rate / blocks))
    # Overlapping blocks drop a little less than the rate.
    assert 0.7 * rate < expected < 1.001 * rate


@pytest.mark.parametrize("block", [2, 3, 4])
def test_what_is_dropped_are_blocks(block):
    masks = np.moveaxis(dropped(DropBlock(0.1, block, seed=0), (4, 12, 12, 8)), -1, 1)
    square = np.ones((block, block))
    for mask in masks.reshape(-1, 12, 12):
        np.testing.assert_array_equal(ndimage.binary_opening(mask, square), mask)
    assert masks.any()
    assert not masks.all()
    # Each channel and each image for itself.
    assert len(np.unique(masks.reshape(-1, 144), axis=0)) > 10


@pytest.mark.parametrize("shape", [(2, 2), (1, 1), (2, 7)])
def test_on_a_map_smaller_than_the_block_the_block_is_the_map(shape):
    mask = dropped(DropBlock(0.3, block_size=5, seed=0), (100, *shape, 40))
    if max(shape) <= 5:
        mask = mask.reshape(100, -1, 40)
        np.testing.assert_array_equal(mask.all(axis=1), mask.any(axis=1))
        assert np.mean(mask) == pytest.approx(0.3, abs=0.025)
    else:
        np.testing.assert_array_equal(mask[:, 0], mask[:, 1])


@pytest.mark.parametrize("dtype", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_the_mean_is_kept(dtype):
    layer = DropBlock(0.2, 3, seed=0, dtype=dtype)
    x = np.ones((8, 8, 8, 16), "float32")
    outputs = layer(x, training=True)
    assert keras.backend.standardize_dtype(outputs.dtype) == dtype.removeprefix(
        "mixed_"
    )
    outputs = keras.ops.convert_to_numpy(keras.ops.cast(outputs, "float32"))
    assert np.mean(outputs) == pytest.approx(
        1, abs=1e-5 if dtype == "float32" else 4e-3
    )


def test_the_seed_decides_the_mask():
    def draws(seed):
        layer = DropBlock(0.2, 3, seed=seed)
        return [dropped(layer, (4, 8, 8, 4)) for _ in range(2)]

    first, second = draws(7)
    np.testing.assert_array_equal(draws(7), [first, second])
    assert not np.array_equal(first, second)
    assert not np.array_equal(draws(8)[0], first)


def test_round_trip():
    layer = DropBlock(0.2, block_size=3, seed=5, name="drop")
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    assert isinstance(again, DropBlock)
    assert again.get_config() == layer.get_config()
    shape = (2, 8, 8, 3)
    np.testing.assert_array_equal(dropped(again, shape), dropped(layer, shape))


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({"rate": 1.0}, r"`rate` must be at least 0 and below 1.*rate=1.0"),
        ({"rate": -0.1}, r"`rate` must be at least 0 and below 1.*rate=-0.1"),
        ({"rate": np.nan}, r"`rate` must be at least 0 and below 1.*rate=nan"),
        ({"rate": 0.1, "block_size": 0}, r"`block_size` must be at least 1.*size=0"),
    ],
)
def test_bad_arguments(kwargs, says):
    with pytest.raises(ValueError, match=says):
        DropBlock(**kwargs)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="elsewhere sizes are known"
)
def test_maps_of_unknown_size_are_refused_in_training():
    import tensorflow as tf

    layer = DropBlock(0.2, 3)
    spec = tf.TensorSpec((None, None, None, 3))
    maps = np.ones((1, 4, 5, 3), "float32")
    same = tf.function(layer, input_signature=[spec])
    np.testing.assert_array_equal(same(maps), maps)
    dropped = tf.function(lambda x: layer(x, training=True), input_signature=[spec])
    with pytest.raises(ValueError, match="needs feature maps of a known size"):
        dropped(maps)


def test_channels_stay_last_whatever_keras_says():
    keras.config.set_image_data_format("channels_first")
    try:
        maps = np.ones((2, 8, 8, 3), "float32")
        assert DropBlock(0.2, 3, seed=0)(maps, training=True).shape == (2, 8, 8, 3)
    finally:
        keras.config.set_image_data_format("channels_last")
