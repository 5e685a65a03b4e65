"""Gumbel noise, softmax with noise and a temperature, and samples made of them."""

import math
from typing import Any

import numpy as np
from keras import ops, random

from kerasoft.ops.common import TINY, Tensor, as_float32, split_mask, temper
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
    axis %= len(soft.shape)  # as not every backend takes one that is below -1
    one_hot = ops.one_hot(
        ops.argmax(soft, axis=axis), ops.shape(soft)[axis], axis=axis, dtype="float32"
    )
    one_hot = ops.where(
        ops.equal(soft, 0.0), 0.0, one_hot
    )  # a row whose classes are all masked
    return straight_through(one_hot, soft)


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


def log_gumbel_softmax_log_density(
    log_sample: Tensor,
    logits: Tensor,
    temperature: Tensor | float = 1.0,
    axis: int = -1,
) -> Tensor:
    """Log-density of a sample of `log_gumbel_softmax`, in nats.

    ```python
    z = logits - temperature * log_sample
    log (N - 1)! + (N - 1) log(temperature) + sum(z - logsumexp(z))
    ```

    The difference of two such densities at one sample estimates the KL divergence of
    the two distributions of relaxed samples. It is computed from log-samples because
    those are finite at low temperatures, where the samples themselves round to 0 and 1.

    Args:
        log_sample: Float tensor, the output of `log_gumbel_softmax` with noise.
        logits: Float tensor, the logits of the distribution. Classes whose logit is
            -inf do not count among the N classes.
        temperature: Positive float or scalar tensor, that of the sample.
        axis: Integer, the axis of the classes.

    Returns:
        Float32 tensor of the shape of `logits` without `axis`.

    Reference:
        [Maddison et al., 2017](https://arxiv.org/abs/1611.00712), appendix C
        (ExpConcrete).

    Example:

    >>> logits = np.array([2.0, 0.0, 0.0])
    >>> sample = log_gumbel_softmax(logits, 0.5, gumbel_noise((3,), seed=0))
    >>> ratio = log_gumbel_softmax_log_density(sample, logits, 0.5)
    >>> ratio -= log_gumbel_softmax_log_density(sample, np.zeros(3), 0.5)
    >>> ratio.shape == ()
    True
    """
    x, masked = split_mask(logits)
    temperature = as_float32(temperature)
    z = ops.where(masked, -math.inf, x - temperature * as_float32(log_sample))
    total = ops.sum(ops.where(masked, 0.0, log_softmax(z, axis=axis)), axis=axis)
    most = x.shape[axis]
    factorials = np.array([math.lgamma(max(n, 1)) for n in range(most + 1)], "float32")
    count = ops.sum(ops.cast(ops.logical_not(masked), "int32"), axis=axis)
    free = ops.cast(ops.maximum(count - 1, 0), "float32")
    return ops.take(factorials, count) + free * ops.log(temperature) + total


def gumbel_top_k(logits: Tensor, k: int, seed: Any = None) -> Tensor:
    """Samples `k` classes without replacement: the `k` largest of `x + g`.

    The first is a sample of `softmax(x)`; each further one is a sample of the softmax
    over the classes that are left.

    Args:
        logits: Float tensor, logits or log-probabilities, of shape `(..., classes)`. A
            class whose logit is -inf is drawn only after all others.
        k: Integer, how many classes to draw, at most all.
        seed: Integer, `keras.random.SeedGenerator`, or `None`.

    Returns:
        Int32 tensor of shape `(..., k)`, the classes in the order of their drawing.

    Raises:
        ValueError: If `k` is not between 1 and the number of classes.

    Reference:
        [Kool et al., 2019](https://arxiv.org/abs/1903.06059), section 2.3.

    Example:

    >>> drawn = gumbel_top_k(np.zeros((2, 5)), 5, seed=0)
    >>> print(np.sort(drawn, axis=-1))
    [[0 1 2 3 4]
     [0 1 2 3 4]]
    """
    x = as_float32(logits)
    if not 1 <= k <= x.shape[-1]:
        raise ValueError(
            f"`k` must be between 1 and the number of classes, {x.shape[-1]}. "
            f"Received: k={k}"
        )
    noisy = x + gumbel_noise(ops.shape(x), seed)
    return ops.cast(ops.top_k(noisy, k)[1], "int32")


def straight_through(hard: Tensor, soft: Tensor) -> Tensor:
    """Straight-through estimator: one tensor's value with another's gradient.

    Args:
        hard: Float tensor, the value, for example a one-hot tensor.
        soft: Float tensor of the same shape, which takes the gradient, for example the
            probabilities of which `hard` is the argmax.

    Returns:
        Tensor equal to `hard`, whose gradient is passed to `soft` unchanged.

    Reference:
        [Bengio et al., 2013](https://arxiv.org/abs/1308.3432), section 4.

    Example:

    >>> print(straight_through(np.array([0.0, 1.0]), np.array([0.4, 0.6])).numpy())
    [0. 1.]
    """
    hard, soft = ops.convert_to_tensor(hard), ops.convert_to_tensor(soft)
    return ops.stop_gradient(hard) + (soft - ops.stop_gradient(soft))
