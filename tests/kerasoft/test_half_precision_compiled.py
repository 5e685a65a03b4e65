"""What a GPU runs: mixed float16 in a step compiled by XLA, here on the processor."""

import keras
import numpy as np
import pytest

from kerasoft import heads, losses, optimizers
from kerasoft.output_layers import ChunkedOutput, Classifier

pytestmark = pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="there XLA compiles nothing"
)
OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.05, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(0.01),
    "muon": lambda: optimizers.Muon(0.02),
}


@pytest.fixture
def half():
    ambient = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy(ambient)


def data():
    """Classes that a line separates."""
    draws = np.random.default_rng(0)
    x = draws.normal(size=(256, 8)).astype("float32")
    return x, np.argmax(x @ draws.normal(size=(8, 5)), axis=-1)


def trained(model, optimizer, **options):
    """The loss of each epoch of a compiled model."""
    model.compile(optimizer, jit_compile=True, **options)
    history = model.fit(*data(), batch_size=32, epochs=8, verbose=0, shuffle=False)
    found = np.array(history.history["loss"])
    assert np.isfinite(found).all()
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    return found


def dense_layers():
    return [keras.Input((8,)), keras.layers.Dense(32, "relu"), keras.layers.Dense(5)]


# Each compiles for two seconds, and those of a kind alike.
ALIKE = ("softmax", "softmax2", "log_softmax2", "gumbel_softmax", "taylor_softmax")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in ALIKE else ())
        for name in heads.HEADS
        if name != "log_softmax"  # which every optimiser has, below
    ],
)
def test_every_head_learns(name, half):
    keras.utils.set_random_seed(0)
    head = heads.get(name)
    model = keras.Sequential([*dense_layers(), head])
    found = trained(model, OPTIMIZERS["adam"](), loss=losses.matched_loss(head))
    assert found[-1] < 0.95 * found[0]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_learns(name, half):
    keras.utils.set_random_seed(0)
    head = heads.LogSoftmax()
    model = keras.Sequential([*dense_layers(), head])
    found = trained(model, OPTIMIZERS[name](), loss=losses.matched_loss(head))
    assert found[-1] < 0.7 * found[0]


def test_an_output_layer_learns(half):
    keras.utils.set_random_seed(0)
    backbone = keras.Sequential(dense_layers()[:-1])
    model = Classifier(backbone, ChunkedOutput(5, head="log_softmax"))
    found = trained(model, OPTIMIZERS["adam"]())
    assert found[-1] < 0.7 * found[0]
