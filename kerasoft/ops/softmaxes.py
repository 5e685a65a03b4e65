"""Softmax, its logarithm, the base-2 softmax and the sin-softmax."""

import math

from keras import ops

from kerasoft.ops.common import (
    LOWEST,
    Tensor,
    as_float32,
    centre,
    split_empty,
    split_mask,
)


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
    x, empty = split_empty(as_float32(logits), axis)
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
    x, empty = split_empty(as_float32(logits), axis)
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
    return softmax(centre(logits, axis) * math.log(2), axis=axis)


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
    return log_softmax(centre(logits, axis) * math.log(2), axis=axis)


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
    x, masked = split_mask(logits)
    return softmax(ops.where(masked, -math.inf, ops.sin(x)), axis=axis)
