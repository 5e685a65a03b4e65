"""The softmax family as pure functions on `keras.ops`.

Every function takes logits of any floating dtype, computes in float32 and returns
float32. Its output is finite for all finite logits. A logit of -inf masks its class,
which gets the probability 0, or the log-probability `LOWEST`, the most negative
float32. The same holds for all classes of a row in which every class is masked.
"""

import math
from typing import Any, TypeAlias

import numpy as np
from keras import ops, random

Tensor: TypeAlias = Any  # a tensor of the backend, or anything convertible to one

LOWEST = float(np.finfo("float32").min)
TINY = float(np.finfo("float32").tiny)


def softmax(logits: Tensor, axis: int = -1) -> Tensor:
    """Softmax: `exp(x_i) / sum_j exp(x_j)`.

    Args:
        logits: Float tensor.
        axis: Integer, the axis of the classes.

    Returns:
        Float32 tensor of probabilities, of the shape of `logits`.

    Example:

    >>> float(softmax([0.0, 0.0])[0])
    0.5
    """
    x, empty = _split_empty(_float32(logits), axis)
    return ops.where(empty, 0.0, ops.softmax(x, axis=axis))


def log_softmax(logits: Tensor, axis: int = -1) -> Tensor:
    """Logarithm of softmax: `x_i - log(sum_j exp(x_j))`.

    Args:
        logits: Float tensor.
        axis: Integer, the axis of the classes.

    Returns:
        Float32 tensor of log-probabilities, of the shape of `logits`.

    Example: the log-sum-exp of the logits is subtracted from each of them.

    >>> logits = np.array([13.0, 8.0, 2.0])
    >>> print(np.round(logits - log_softmax(logits), 4))
    [13.0067 13.0067 13.0067]
    """
    x, empty = _split_empty(_float32(logits), axis)
    return ops.where(empty, LOWEST, ops.maximum(ops.log_softmax(x, axis=axis), LOWEST))


def softmax2(logits: Tensor, axis: int = -1) -> Tensor:
    """Base-2 softmax: `2**x_i / sum_j 2**x_j`, which is softmax of `ln(2) x`.

    Args:
        logits: Float tensor.
        axis: Integer, the axis of the classes.

    Returns:
        Float32 tensor of probabilities, of the shape of `logits`.

    Reference:
        [Stevens et al., 2021](https://arxiv.org/abs/2103.09301).

    Example:

    >>> print(np.round(softmax2([2.0, 1.0, 0.0]) * 7))
    [4. 2. 1.]
    """
    return softmax(_centre(logits, axis) * math.log(2), axis=axis)


def log_softmax2(logits: Tensor, axis: int = -1) -> Tensor:
    """Natural logarithm of base-2 softmax: `ln(2) (x_i - log2(sum_j 2**x_j))`.

    Args:
        logits: Float tensor.
        axis: Integer, the axis of the classes.

    Returns:
        Float32 tensor of log-probabilities, of the shape of `logits`.

    Reference:
        [Stevens et al., 2021](https://arxiv.org/abs/2103.09301).

    Example:

    >>> print(np.round(np.exp(log_softmax2([2.0, 1.0, 0.0])) * 7))
    [4. 2. 1.]
    """
    return log_softmax(_centre(logits, axis) * math.log(2), axis=axis)


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
    soft = softmax(_temper(logits, temperature, noise, axis), axis=axis)
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
    return log_softmax(_temper(logits, temperature, noise, axis), axis=axis)


def taylor_softmax(logits: Tensor, axis: int = -1) -> Tensor:
    """Taylor softmax: `(1 + x_i + x_i**2 / 2)`, normalised to sum to 1.

    Args:
        logits: Float tensor.
        axis: Integer, the axis of the classes.

    Returns:
        Float32 tensor of probabilities, of the shape of `logits`.

    Reference:
        [de Brébisson and Vincent, 2016](https://arxiv.org/abs/1511.05042).

    Example:

    >>> print(np.round(taylor_softmax([0.0, 2.0]) * 6))
    [1. 5.]
    """
    x, masked = _split_mask(logits)
    scale = _scale(x, axis)
    x = x / scale
    return _normalise(1 / scale / scale + x / scale + x * x / 2, masked, axis)


def spherical_softmax(logits: Tensor, epsilon: float = 1e-3, axis: int = -1) -> Tensor:
    """Spherical softmax: `(x_i**2 + epsilon)`, normalised to sum to 1.

    It ignores the sign of a logit. `epsilon` keeps the probability at a logit of 0
    positive, and so bounds the gradient of its logarithm.

    Args:
        logits: Float tensor.
        epsilon: Positive float.
        axis: Integer, the axis of the classes.

    Returns:
        Float32 tensor of probabilities, of the shape of `logits`.

    Reference:
        [de Brébisson and Vincent, 2016](https://arxiv.org/abs/1511.05042).

    Example:

    >>> print(np.round(spherical_softmax([1.0, -2.0]) * 5))
    [1. 4.]
    """
    x, masked = _split_mask(logits)
    scale = _scale(x, axis)
    x = x / scale
    return _normalise(x * x + epsilon / scale / scale, masked, axis)


def z_score(logits: Tensor, axis: int = -1) -> Tensor:
    """Logits minus their mean, divided by their standard deviation over the classes.

    They are scores, not probabilities. If all logits are equal (within 1e-37), the
    scores are 0. The gradient is proportional to one over the standard deviation, which
    can overflow in half precision.

    Args:
        logits: Float tensor.
        axis: Integer, the axis of the classes.

    Returns:
        Float32 tensor of the shape of `logits`.

    Reference:
        [de Brébisson and Vincent, 2016](https://arxiv.org/abs/1604.08859), section 3.

    Example:

    >>> print(np.round(z_score([1.0, 5.0])))
    [-1.  1.]
    """
    x, masked = _split_mask(logits)
    # Minus the largest, so that a common offset causes no rounding errors. Halved,
    # because the difference of two float32 can overflow; the scores do not change.
    largest = ops.max(ops.where(masked, -math.inf, x), axis=axis, keepdims=True)
    largest = ops.where(ops.equal(largest, -math.inf), 0.0, largest)
    x = ops.where(masked, 0.0, x / 2 - ops.stop_gradient(largest) / 2)
    scale = ops.stop_gradient(ops.max(ops.abs(x), axis=axis, keepdims=True))
    x = x / ops.where(scale < 5e-38, 1.0, ops.minimum(scale, 1e37))
    share = ops.where(masked, 0.0, 1.0)
    share = share / ops.maximum(ops.sum(share, axis=axis, keepdims=True), 1.0)
    x = x - ops.sum(share * x, axis=axis, keepdims=True)
    variance = ops.sum(share * x * x, axis=axis, keepdims=True)
    return ops.where(masked, LOWEST, x / _std(variance))


def z_loss(
    squares: Tensor,
    total: Tensor,
    logit: Tensor,
    num_classes: int,
    a: float = 0.1,
    b: float = 10.0,
) -> Tensor:
    """Z-loss, from sums over the classes: `softplus(a (b - z)) / a`.

    `z` is the `z_score` of the label's logit. As in `spherical_loss` and `taylor_loss`,
    the other logits enter only by two sums.

    Args:
        squares: Float tensor, the sum of the squared logits of all classes.
        total: Float tensor, the sum of the logits of all classes.
        logit: Float tensor, the logit of the label.
        num_classes: Positive integer, how many classes there are.
        a: Positive float, the sharpness of the softplus.
        b: Float, the score up to which the loss raises the label's score.

    Returns:
        Float32 tensor of losses.

    Reference:
        [de Brébisson and Vincent, 2016](https://arxiv.org/abs/1604.08859), section 3.

    Example: logits 1 and 5 have scores -1 and 1.

    >>> print(np.round(z_loss(26.0, 6.0, 5.0, num_classes=2, a=1.0, b=1.0) / np.log(2)))
    1.0
    """
    return z_loss_of_score(z_of_sums(squares, total, logit, num_classes), a, b)


def z_loss_of_score(score: Tensor, a: float = 0.1, b: float = 10.0) -> Tensor:
    """Z-loss of a label's score: `softplus(a (b - score)) / a`.

    Args:
        score: Float tensor, as `z_score` gives.
        a: Positive float.
        b: Float.
    """
    return ops.softplus(a * (b - _float32(score))) / a


def z_of_sums(
    squares: Tensor, total: Tensor, logit: Tensor, num_classes: int
) -> Tensor:
    """A logit's `z_score`, from sums over the classes as in `z_loss`."""
    mean = _float32(total) / num_classes
    variance = _float32(squares) / num_classes - mean * mean
    return (_float32(logit) - mean) / _std(variance)


def spherical_loss(
    squares: Tensor,
    total: Tensor,
    logit: Tensor,
    num_classes: int,
    epsilon: float = 1e-3,
) -> Tensor:
    """Minus the logarithm of spherical softmax, from sums over the classes.

    Args:
        squares: Float tensor, the sum of the squared logits of all classes.
        total: Float tensor, the sum of the logits of all classes, which is not used.
        logit: Float tensor, the logit of the label.
        num_classes: Positive integer, how many classes there are.
        epsilon: Positive float, as in `spherical_softmax`.

    Returns:
        Float32 tensor of losses.

    Reference:
        [de Brébisson and Vincent, 2016](https://arxiv.org/abs/1511.05042).

    Example: logits 1 and -2.

    >>> print(np.round(np.exp(-spherical_loss(5.0, -1.0, -2.0, num_classes=2)) * 5))
    4.0
    """
    logit = _float32(logit)
    weights = _float32(squares) + num_classes * epsilon
    return ops.log(weights) - ops.log(logit * logit + epsilon)


def taylor_loss(
    squares: Tensor, total: Tensor, logit: Tensor, num_classes: int
) -> Tensor:
    """Minus the logarithm of Taylor softmax, from sums over the classes.

    Args:
        squares: Float tensor, the sum of the squared logits of all classes.
        total: Float tensor, the sum of the logits of all classes.
        logit: Float tensor, the logit of the label.
        num_classes: Positive integer, how many classes there are.

    Returns:
        Float32 tensor of losses.

    Reference:
        [de Brébisson and Vincent, 2016](https://arxiv.org/abs/1511.05042).

    Example: logits 0 and 2.

    >>> print(np.round(np.exp(-taylor_loss(4.0, 2.0, 2.0, num_classes=2)) * 6))
    5.0
    """
    logit = _float32(logit)
    weights = num_classes + _float32(total) + _float32(squares) / 2
    return ops.log(weights) - ops.log(1 + logit + logit * logit / 2)


def sin_softmax(logits: Tensor, axis: int = -1) -> Tensor:
    """Softmax of the sine of the logits: `softmax(sin(x))`.

    A sine lies in [-1, 1], so no probability is above `e**2 / (e**2 + N - 1)`.

    Args:
        logits: Float tensor.
        axis: Integer, the axis of the classes.

    Returns:
        Float32 tensor of probabilities, of the shape of `logits`.

    Reference:
        [Banerjee et al., 2021](https://arxiv.org/abs/2108.07153), the periodic
        alternatives to softmax.

    Example:

    >>> print(np.round(sin_softmax([np.pi / 2, -np.pi / 2]), 3))
    [0.881 0.119]
    """
    x, masked = _split_mask(logits)
    return softmax(ops.where(masked, -math.inf, ops.sin(x)), axis=axis)


def sparsemax(logits: Tensor, axis: int = -1) -> Tensor:
    """Sparsemax: the Euclidean projection of the logits on the probability simplex.

    Args:
        logits: Float tensor.
        axis: Integer, the axis of the classes.

    Returns:
        Float32 tensor of probabilities, of the shape of `logits`, with exact zeros.

    Reference:
        [Martins and Astudillo, 2016](https://arxiv.org/abs/1602.02068), equation 1.

    Example:

    >>> print(np.round(sparsemax([1.0, 0.5, -2.0]), 2))
    [0.75 0.25 0.  ]
    """
    x, masked = _near_the_largest(_float32(logits), axis)
    # With k logits in the support, `sum - k * threshold = 1`. Adding a logit above the
    # threshold raises it, adding one below would lower it, so the threshold of the
    # support is the largest. (Not `ops.sparsemax`: its threshold is wrong in Keras
    # 3.15, keras issue 23425.)
    descending = -ops.sort(-ops.stop_gradient(x), axis=axis)
    counts = ops.cumsum(ops.ones_like(descending), axis=axis)
    threshold = ops.max(
        (ops.cumsum(descending, axis=axis) - 1) / counts, axis=axis, keepdims=True
    )
    # One step of Newton's method corrects rounding errors of the cumulative sums, and
    # gives the threshold's derivative: 1/k for each logit of the support.
    excess = ops.maximum(x - threshold, 0.0)
    support = ops.sum(ops.cast(x > threshold, "float32"), axis=axis, keepdims=True)
    threshold = threshold + (ops.sum(excess, axis=axis, keepdims=True) - 1) / support
    return ops.where(masked, 0.0, ops.maximum(x - threshold, 0.0))


def entmax15(logits: Tensor, axis: int = -1) -> Tensor:
    """1.5-entmax: `max(x_i / 2 - threshold, 0)**2`, which sums to 1.

    It lies between softmax and sparsemax: probabilities can be exactly 0, and their
    derivative is continuous there.

    Args:
        logits: Float tensor.
        axis: Integer, the axis of the classes.

    Returns:
        Float32 tensor of probabilities, of the shape of `logits`, with exact zeros.

    Reference:
        [Peters et al., 2019](https://arxiv.org/abs/1905.05702), equation 10 with
        alpha = 1.5, and algorithm 2 for the threshold.

    Example:

    >>> print(np.round(entmax15([1.0, 0.5, -2.0]), 2))
    [0.67 0.33 0.  ]
    """
    x, masked = _near_the_largest(_float32(logits) / 2, axis)
    # With the k largest logits in the support, the threshold solves a quadratic
    # equation in their mean and their mean square. The correct k is the largest one for
    # which the smallest of these logits is above the threshold.
    descending = -ops.sort(-ops.stop_gradient(x), axis=axis)
    counts = ops.cumsum(ops.ones_like(descending), axis=axis)
    mean = ops.cumsum(descending, axis=axis) / counts
    variance = ops.cumsum(descending * descending, axis=axis) / counts - mean * mean
    thresholds = mean - ops.sqrt(ops.maximum(1 / counts - variance, 0.0))
    inside = ops.cast(thresholds <= descending, "float32")
    last = ops.equal(counts, ops.sum(inside, axis=axis, keepdims=True))
    threshold = ops.sum(ops.where(last, thresholds, 0.0), axis=axis, keepdims=True)
    # A step of Newton's method, as in sparsemax.
    excess = ops.maximum(x - threshold, 0.0)
    slope = 2 * ops.stop_gradient(ops.sum(excess, axis=axis, keepdims=True))
    error = ops.sum(excess * excess, axis=axis, keepdims=True) - 1
    excess = ops.maximum(x - (threshold + error / slope), 0.0)
    return ops.where(masked, 0.0, excess * excess)


def log_of(probabilities: Tensor) -> Tensor:
    """Logarithm of probabilities, at least that of the smallest normal float32."""
    return ops.log(ops.maximum(probabilities, TINY))


def _float32(x):
    return ops.cast(ops.convert_to_tensor(x), "float32")


def _centre(logits, axis):
    """The logits minus the largest, so that scaling them loses no precision."""
    x = _float32(logits)
    largest = ops.stop_gradient(ops.max(x, axis=axis, keepdims=True))
    return x - ops.where(ops.equal(largest, -math.inf), 0.0, largest)


def _split_empty(x, axis):
    """The logits, with 0 in rows of only -inf, and which rows those are."""
    largest = ops.stop_gradient(ops.max(x, axis=axis, keepdims=True))
    empty = ops.equal(largest, -math.inf)
    return ops.where(empty, 0.0, x), empty


def _near_the_largest(x, axis):
    """The logits minus the largest, clipped at -2; and which were masked (-inf).

    The threshold of a sparse head is within 1 of the largest logit, so smaller logits
    are never in the support. Clipping them avoids rounding errors in cumulative sums.
    """
    masked = ops.equal(x, -math.inf)
    x = ops.where(masked, LOWEST, x)
    largest = ops.stop_gradient(ops.max(x, axis=axis, keepdims=True))
    return ops.where(masked, -2.0, ops.maximum(x - largest, -2.0)), masked


def _split_mask(logits):
    """The logits, with 0 where they are masked (-inf), and which are masked."""
    x = _float32(logits)
    masked = ops.equal(x, -math.inf)
    return ops.where(masked, 0.0, x), masked


def _temper(logits, temperature, noise, axis):
    """`(logits + noise) / temperature`, up to a constant; masked logits stay masked.

    As in `_centre`, the logit with the highest probability is subtracted; with a
    negative temperature this is the smallest logit.
    """
    x, masked = _split_mask(logits)
    sign = ops.sign(_float32(temperature))
    largest = ops.max(ops.where(masked, -math.inf, sign * x), axis=axis, keepdims=True)
    most_likely = sign * ops.where(ops.equal(largest, -math.inf), 0.0, largest)
    x = (x - ops.stop_gradient(most_likely) + noise) / temperature
    return ops.where(masked, -math.inf, ops.clip(x, LOWEST, -LOWEST))


def _scale(x, axis):
    """The largest magnitude, at least 1; after division by it, squares cannot overflow.

    At most 1e37, because XLA multiplies by the reciprocal and rounds a subnormal to 0.
    """
    largest = ops.max(ops.abs(x), axis=axis, keepdims=True)
    return ops.stop_gradient(ops.clip(largest, 1.0, 1e37))


def _std(variance):
    """The standard deviation, or 1 if it is 0."""
    return ops.sqrt(ops.where(variance > TINY, variance, 1.0))


def _normalise(weights, masked, axis):
    weights = ops.where(masked, 0.0, weights)
    total = ops.sum(weights, axis=axis, keepdims=True)
    return weights / ops.where(ops.equal(total, 0.0), 1.0, total)
