import keras
import numpy as np
import pytest
from references import gradient, numpy

from kerasoft.backbones.normalization import BatchNormalization

SHAPE = (8, 5, 4, 3)
WEIGHTS = np.random.default_rng(1).normal(size=SHAPE).astype("float32")


def batch(seed=0):
    noise = np.random.default_rng(seed).normal(size=SHAPE)
    return (2 * noise + [10.0, 0.0, -3.0]).astype("float32")


def pair(**kwargs):
    """Ours and Keras's, with the same weights, none of them at its start."""
    layers = BatchNormalization(**kwargs), keras.layers.BatchNormalization(**kwargs)
    for layer in layers:
        layer.build(SHAPE)
        rng = np.random.default_rng(2)
        layer.set_weights([rng.uniform(0.5, 2, w.shape) for w in layer.weights])
    return layers


def assert_same(one, other, **tolerance):
    one, other = (
        keras.ops.convert_to_numpy(keras.ops.cast(x, "float32")) for x in (one, other)
    )
    np.testing.assert_allclose(one, other, **tolerance)


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [
        ("float32", {"rtol": 1e-5, "atol": 2e-5}),
        ("float16", {"rtol": 5e-3, "atol": 5e-3}),
        ("bfloat16", {"rtol": 3e-2, "atol": 3e-2}),
        ("mixed_float16", {"rtol": 5e-3, "atol": 5e-3}),
        ("mixed_bfloat16", {"rtol": 3e-2, "atol": 3e-2}),
        pytest.param(
            "float64",
            {"rtol": 1e-6, "atol": 1e-6},
            marks=pytest.mark.skipif(
                keras.backend.backend() == "jax", reason="JAX has no float64 by default"
            ),
        ),
    ],
)
@pytest.mark.parametrize(
    "kwargs", [{}, {"momentum": 0.5, "epsilon": 0.1}, {"scale": False}, {"axis": 1}]
)
def test_it_is_batch_normalisation(kwargs, dtype, tolerance):
    ours, keras_own = pair(dtype=dtype, **kwargs)
    for training in (True, True, False):
        x = batch(int(training))
        assert_same(
            ours(x, training=training), keras_own(x, training=training), **tolerance
        )
        for one, other in zip(ours.weights, keras_own.weights, strict=True):
            assert_same(one, other, rtol=1e-4, atol=1e-5)
    assert ours(x).dtype == keras_own(x).dtype


@pytest.mark.parametrize("training", [True, False])
def test_gradients_by_the_inputs(training):
    def slope(layer):
        return gradient(
            lambda x: keras.ops.sum(
                keras.ops.multiply(WEIGHTS, layer(x, training=training))
            ),
            batch(),
        )

    one, other = map(slope, pair())
    assert np.abs(one).max() > 0.1
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("trainable", [True, False])
def test_training_by_fit(trainable):
    def trained(layer):
        layer.trainable = trainable
        head = keras.layers.Conv2D(1, (5, 4), kernel_initializer="ones")
        model = keras.Sequential([keras.Input(SHAPE[1:]), layer, head])
        model.compile(keras.optimizers.SGD(0.1), "mse")
        model.fit(
            batch(), np.ones((8, 1, 1, 1)), batch_size=4, shuffle=False, verbose=0
        )
        return model.get_weights()

    ours, keras_own = pair()
    start = ours.get_weights()
    weights = trained(ours)
    for one, other in zip(weights, trained(keras_own), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
    for one, before in zip(weights, start, strict=False):
        assert np.array_equal(one, before) != trainable


def test_frozen_it_goes_by_its_moving_statistics():
    ours, _ = pair()
    inference = numpy(ours(batch(), training=False))
    ours.trainable = False
    before = ours.get_weights()
    np.testing.assert_array_equal(numpy(ours(batch(), training=True)), inference)
    for one, other in zip(ours.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_weights_go_from_one_to_the_other(tmp_path):
    def model(make):
        return keras.Sequential([keras.Input(SHAPE[1:]), make(name="norm")])

    ours, keras_own = model(BatchNormalization), model(keras.layers.BatchNormalization)
    assert [(w.name, w.shape, w.trainable) for w in ours.weights] == [
        (w.name, w.shape, w.trainable) for w in keras_own.weights
    ]
    for one, other in ((ours, keras_own), (keras_own, ours)):
        one.set_weights([w + np.random.rand(*w.shape) for w in one.get_weights()])
        one.save_weights(tmp_path / "model.weights.h5")
        other.load_weights(tmp_path / "model.weights.h5")
        assert_same(other(batch()), one(batch()), rtol=1e-5, atol=2e-5)


def test_a_mask_hides_what_it_hides():
    mask = np.ones(SHAPE[:-1], "bool")
    mask[:, 2:] = False
    ours, keras_own = pair()
    outputs = ours(batch(), training=True, mask=mask)
    assert_same(outputs, keras_own(batch(), training=True, mask=mask), rtol=0, atol=0)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the fused op is TensorFlow's"
)
def test_tensorflow_takes_the_fused_op():
    import tensorflow as tf

    def operations(layer):
        graph = tf.function(lambda x: layer(x, training=True))
        concrete = graph.get_concrete_function(tf.TensorSpec(SHAPE, "float32"))
        return [operation.type for operation in concrete.graph.get_operations()]

    ours, keras_own = pair()
    assert "FusedBatchNormV3" in operations(ours)
    assert "FusedBatchNormV3" not in operations(keras_own)
