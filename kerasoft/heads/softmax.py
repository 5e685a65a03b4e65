"""Softmax and its base-2 sister, as probabilities and log-probabilities."""

from kerasoft import ops
from kerasoft.heads.base import Head, register


@register
class LogSoftmax(Head):
    """Log-softmax layer, the logarithm of softmax.

    Formula:

    ```python
    log_softmax(x)[i] = x[i] - log(sum(exp(x)))
    ```

    Applied to its own output it changes nothing, which is why a log-softmax head
    survives a loss that applies softmax again.

    Args:
        axis: Integer, the axis of the classes.
        **kwargs: Base layer keyword arguments, such as `name` and `dtype`.

    Call arguments:
        inputs: Logits, of any floating dtype; -inf masks a class.

    Input shape:
        Arbitrary.

    Output shape:
        Same as the input, float32 log-probabilities.

    Raises:
        ValueError: If `axis` is not an integer.

    Example:

    >>> layer = LogSoftmax()
    >>> print(np.round(layer(np.array([[13.0, 8.0, 2.0]])), 4))
    [[-6.70000e-03 -5.00670e+00 -1.10067e+01]]
    """

    outputs = "log_probabilities"

    def call(self, inputs):
        return ops.log_softmax(inputs, axis=self.axis)


@register
class Softmax2(Head):
    """Base-2 softmax layer.

    Formula:

    ```python
    softmax2(x)[i] = 2**x[i] / sum(2**x)
    ```

    It is softmax at the temperature `1 / ln(2)`, about 1.44.

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
        [Stevens et al., 2021](https://arxiv.org/abs/2103.09301).

    Example:

    >>> print(np.round(Softmax2()(np.array([2.0, 1.0, 0.0])) * 7))
    [4. 2. 1.]
    """

    def call(self, inputs):
        return ops.softmax2(inputs, axis=self.axis)


@register
class LogSoftmax2(Head):
    """Natural logarithm of the base-2 softmax.

    Formula:

    ```python
    log_softmax2(x)[i] = ln(2) * (x[i] - log2(sum(2**x)))
    ```

    Args:
        axis: Integer, the axis of the classes.
        **kwargs: Base layer keyword arguments, such as `name` and `dtype`.

    Call arguments:
        inputs: Logits, of any floating dtype; -inf masks a class.

    Input shape:
        Arbitrary.

    Output shape:
        Same as the input, float32 log-probabilities.

    Raises:
        ValueError: If `axis` is not an integer.

    Reference:
        [Stevens et al., 2021](https://arxiv.org/abs/2103.09301).

    Example:

    >>> print(np.round(np.exp(LogSoftmax2()(np.array([2.0, 1.0, 0.0]))) * 7))
    [4. 2. 1.]
    """

    outputs = "log_probabilities"

    def call(self, inputs):
        return ops.log_softmax2(inputs, axis=self.axis)
