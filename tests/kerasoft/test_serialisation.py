"""The heads as Keras layers: what every layer of Keras's own is tested for."""

import keras
import numpy as np
import pytest
from keras.src.testing import TestCase
from references import numpy

from kerasoft import heads, losses, schedules
from kerasoft.backbones.dropblock import DropBlock
from kerasoft.backbones.normalization import BatchNormalization

decay = keras.optimizers.schedules.ExponentialDecay(3.0, 10, 0.5)
floored = schedules.FlooredExponentialDecay(3.0, rate=0.1, update_every=2)
VARIANTS = [
    *((name, {}) for name in heads.HEADS),
    ("gumbel_softmax", {"temperature": decay, "hard": True, "noise": "always"}),
    ("log_gumbel_softmax", {"temperature": floored, "seed": 5}),
    ("log_gumbel_softmax", {"temperature": -1.5, "noise": "never", "axis": 1}),
    ("spherical_softmax", {"epsilon": 0.5}),
]
each_variant = pytest.mark.parametrize(("name", "kwargs"), VARIANTS)


class Harness(TestCase):
    def assertLen(self, iterable, expected_len, msg=None):  # noqa: N802
        # On PyTorch it takes all parameters for weights and seeds; a step is neither.
        if msg != "Unexpected number of torch_params":
            super().assertLen(iterable, expected_len, msg)


def keras_harness(test):
    """Keras's harness fits a generator, without weights if the layer has none."""
    for says in ("`shuffle=True` was passed", "The model does not have any trainable"):
        test = pytest.mark.filterwarnings(f"ignore:{says}:UserWarning")(test)
    return test


@keras_harness
@each_variant
def test_keras_takes_it_for_a_layer(name, kwargs):
    random = "gumbel" in name
    Harness().run_layer_test(
        heads.HEADS[name],
        kwargs,
        input_shape=(4, 5),
        expected_output_shape=(4, 5),
        expected_output_dtype="float32",
        expected_num_trainable_weights=0,
        expected_num_non_trainable_weights=0,
        expected_num_non_trainable_variables=2 * int(random),
        expected_num_seed_generators=int(random),
        expected_num_losses=0,
    )


@keras_harness
@pytest.mark.parametrize("training", [False, True])
def test_keras_takes_dropblock_for_a_layer(training):
    TestCase().run_layer_test(
        DropBlock,
        {"rate": 0.3, "block_size": 3, "seed": 0},
        input_shape=(2, 8, 8, 3),
        call_kwargs={"training": training},
        expected_output_shape=(2, 8, 8, 3),
        expected_num_trainable_weights=0,
        expected_num_non_trainable_weights=0,
        expected_num_seed_generators=1,
        expected_num_losses=0,
    )


@keras_harness
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("shape", [(2, 4, 4, 3), (2, 3)])
def test_keras_takes_batch_normalisation_for_a_layer(shape, training):
    TestCase().run_layer_test(
        BatchNormalization,
        {"momentum": 0.9},
        input_shape=shape,
        call_kwargs={"training": training},
        expected_output_shape=shape,
        expected_num_trainable_weights=2,
        expected_num_non_trainable_weights=2,
        expected_num_seed_generators=0,
        expected_num_losses=0,
    )


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
@each_variant
def test_float32_whatever_the_policy(name, kwargs, policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        head = heads.get(name, **kwargs)
        inputs = keras.Input((5,))
        features = keras.layers.Dense(5)(inputs)
        model = keras.Model(inputs, [features, head(features)])
    finally:
        keras.config.set_dtype_policy(before)
    assert model.outputs[0].dtype == head_dtype(policy)
    assert model.outputs[1].dtype == "float32"
    _, outputs = model(np.ones((2, 5), "float32"), training=True)
    assert keras.backend.standardize_dtype(outputs.dtype) == "float32"
    assert all(v.dtype != "float16" for v in head.weights)


def head_dtype(policy):
    return policy.removeprefix("mixed_")


@each_variant
def test_a_trained_model_survives_its_file(name, kwargs, tmp_path):
    head = heads.get(name, **kwargs)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(5)])
    if kwargs.get("axis") == 1:
        model.add(keras.layers.Reshape((5, 1)))
    model.add(head)
    if kwargs.get("axis") == 1:
        model.add(keras.layers.Flatten())
    model.compile("sgd", losses.matched_loss(head, label_smoothing=0.1))
    x = np.random.default_rng(0).normal(size=(12, 3)).astype("float32")
    model.fit(x, np.arange(12) % 5, batch_size=4, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")

    twin = next(layer for layer in again.layers if layer.name == head.name)
    assert type(twin) is type(head)
    assert twin.get_config() == head.get_config()
    assert again.loss.get_config() == model.loss.get_config()
    if "gumbel" in name:
        assert int(twin.step) == int(head.step) == 3
        assert float(twin.current_temperature) == float(head.current_temperature)
    if kwargs.get("noise") != "always":
        np.testing.assert_array_equal(numpy(again(x)), numpy(model(x)))
    # It goes on training from where it stood.
    again.fit(x, np.arange(12) % 5, batch_size=4, verbose=0)
    assert "gumbel" not in name or int(twin.step) == 6
