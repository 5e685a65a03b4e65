"""Taylor and spherical softmax and the Z-loss: functions of sums of squares."""

import math

from keras import ops

from kerasoft.ops.common import (
    LOWEST,
    Tensor,
    as_float32,
    largest_of,
    magnitude,
    normalise,
    split_mask,
    standard_deviation,
)


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
    x, masked = split_mask(logits)
    scale = magnitude(x, axis)
    x = x / scale
    return normalise(1 / scale / scale + x / scale + x * x / 2, masked, axis)


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
    x, masked = split_mask(logits)
    scale = magnitude(x, axis)
    x = x / scale
    return normalise(x * x + epsilon / scale / scale, masked, axis)


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
    x, masked = split_mask(logits)
    # Minus the largest, so that a common offset causes no rounding errors. Halved,
    # because the difference of two float32 can overflow; the scores do not change.
    largest = largest_of(ops.where(masked, -math.inf, x), axis)
    largest = ops.where(ops.equal(largest, -math.inf), 0.0, largest)
    x = ops.where(masked, 0.0, x / 2 - ops.stop_gradient(largest) / 2)
    scale = ops.stop_gradient(largest_of(ops.abs(x), axis))
    x = x / ops.where(scale < 5e-38, 1.0, ops.minimum(scale, 1e37))
    share = ops.cast(ops.logical_not(masked), "float32")
    share = share / ops.maximum(ops.sum(share, axis=axis, keepdims=True), 1.0)
    x = x - ops.sum(share * x, axis=axis, keepdims=True)
    variance = ops.sum(share * x * x, axis=axis, keepdims=True)
    return ops.where(masked, LOWEST, x / standard_deviation(variance))


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
    return ops.softplus(a * (b - as_float32(score))) / a


def z_of_sums(
    squares: Tensor, total: Tensor, logit: Tensor, num_classes: int
) -> Tensor:
    """A logit's `z_score`, from sums over the classes as in `z_loss`."""
    mean = as_float32(total) / num_classes
    variance = as_float32(squares) / num_classes - mean * mean
    return (as_float32(logit) - mean) / standard_deviation(variance)


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
    logit = as_float32(logit)
    weights = as_float32(squares) + num_classes * epsilon
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
    logit = as_float32(logit)
    weights = num_classes + as_float32(total) + as_float32(squares) / 2
    return ops.log(weights) - ops.log(1 + logit + logit * logit / 2)
