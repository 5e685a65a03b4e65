"""Cross-entropy of probabilities, log-probabilities or logits."""

from collections.abc import Callable
from typing import Any

from keras import ops

from kerasoft import ops as family
from kerasoft.losses.base import HeadLoss, register
from kerasoft.ops import Tensor


@register
class Crossentropy(HeadLoss):
    """Cross-entropy of a head's output, whose type is given by `reads`.

    Formula:

    ```python
    target = (1 - label_smoothing) * one_hot(y_true) + label_smoothing / num_classes
    loss = -sum(target * log_probabilities)
    ```

    With `reads="probabilities"`, the log-probabilities are `log(max(y_pred, tiny))`;
    with `reads="logits"`, they are `log_softmax(y_pred)`. (If the output comes from a
    softmax, Keras's own cross-entropy uses the logits before that softmax instead, and
    so hides the difference.)

    Args:
        reads: `"probabilities"`, `"log_probabilities"` or `"logits"`.
        label_smoothing: See `HeadLoss`.
        ignore_class: See `HeadLoss`.
        axis: See `HeadLoss`.
        **kwargs: Base loss keyword arguments, such as `name` and `reduction`.

    Call arguments:
        y_true: Integer labels, or distributions over the classes, see `HeadLoss`.
        y_pred: The head's output.

    Raises:
        ValueError: If `reads` has another value, and as in `HeadLoss`.

    Example:

    >>> loss = Crossentropy(reads="probabilities")
    >>> float(loss(np.array([1]), np.array([[0.5, 0.25, 0.25]])) / np.log(2))
    2.0
    """

    READS = ("probabilities", "log_probabilities", "logits")

    def __init__(
        self,
        reads: str = "log_probabilities",
        label_smoothing: float = 0.0,
        ignore_class: int | None = None,
        axis: int = -1,
        name: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(
            label_smoothing,
            ignore_class,
            axis,
            name=name or f"crossentropy_of_{reads}",
            **kwargs,
        )
        if reads not in self.READS:
            raise ValueError(
                f"`reads` must be one of {', '.join(self.READS)}. "
                f"Received: reads={reads!r}"
            )
        self.reads = reads

    def of_log_probabilities(self, log_probabilities: Tensor) -> Tensor:
        """The loss if a class of these log-probabilities is the label."""
        return -log_probabilities

    def of_labels(self, labels: Tensor, y_pred: Tensor) -> Tensor:
        values, log = self._values(y_pred)
        by_target = self.of_log_probabilities(log(self.at_labels(labels, values)))
        of = self.of_log_probabilities
        return self.smooth(by_target, lambda: log(values), of)

    def of_distributions(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        values, log = self._values(y_pred)
        of, log_probabilities = self.of_log_probabilities, log(values)
        by_target = ops.sum(y_true * of(log_probabilities), axis=self.axis)
        return self.smooth(by_target, lambda: log_probabilities, of)

    def _values(self, y_pred: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """The output, and the elementwise function to log-probabilities."""
        if self.reads == "logits":
            return family.log_softmax(y_pred, axis=self.axis), lambda y: y
        return y_pred, family.log_of if self.reads == "probabilities" else lambda y: y

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "reads": self.reads}
