"""The losses of sparsemax and entmax: Fenchel-Young losses."""

from typing import Any

from keras import ops

from kerasoft import ops as family
from kerasoft.losses.base import HeadLoss, attached_logits, register
from kerasoft.ops import Tensor
from kerasoft.ops.common import largest_of

PROJECTIONS = {1.5: family.entmax15, 2.0: family.sparsemax}


@register
class EntmaxLoss(HeadLoss):
    """The loss that matches sparsemax or 1.5-entmax, a Fenchel-Young loss.

    Formula:

    ```python
    entropy(p) = sum(p - p**alpha) / (alpha * (alpha - 1))
    loss = entropy(p) - entropy(target) + sum((p - target) * logits)
    ```

    where `p` is sparsemax of the logits for `alpha=2`, and 1.5-entmax for `alpha=1.5`.
    It is never negative, and 0 if `p` is the target. Its gradient with respect to the
    logits is `p - target`; second derivatives are not correct.

    Args:
        alpha: 2.0 or 1.5.
        reads: `"logits"`, for a model without a head, or `"sparse_probabilities"`, the
            output of a `Sparsemax` or `Entmax15` head, which has its logits attached.
        label_smoothing: See `HeadLoss`.
        ignore_class: See `HeadLoss`.
        axis: See `HeadLoss`.
        **kwargs: Base loss keyword arguments, such as `name` and `reduction`.

    Call arguments:
        y_true: Integer labels, or distributions over the classes, see `HeadLoss`.
        y_pred: Logits, or the head's output.

    Raises:
        ValueError: If `alpha` or `reads` has another value, if no logits are attached
            to the output of a head, and as in `HeadLoss`.

    Reference:
        [Blondel et al., 2020](https://arxiv.org/abs/1901.02324), definition 2, with the
        Tsallis entropy of section 4.3; [Martins and
        Astudillo, 2016](https://arxiv.org/abs/1602.02068), section 3, for sparsemax.

    Example:

    >>> loss = EntmaxLoss(alpha=2.0)
    >>> float(loss(np.array([0, 0]), np.array([[0.0, 0.0], [1.0, 0.0]])))
    0.125
    """

    READS = ("logits", "sparse_probabilities")

    def __init__(
        self,
        alpha: float = 1.5,
        reads: str = "logits",
        label_smoothing: float = 0.0,
        ignore_class: int | None = None,
        axis: int = -1,
        name: str = "entmax_loss",
        **kwargs: Any,
    ):
        super().__init__(label_smoothing, ignore_class, axis, name=name, **kwargs)
        if alpha not in PROJECTIONS:
            raise ValueError(
                "`alpha` must be 1.5 (1.5-entmax) or 2.0 (sparsemax). "
                f"Received: alpha={alpha!r}"
            )
        if reads not in self.READS:
            raise ValueError(
                f"`reads` must be one of {', '.join(self.READS)}. "
                f"Received: reads={reads!r}"
            )
        self.alpha = float(alpha)
        self.reads = reads

    def of_labels(self, labels: Tensor, y_pred: Tensor) -> Tensor:
        p, x = self._distribution_and_logits(y_pred)
        of_target: Any = 0.0
        share = self.label_smoothing
        if share:
            # The smoothed target has `rest` more at the label than at other classes.
            shares = share * self.evenly(x)
            rest = self.at_labels(labels, shares)
            others = ops.sum(_entropy_terms(shares, self.alpha), axis=self.axis)
            of_label = _entropy_terms(1 - share + rest, self.alpha)
            of_target = others - _entropy_terms(rest, self.alpha) + of_label
        by_target = self.smooth(self.at_labels(labels, x), lambda: x)
        return self._loss(p, x, of_target, by_target)

    def of_distributions(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        p, x = self._distribution_and_logits(y_pred)
        share = self.label_smoothing
        target = y_true
        if share:
            target = y_true * (1 - share) + share * self.evenly(x)
        of_target = ops.sum(_entropy_terms(target, self.alpha), axis=self.axis)
        return self._loss(p, x, of_target, ops.sum(target * x, axis=self.axis))

    def _loss(
        self, p: Tensor, x: Tensor, of_target: Tensor | float, by_target: Tensor
    ) -> Tensor:
        # The derivative with respect to p is 0: p maximises entropy(p) + sum(p * x).
        p = ops.stop_gradient(p)
        entropy = ops.sum(_entropy_terms(p, self.alpha), axis=self.axis)
        return entropy - of_target + ops.sum(p * x, axis=self.axis) - by_target

    def _distribution_and_logits(self, y_pred: Tensor) -> tuple[Tensor, Tensor]:
        """The distribution, and the logits minus their maximum."""
        if self.reads == "logits":
            logits, p = y_pred, PROJECTIONS[self.alpha](y_pred, axis=self.axis)
        else:
            logits, p = attached_logits(y_pred), y_pred
        x = ops.cast(logits, "float32")
        largest = ops.stop_gradient(largest_of(x, self.axis))
        x = x - ops.maximum(largest, family.LOWEST)
        return p, ops.maximum(x, family.LOWEST)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "alpha": self.alpha, "reads": self.reads}


def _entropy_terms(p: Any, alpha: float) -> Any:
    powers = p * p if alpha == 2 else p * p**0.5
    return (p - powers) / (alpha * (alpha - 1))
