"""Generalised cross-entropy."""

from typing import Any

from keras import ops

from kerasoft.losses.base import register
from kerasoft.losses.crossentropy import Crossentropy
from kerasoft.ops import Tensor


@register
class GeneralizedCrossentropy(Crossentropy):
    """Generalised cross-entropy, between cross-entropy and mean absolute error.

    Formula:

    ```python
    loss = sum(target * (1 - probabilities**q) / q)
    ```

    As `q` tends to 0, it tends to the cross-entropy `-log(probabilities)`; with `q=1`
    it is `1 - probabilities`, half of the sum of absolute errors. The gradient with
    respect to the logits is that of the cross-entropy, multiplied by the label's
    probability to the power of `q`. So labels that the model takes for unlikely count
    for less, among them wrong labels, but also those of classes that it has not learned
    yet.

    Args:
        q: Float above 0, at most 1.
        reads: See `Crossentropy`.
        label_smoothing: See `HeadLoss`.
        ignore_class: See `HeadLoss`.
        axis: See `HeadLoss`.
        **kwargs: Base loss keyword arguments, such as `name` and `reduction`.

    Call arguments:
        y_true: Integer labels, or distributions over the classes, see `HeadLoss`.
        y_pred: The head's output.

    Raises:
        ValueError: If `q` is not above 0 and at most 1, and as in `Crossentropy`.

    Reference:
        [Zhang and Sabuncu, 2018](https://arxiv.org/abs/1805.07836), equation 6.

    Example:

    >>> loss = GeneralizedCrossentropy(q=1.0, reads="probabilities")
    >>> float(loss(np.array([1]), np.array([[0.5, 0.25, 0.25]])))
    0.75
    """

    def __init__(
        self,
        q: float = 0.7,
        reads: str = "log_probabilities",
        label_smoothing: float = 0.0,
        ignore_class: int | None = None,
        axis: int = -1,
        name: str = "generalized_crossentropy",
        **kwargs: Any,
    ):
        super().__init__(
            reads, label_smoothing, ignore_class, axis, name=name, **kwargs
        )
        if not 0 < q <= 1:
            raise ValueError(f"`q` must be above 0 and at most 1. Received: q={q!r}")
        self.q = float(q)

    def of_log_probabilities(self, log_probabilities: Tensor) -> Tensor:
        # Precise also where the probability is nearly 1 or q is small.
        return -ops.expm1(self.q * log_probabilities) / self.q

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "q": self.q}
