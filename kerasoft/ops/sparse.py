"""Sparsemax and 1.5-entmax: exact zeros outside the support."""

from keras import ops

from kerasoft.ops.common import Tensor, as_float32, largest_of, near_the_largest


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
    x, masked = near_the_largest(as_float32(logits), axis)
    # With k logits in the support, `sum - k * threshold = 1`. Adding a logit above the
    # threshold raises it, adding one below would lower it, so the threshold of the
    # support is the largest. (Not `ops.sparsemax`: its threshold is wrong in Keras
    # 3.15, keras issue 23425.)
    descending = -ops.sort(-ops.stop_gradient(x), axis=axis)
    counts = ops.cumsum(ops.ones_like(descending), axis=axis)
    threshold = largest_of((ops.cumsum(descending, axis=axis) - 1) / counts, axis)
    # One step of Newton's method corrects rounding errors of the cumulative sums, and
    # gives the threshold's derivative: 1/k for each logit of the support. (A logit that
    # is equal to the threshold is outside, with a derivative of 0.)
    inside = x > threshold
    excess = ops.where(inside, x - threshold, 0.0)
    support = ops.sum(ops.cast(inside, "float32"), axis=axis, keepdims=True)
    threshold = threshold + (ops.sum(excess, axis=axis, keepdims=True) - 1) / support
    excess = ops.where(inside, x - threshold, 0.0)
    return ops.where(masked, 0.0, ops.maximum(excess, 0.0))


def entmax15(logits: Tensor, axis: int = -1) -> Tensor:
    """1.5-entmax: `max(x_i / 2 - threshold, 0)**2`, which sums to 1.

    It lies between softmax and sparsemax: probabilities can be exactly 0, and their
    derivative is continuous there. Second derivatives are not correct.

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
    x, masked = near_the_largest(as_float32(logits) / 2, axis)
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
