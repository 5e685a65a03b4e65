"""Divergence of categorical distributions."""

import math

from keras import ops

from kerasoft.ops.common import Tensor, as_float32
from kerasoft.ops.softmaxes import log_softmax


def categorical_kl_divergence(
    logits: Tensor, prior_logits: Tensor | None = None, axis: int = -1
) -> Tensor:
    """KL divergence of `softmax(logits)` from a prior: `sum(p log(p / prior))`.

    It is a closed form of the logits, so it has no noise, and no temperature: with
    samples of Gumbel-softmax it is the divergence of the discrete variable that they
    relax. For that of the relaxed samples themselves, see
    `log_gumbel_softmax_log_density`.

    Args:
        logits: Float tensor.
        prior_logits: Float tensor of a shape that broadcasts to that of `logits`, the
            logits of the prior. `None` is the uniform distribution over the classes
            whose logit is not -inf.
        axis: Integer, the axis of the classes.

    Returns:
        Float32 tensor of the shape of `logits` without `axis`, in nats, at least 0 up
        to rounding. Classes of probability 0 add nothing.

    Reference:
        [Jang et al., 2017](https://arxiv.org/abs/1611.01144), section 3.

    Example:

    >>> logits = np.log([[0.5, 0.5, 0.0001], [1.0, 1.0, 1.0]])
    >>> print(np.round(categorical_kl_divergence(logits), 2))
    [0.4 0. ]
    """
    x = as_float32(logits)
    if prior_logits is None:
        prior = ops.where(ops.equal(x, -math.inf), -math.inf, 0.0)
    else:
        prior = as_float32(prior_logits)
    log_p = log_softmax(x, axis=axis)
    log_ratio = log_p - log_softmax(prior, axis=axis)
    return ops.sum(ops.exp(log_p) * log_ratio, axis=axis)
