"""The heads whose probabilities can be exactly 0."""

from typing import Any, ClassVar

import keras

from kerasoft import losses, ops
from kerasoft.heads.base import Head, hide_classes, register
from kerasoft.ops import Tensor


class SparseHead(Head):
    """Base of the heads that project the logits on the probability simplex.

    Cross-entropy is infinite at a probability of 0, and a class with this probability
    has no gradient, so its probability could not rise again. Therefore the matched loss
    is `losses.EntmaxLoss`, whose gradient with respect to the logits is
    `probabilities - target`. It needs the logits, which the head attaches to its
    output; so the head must be the last layer.
    """

    outputs = "sparse_probabilities"
    alpha: ClassVar[float]

    def call(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        logits = hide_classes(inputs, mask)
        outputs = super().call(logits)
        losses.attach_logits(outputs, logits)
        return outputs

    def matched_loss(self, **kwargs: Any) -> keras.losses.Loss:
        return losses.EntmaxLoss(
            self.alpha, reads=self.outputs, axis=self.axis, **kwargs
        )


@register
class Sparsemax(SparseHead):
    """Sparsemax layer: the Euclidean projection of the logits on the simplex.

    Formula:

    ```python
    sparsemax(x) = argmin over distributions p of sum((p - x)**2)
    sparsemax(x)[i] = max(x[i] - threshold, 0)
    ```

    Its probabilities can be exactly 0.

    Args:
        **kwargs: Keyword arguments of `Head`, such as `axis` and `dtype`.

    Reference:
        [Martins and Astudillo, 2016](https://arxiv.org/abs/1602.02068), equation 1,
        and section 3 for the sparsemax loss.

    Example:

    >>> print(np.round(Sparsemax()(np.array([1.0, 0.5, -2.0])), 2))
    [0.75 0.25 0.  ]
    """

    alpha = 2.0

    def activate(self, logits: Tensor) -> Tensor:
        return ops.sparsemax(logits, axis=self.axis)


@register
class Entmax15(SparseHead):
    """1.5-entmax layer, halfway between softmax and sparsemax.

    Formula:

    ```python
    entmax15(x)[i] = max(x[i] / 2 - threshold, 0) ** 2
    ```

    with the threshold at which the probabilities sum to 1. They can be exactly 0;
    unlike sparsemax's, their derivative is continuous where they become 0. Second
    derivatives are not correct.

    Args:
        **kwargs: Keyword arguments of `Head`, such as `axis` and `dtype`.

    Reference:
        [Peters et al., 2019](https://arxiv.org/abs/1905.05702), equation 10 with
        alpha = 1.5.

    Example:

    >>> print(np.round(Entmax15()(np.array([1.0, 0.5, -2.0])), 2))
    [0.67 0.33 0.  ]
    """

    alpha = 1.5

    def activate(self, logits: Tensor) -> Tensor:
        return ops.entmax15(logits, axis=self.axis)
