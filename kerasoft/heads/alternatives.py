"""The heads that replace the exponential by another function."""

import math
from typing import Any

import keras

from kerasoft import losses, ops
from kerasoft.heads.base import Head, register
from kerasoft.ops import Tensor


class SphericalHead(Head):
    """Base of the heads whose loss depends on the other classes by two sums only.

    These are the sum of the logits and the sum of their squares. Therefore
    `kerasoft.output_layers.FactoredOutput` can train them at a cost that does not
    depend on the number of classes.

    Reference:
        [Vincent et al., 2015](https://arxiv.org/abs/1412.7091).
    """

    def loss_of_sums(
        self, squares: Tensor, total: Tensor, logit: Tensor, num_classes: int
    ) -> Tensor:
        """The matched loss of a label.

        Args:
            squares: The sum of the squared logits of all classes.
            total: The sum of the logits of all classes.
            logit: The logit of the label.
            num_classes: How many classes there are.
        """
        raise NotImplementedError

    def score_of_sums(
        self, squares: Tensor, total: Tensor, logit: Tensor, num_classes: int
    ) -> Tensor:
        """The log-probability of a class, or its score if there are no probabilities.

        For any sums, the order of the classes by this value is the same.
        """
        return -self.loss_of_sums(squares, total, logit, num_classes)


@register
class TaylorSoftmax(SphericalHead):
    """Taylor softmax layer: the exponential's second-order Taylor series, normalised.

    Formula:

    ```python
    weight = 1 + x + x**2 / 2
    taylor_softmax(x)[i] = weight[i] / sum(weight)
    ```

    Args:
        **kwargs: Keyword arguments of `Head`, such as `axis` and `dtype`.

    Reference:
        [de Brébisson and Vincent, 2016](https://arxiv.org/abs/1511.05042).

    Example:

    >>> print(np.round(TaylorSoftmax()(np.array([0.0, 2.0])) * 6))
    [1. 5.]
    """

    def activate(self, logits: Tensor) -> Tensor:
        return ops.taylor_softmax(logits, axis=self.axis)

    def loss_of_sums(
        self, squares: Tensor, total: Tensor, logit: Tensor, num_classes: int
    ) -> Tensor:
        return ops.taylor_loss(squares, total, logit, num_classes)


@register
class SphericalSoftmax(SphericalHead):
    """Spherical softmax layer: the squared logits, normalised.

    Formula:

    ```python
    weight = x**2 + epsilon
    spherical_softmax(x)[i] = weight[i] / sum(weight)
    ```

    It ignores the sign of a logit.

    Args:
        epsilon: Positive float, which bounds the gradient of the logarithm at logits
            near 0.
        **kwargs: Keyword arguments of `Head`, such as `axis` and `dtype`.

    Raises:
        ValueError: If `epsilon` is not positive.

    Reference:
        [de Brébisson and Vincent, 2016](https://arxiv.org/abs/1511.05042).

    Example:

    >>> print(np.round(SphericalSoftmax()(np.array([1.0, -2.0])) * 5))
    [1. 4.]
    """

    def __init__(self, epsilon: float = 1e-3, axis: int = -1, **kwargs: Any):
        super().__init__(axis=axis, **kwargs)
        if not epsilon > 0:
            raise ValueError(
                "`epsilon` must be positive, because otherwise logits of 0 cannot be "
                f"normalised. Received: epsilon={epsilon}"
            )
        self.epsilon = epsilon

    def activate(self, logits: Tensor) -> Tensor:
        return ops.spherical_softmax(logits, epsilon=self.epsilon, axis=self.axis)

    def loss_of_sums(
        self, squares: Tensor, total: Tensor, logit: Tensor, num_classes: int
    ) -> Tensor:
        return ops.spherical_loss(squares, total, logit, num_classes, self.epsilon)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "epsilon": self.epsilon}


@register
class ZScore(SphericalHead):
    """Z-score layer: logits standardised over the classes, for the Z-loss.

    Formula:

    ```python
    z_score(x) = (x - mean(x)) / std(x)
    matched loss = softplus(a * (b - z_score(x)[label])) / a
    ```

    Scores rank the classes but are not probabilities; the loss only raises the score of
    the label. `probabilities` returns the softmax of the scores, which the training
    does not calibrate.

    Args:
        a: Positive float, the sharpness of the softplus in the matched loss.
        b: Float, the score up to which the matched loss raises the label's score.
        **kwargs: Keyword arguments of `Head`, such as `axis` and `dtype`.

    Raises:
        ValueError: If `a` is not positive.

    Reference:
        [de Brébisson and Vincent, 2016](https://arxiv.org/abs/1604.08859), section 3.

    Example:

    >>> print(np.round(ZScore()(np.array([1.0, 5.0]))))
    [-1.  1.]
    """

    outputs = "scores"

    def __init__(self, a: float = 0.1, b: float = 10.0, axis: int = -1, **kwargs: Any):
        super().__init__(axis=axis, **kwargs)
        loss = losses.ZLoss(a, b)
        self.a, self.b = loss.a, loss.b

    def activate(self, logits: Tensor) -> Tensor:
        return ops.z_score(logits, axis=self.axis)

    def probabilities(self, outputs: Tensor) -> Tensor:
        return ops.softmax(_masked(outputs), axis=self.axis)

    def log_probabilities(self, outputs: Tensor) -> Tensor:
        return ops.log_softmax(_masked(outputs), axis=self.axis)

    def matched_loss(self, **kwargs: Any) -> keras.losses.Loss:
        return losses.ZLoss(self.a, self.b, axis=self.axis, **kwargs)

    def loss_of_sums(
        self, squares: Tensor, total: Tensor, logit: Tensor, num_classes: int
    ) -> Tensor:
        return ops.z_loss(squares, total, logit, num_classes, self.a, self.b)

    def score_of_sums(
        self, squares: Tensor, total: Tensor, logit: Tensor, num_classes: int
    ) -> Tensor:
        return ops.z_of_sums(squares, total, logit, num_classes)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "a": self.a, "b": self.b}


def _masked(scores):
    return keras.ops.where(keras.ops.equal(scores, ops.LOWEST), -math.inf, scores)


@register
class SinSoftmax(Head):
    """Sine softmax layer: softmax of the sine of the logits.

    Formula:

    ```python
    sin_softmax(x) = softmax(sin(x))
    ```

    A sine lies in [-1, 1], so no probability is above `e**2 / (e**2 + N - 1)`, which is
    0.07 for 100 classes.

    Args:
        **kwargs: Keyword arguments of `Head`, such as `axis` and `dtype`.

    Reference:
        [Banerjee et al., 2021](https://arxiv.org/abs/2108.07153), the periodic
        alternatives to softmax.

    Example:

    >>> print(np.round(SinSoftmax()(np.array([np.pi / 2, -np.pi / 2])), 3))
    [0.881 0.119]
    """

    def activate(self, logits: Tensor) -> Tensor:
        return ops.sin_softmax(logits, axis=self.axis)
