"""The Z-loss."""

from typing import Any

from keras import ops

from kerasoft import ops as family
from kerasoft.losses.base import HeadLoss, register
from kerasoft.ops import Tensor


@register
class ZLoss(HeadLoss):
    """Z-loss of the scores that a `ZScore` head returns.

    Formula:

    ```python
    loss = sum(target * softplus(a * (b - scores)) / a)
    ```

    It raises the label's score up to about `b`. The smaller `a` is, the more gradually
    the gradient decreases towards `b`.

    Args:
        a: Positive float.
        b: Float.
        label_smoothing: See `HeadLoss`.
        ignore_class: See `HeadLoss`.
        axis: See `HeadLoss`.
        **kwargs: Base loss keyword arguments, such as `name` and `reduction`.

    Call arguments:
        y_true: Integer labels, or distributions over the classes, see `HeadLoss`.
        y_pred: Scores.

    Raises:
        ValueError: If `a` is not positive, and as in `HeadLoss`.

    Reference:
        [de Brébisson and Vincent, 2016](https://arxiv.org/abs/1604.08859), section 3.

    Example:

    >>> loss = ZLoss(a=1.0, b=1.0)
    >>> float(loss(np.array([1]), np.array([[-1.0, 1.0]])) / np.log(2))
    1.0
    """

    def __init__(
        self,
        a: float = 0.1,
        b: float = 10.0,
        label_smoothing: float = 0.0,
        ignore_class: int | None = None,
        axis: int = -1,
        name: str = "z_loss",
        **kwargs: Any,
    ):
        super().__init__(label_smoothing, ignore_class, axis, name=name, **kwargs)
        if not a > 0:
            raise ValueError(f"`a` must be positive. Received: a={a!r}")
        self.a, self.b = float(a), float(b)

    def of_labels(self, labels: Tensor, y_pred: Tensor) -> Tensor:
        by_target = self._of_scores(self.at_labels(labels, y_pred))
        return self.smooth(by_target, lambda: self._of_scores(y_pred))

    def of_distributions(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        losses = self._of_scores(y_pred)
        return self.smooth(ops.sum(y_true * losses, axis=self.axis), lambda: losses)

    def _of_scores(self, scores: Tensor) -> Tensor:
        return family.z_loss_of_score(scores, self.a, self.b)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "a": self.a, "b": self.b}
