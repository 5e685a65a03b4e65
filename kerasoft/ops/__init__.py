"""The softmax family as pure functions on `keras.ops`.

Every function takes logits of any floating dtype, computes in float32 and returns
float32. Its output is finite for all finite logits. A logit of -inf masks its class,
which gets the probability 0, or the log-probability `LOWEST`, the most negative
float32. The same holds for all classes of a row in which every class is masked.
"""

from kerasoft.ops.common import LOWEST, TINY, Tensor, log_of
from kerasoft.ops.divergence import categorical_kl_divergence
from kerasoft.ops.gumbel import (
    gumbel_noise,
    gumbel_softmax,
    gumbel_top_k,
    log_gumbel_softmax,
    log_gumbel_softmax_log_density,
    straight_through,
)
from kerasoft.ops.quadratic import (
    spherical_loss,
    spherical_softmax,
    taylor_loss,
    taylor_softmax,
    z_loss,
    z_loss_of_score,
    z_of_sums,
    z_score,
)
from kerasoft.ops.softmaxes import (
    log_softmax,
    log_softmax2,
    sin_softmax,
    softmax,
    softmax2,
)
from kerasoft.ops.sparse import entmax15, sparsemax

__all__ = [
    "LOWEST",
    "TINY",
    "Tensor",
    "categorical_kl_divergence",
    "entmax15",
    "gumbel_noise",
    "gumbel_softmax",
    "gumbel_top_k",
    "log_gumbel_softmax",
    "log_gumbel_softmax_log_density",
    "log_of",
    "log_softmax",
    "log_softmax2",
    "sin_softmax",
    "softmax",
    "softmax2",
    "sparsemax",
    "spherical_loss",
    "spherical_softmax",
    "straight_through",
    "taylor_loss",
    "taylor_softmax",
    "z_loss",
    "z_loss_of_score",
    "z_of_sums",
    "z_score",
]
