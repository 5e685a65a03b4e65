"""Gumbel noise, and softmax with noise and a temperature."""

from typing import Any

from keras import ops, random

from kerasoft.ops.common import TINY, Tensor, temper
from kerasoft.ops.softmaxes import log_softmax, softmax


def gumbel_noise(shape: Any, seed: Any = None) -> Tensor:
    """Samples of the standard Gumbel distribution: `-log(-log(u))`.

    `u` is a float32 uniform on `[tiny, 1)`. There is no argument `dtype`, because a
    half-precision uniform can round to 0 or 1, where the noise is infinite.

    Args:
        shape: Tuple of integers (or of scalar tensors), the shape of the sample.
        seed: Integer, `keras.random.SeedGenerator`, or `None`.

    Returns:
        Float32 tensor of shape `shape`, with values in about `[-4.5, 17]`.

    Reference:
        [Jang et al., 2017](https://arxiv.org/abs/1611.01144), section 2.1.

    Example:

    >>> gumbel_noise((2, 3), seed=0).shape == (2, 3)
    True
    """
    u = random.uniform(shape, minval=TINY, maxval=1.0, dtype="float32", seed=seed)
    return -ops.log(-ops.log(u))


def gumbel_softmax(
    logits: Tensor,
    temperature: Tensor | float = 1.0,
    noise: Tensor | float = 0.0,
    hard: bool = False,
    axis: int = -1,
) -> Tensor:
    """Gumbel-softmax, a relaxed one-hot sample: `softmax((x + g) / temperature)`.

    Args:
        logits: Float tensor, logits or log-probabilities.
        temperature: Non-zero float or scalar tensor. A negative one reverses the
            order of the logits.
        noise: `gumbel_noise` of the shape of `logits`. The default, 0, gives the
            deterministic `softmax(x / temperature)`.
        hard: Boolean. If `True`, the result is the one-hot argmax, with the gradient
            of the relaxed sample (the straight-through estimator).
        axis: Integer, the axis of the classes.

    Returns:
        Float32 tensor of the shape of `logits`, on the probability simplex.

    Reference:
        [Jang et al., 2017](https://arxiv.org/abs/1611.01144), equation 2, and
        section 2.2 for the straight-through estimator.

    Example:

    >>> logits = np.zeros((2, 3))
    >>> sample = gumbel_softmax(logits, 0.5, noise=gumbel_noise((2, 3), seed=0))
    >>> print(np.sum(sample, axis=-1).round(5))
    [1. 1.]
    """
    soft = softmax(temper(logits, temperature, noise, axis), axis=axis)
    if not hard:
        return soft
    one_hot = ops.one_hot(
        ops.argmax(soft, axis=axis), ops.shape(soft)[axis], axis=axis, dtype="float32"
    )
    one_hot = ops.where(
        ops.equal(soft, 0.0), 0.0, one_hot
    )  # a row whose classes are all masked
    return ops.stop_gradient(one_hot) + (soft - ops.stop_gradient(soft))


def log_gumbel_softmax(
    logits: Tensor,
    temperature: Tensor | float = 1.0,
    noise: Tensor | float = 0.0,
    axis: int = -1,
) -> Tensor:
    """Logarithm of Gumbel-softmax: `log_softmax((x + g) / temperature)`.

    Args:
        logits: Float tensor, logits or log-probabilities.
        temperature: Non-zero float or scalar tensor. A negative one reverses the
            order of the logits.
        noise: `gumbel_noise` of the shape of `logits`. The default, 0, gives the
            deterministic `log_softmax(x / temperature)`.
        axis: Integer, the axis of the classes.

    Returns:
        Float32 tensor of log-probabilities, of the shape of `logits`.

    Reference:
        [Maddison et al., 2017](https://arxiv.org/abs/1611.00712), appendix C
        (ExpConcrete).

    Example:

    >>> noise = gumbel_noise((3,), seed=0)
    >>> sample = log_gumbel_softmax(np.zeros(3), 0.5, noise)
    >>> print(np.sum(np.exp(sample)).round(5))
    1.0
    """
    return log_softmax(temper(logits, temperature, noise, axis), axis=axis)
