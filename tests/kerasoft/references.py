"""What the tests hold kerasoft against: float64 maths that owes it nothing."""

import importlib
import os

import keras
import numpy as np
import pytest
from scipy import special

# Where gradients are tried: JAX traces each anew, which takes a third of a second.
EXAMPLES = 6 if keras.backend.backend() == "jax" else 12


def expected(name, logits, temperature=1.0):
    """The output in float64 of the head of a name, over the last axis, without noise.

    `temperature` is that of the Gumbel heads; the other heads have none.
    """
    return OUTPUTS[name](np.asarray(logits, "float64") / temperature)


def log_expected(name, logits):
    """The log-probabilities of the head of a name, whatever it puts out.

    Of the head that has none: minus the Z-loss of each class.
    """
    outputs = expected(name, logits)
    if name == "z_loss":
        return -np.logaddexp(0, 0.1 * (10 - outputs)) / 0.1
    if name.startswith("log_"):
        return outputs
    with np.errstate(divide="ignore"):
        return np.log(outputs)


def normalised(weights):
    return weights / weights.sum(axis=-1, keepdims=True)


def entmax(x, alpha):
    """Peters et al. (2019), equation 10: bisection on the threshold of the logits."""
    x, power = (alpha - 1) * x, 1 / (alpha - 1)
    low, high = x.max(axis=-1, keepdims=True) - 1, x.max(axis=-1, keepdims=True)
    for _ in range(60):
        middle = (low + high) / 2
        total = (np.maximum(x - middle, 0) ** power).sum(axis=-1, keepdims=True)
        low = np.where(total > 1, middle, low)
        high = np.where(total > 1, high, middle)
    return np.maximum(x - high, 0) ** power


def z_score(x):
    deviation = x - x.mean(axis=-1, keepdims=True)
    equal = np.ptp(x, axis=-1, keepdims=True) < 1e-37
    return deviation / np.where(equal, 1, x.std(axis=-1, keepdims=True))


OUTPUTS = {
    "softmax": lambda x: special.softmax(x, axis=-1),
    "log_softmax": lambda x: special.log_softmax(x, axis=-1),
    "softmax2": lambda x: normalised(2 ** (x - x.max(axis=-1, keepdims=True))),
    "log_softmax2": lambda x: special.log_softmax(x * np.log(2), axis=-1),
    "gumbel_softmax": lambda x: special.softmax(x, axis=-1),
    "log_gumbel_softmax": lambda x: special.log_softmax(x, axis=-1),
    "taylor_softmax": lambda x: normalised(1 + x + x**2 / 2),
    "spherical_softmax": lambda x: normalised(x**2 + 1e-3),
    "z_loss": z_score,
    "sin_softmax": lambda x: special.softmax(np.sin(x), axis=-1),
    "sparsemax": lambda x: entmax(x, 2.0),
    "entmax15": lambda x: entmax(x, 1.5),
}


def needed(package):
    """A package of the extra `torch`: without it a test is skipped, and in CI fails."""
    if "KERASOFT_REQUIRE_TORCH" in os.environ:
        return importlib.import_module(package)
    return pytest.importorskip(package, reason="it comes with the extra `torch`")


def numpy(x):
    """A tensor's values, of any backend, whether it wants a gradient or not."""
    return keras.ops.convert_to_numpy(x)


def gradient(function, x):
    """The gradient of a scalar function of one tensor, on the backend in use."""
    x = keras.ops.convert_to_tensor(x)
    if keras.backend.backend() == "jax":
        import jax

        slope = jax.grad(function)(x)
    elif keras.backend.backend() == "torch":
        x = x.detach().clone().requires_grad_()
        function(x).backward()
        slope = x.grad
    else:
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        slope = tape.gradient(y, x)
    return numpy(keras.ops.cast(slope, "float32"))
