"""Softmax and base-2 softmax, as probabilities and log-probabilities."""

import math

from kerasoft import ops
from kerasoft.heads.base import Head, register
from kerasoft.ops import Tensor


@register
class Softmax(Head):
    """Softmax layer.

    Formula:

    ```python
    softmax(x)[i] = exp(x[i]) / sum(exp(x))
    ```

    It differs from `keras.layers.Softmax` as `Head` describes.

    Args:
        **kwargs: Keyword arguments of `Head`, such as `axis` and `dtype`.

    Example:

    >>> head = Softmax(dtype="float16")
    >>> head(np.zeros((1, 4))).dtype == "float32"
    True
    """

    def activate(self, logits: Tensor) -> Tensor:
        return ops.softmax(logits, axis=self.axis)

    def logit_scale(self, training: bool) -> float:
        return 1.0


@register
class LogSoftmax(Head):
    """Log-softmax layer, the logarithm of softmax.

    Formula:

    ```python
    log_softmax(x)[i] = x[i] - log(sum(exp(x)))
    ```

    Applied to its own output it changes nothing. So a loss that expects logits, and
    applies log-softmax again, gives the correct result for this head.

    Args:
        **kwargs: Keyword arguments of `Head`, such as `axis` and `dtype`.

    Example:

    >>> layer = LogSoftmax()
    >>> print(np.round(layer(np.array([[13.0, 8.0, 2.0]])), 4))
    [[-6.70000e-03 -5.00670e+00 -1.10067e+01]]
    """

    outputs = "log_probabilities"

    def activate(self, logits: Tensor) -> Tensor:
        return ops.log_softmax(logits, axis=self.axis)

    def logit_scale(self, training: bool) -> float:
        return 1.0


@register
class Softmax2(Head):
    """Base-2 softmax layer.

    Formula:

    ```python
    softmax2(x)[i] = 2**x[i] / sum(2**x)
    ```

    It is softmax at the temperature `1 / ln(2)`, about 1.44.

    Args:
        **kwargs: Keyword arguments of `Head`, such as `axis` and `dtype`.

    Reference:
        [Stevens et al., 2021](https://arxiv.org/abs/2103.09301).

    Example:

    >>> print(np.round(Softmax2()(np.array([2.0, 1.0, 0.0])) * 7))
    [4. 2. 1.]
    """

    def activate(self, logits: Tensor) -> Tensor:
        return ops.softmax2(logits, axis=self.axis)

    def logit_scale(self, training: bool) -> float:
        return math.log(2)


@register
class LogSoftmax2(Head):
    """Natural logarithm of the base-2 softmax.

    Formula:

    ```python
    log_softmax2(x)[i] = ln(2) * (x[i] - log2(sum(2**x)))
    ```

    Args:
        **kwargs: Keyword arguments of `Head`, such as `axis` and `dtype`.

    Reference:
        [Stevens et al., 2021](https://arxiv.org/abs/2103.09301).

    Example:

    >>> print(np.round(np.exp(LogSoftmax2()(np.array([2.0, 1.0, 0.0]))) * 7))
    [4. 2. 1.]
    """

    outputs = "log_probabilities"

    def activate(self, logits: Tensor) -> Tensor:
        return ops.log_softmax2(logits, axis=self.axis)

    def logit_scale(self, training: bool) -> float:
        return math.log(2)
