"""The heads that put something else in the place of the exponential."""

from typing import Any

from kerasoft import ops
from kerasoft.heads.base import Head, register
from kerasoft.ops import Tensor


@register
class TaylorSoftmax(Head):
    """Taylor softmax layer: the exponential's second-order Taylor series, normalised.

    Formula:

    ```python
    weight = 1 + x + x**2 / 2
    taylor_softmax(x)[i] = weight[i] / sum(weight)
    ```

    Args:
        axis: Integer, the axis of the classes.
        **kwargs: Base layer keyword arguments, such as `name` and `dtype`.

    Reference:
        [de Brébisson and Vincent, 2016](https://arxiv.org/abs/1511.05042).

    Example:

    >>> print(np.round(TaylorSoftmax()(np.array([0.0, 2.0])) * 6))
    [1. 5.]
    """

    def activate(self, logits: Tensor) -> Tensor:
        return ops.taylor_softmax(logits, axis=self.axis)


@register
class SphericalSoftmax(Head):
    """Spherical softmax layer: the squared logits, normalised.

    Formula:

    ```python
    weight = x**2 + epsilon
    spherical_softmax(x)[i] = weight[i] / sum(weight)
    ```

    It ignores the sign of a logit.

    Args:
        epsilon: Positive float, which keeps the gradient of the logarithm bounded
            where a logit crosses 0.
        axis: Integer, the axis of the classes.
        **kwargs: Base layer keyword arguments, such as `name` and `dtype`.

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
                "`epsilon` must be positive, or logits of 0 have no distribution. "
                f"Received: epsilon={epsilon}"
            )
        self.epsilon = epsilon

    def activate(self, logits: Tensor) -> Tensor:
        return ops.spherical_softmax(logits, epsilon=self.epsilon, axis=self.axis)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "epsilon": self.epsilon}


@register
class SinSoftmax(Head):
    """Sine softmax layer: softmax of the sine of the logits.

    Formula:

    ```python
    sin_softmax(x) = softmax(sin(x))
    ```

    No probability is above `e**2 / (e**2 + N - 1)` (0.07 for 100 classes), because a
    sine has bounds.

    Args:
        axis: Integer, the axis of the classes.
        **kwargs: Base layer keyword arguments, such as `name` and `dtype`.

    Reference:
        [Banerjee et al., 2021](https://arxiv.org/abs/2108.07153), the periodic
        alternatives to softmax.

    Example:

    >>> print(np.round(SinSoftmax()(np.array([np.pi / 2, -np.pi / 2])), 3))
    [0.881 0.119]
    """

    def activate(self, logits: Tensor) -> Tensor:
        return ops.sin_softmax(logits, axis=self.axis)
