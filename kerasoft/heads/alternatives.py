"""The heads that put something else in the place of the exponential."""

from kerasoft import ops
from kerasoft.heads.base import Head, register


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

    Call arguments:
        inputs: Logits, of any floating dtype; -inf masks a class.

    Input shape:
        Arbitrary.

    Output shape:
        Same as the input, float32 probabilities.

    Raises:
        ValueError: If `axis` is not an integer.

    Reference:
        [de Brébisson and Vincent, 2016](https://arxiv.org/abs/1511.05042).

    Example:

    >>> print(np.round(TaylorSoftmax()(np.array([0.0, 2.0])) * 6))
    [1. 5.]
    """

    def call(self, inputs):
        return ops.taylor_softmax(inputs, axis=self.axis)


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

    Call arguments:
        inputs: Logits, of any floating dtype; -inf masks a class.

    Input shape:
        Arbitrary.

    Output shape:
        Same as the input, float32 probabilities.

    Raises:
        ValueError: If `epsilon` is not positive or `axis` is not an integer.

    Reference:
        [de Brébisson and Vincent, 2016](https://arxiv.org/abs/1511.05042).

    Example:

    >>> print(np.round(SphericalSoftmax()(np.array([1.0, -2.0])) * 5))
    [1. 4.]
    """

    def __init__(self, epsilon=1e-3, axis=-1, **kwargs):
        super().__init__(axis=axis, **kwargs)
        if not epsilon > 0:
            raise ValueError(
                "`epsilon` must be positive, or logits of 0 have no distribution. "
                f"Received: epsilon={epsilon}"
            )
        self.epsilon = epsilon

    def call(self, inputs):
        return ops.spherical_softmax(inputs, epsilon=self.epsilon, axis=self.axis)

    def get_config(self):
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

    Call arguments:
        inputs: Logits, of any floating dtype; -inf masks a class.

    Input shape:
        Arbitrary.

    Output shape:
        Same as the input, float32 probabilities.

    Raises:
        ValueError: If `axis` is not an integer.

    Reference:
        [Banerjee et al., 2021](https://arxiv.org/abs/2108.07153), the periodic
        alternatives to softmax.

    Example:

    >>> print(np.round(SinSoftmax()(np.array([np.pi / 2, -np.pi / 2])), 3))
    [0.881 0.119]
    """

    def call(self, inputs):
        return ops.sin_softmax(inputs, axis=self.axis)


@register
class Sparsemax(Head):
    """Sparsemax layer: the Euclidean projection of the logits on the simplex.

    Formula:

    ```python
    sparsemax(x) = argmin over distributions p of sum((p - x)**2)
    ```

    Its probabilities can be exactly 0. There cross-entropy is infinite, and a class
    outside the support has no gradient to come back by. The matched loss is the
    sparsemax loss, whose gradient is `sparsemax(x) - target`. That is what the squared
    error of the output gives with `straight_through`, which is why it is the default.

    Args:
        straight_through: Boolean. If `True`, the gradient of the output is handed to
            the logits as it comes. `False` gives sparsemax's own gradient, for use
            inside a network, such as in attention.
        axis: Integer, the axis of the classes.
        **kwargs: Base layer keyword arguments, such as `name` and `dtype`.

    Call arguments:
        inputs: Logits, of any floating dtype; -inf masks a class.

    Input shape:
        Arbitrary.

    Output shape:
        Same as the input, float32 probabilities.

    Raises:
        ValueError: If `axis` is not an integer.

    Reference:
        [Martins and Astudillo, 2016](https://arxiv.org/abs/1602.02068), equation 1,
        and section 3 for the sparsemax loss.

    Example:

    >>> print(np.round(Sparsemax()(np.array([1.0, 0.5, -2.0])), 2))
    [0.75 0.25 0.  ]
    """

    outputs = "sparse_probabilities"

    def __init__(self, straight_through=True, axis=-1, **kwargs):
        super().__init__(axis=axis, **kwargs)
        self.straight_through = straight_through

    def call(self, inputs):
        return ops.sparsemax(inputs, self.straight_through, axis=self.axis)

    def get_config(self):
        return {**super().get_config(), "straight_through": self.straight_through}
