"""How many classes a network predicts at all."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


class ClassesPredicted(keras.metrics.Metric):
    """The number of classes that are predicted for at least one image of an epoch.

    Args:
        num_classes: The number of all classes.
    """

    def __init__(self, num_classes: int, name: str = "classes_predicted"):
        super().__init__(name=name)
        self.seen = self.add_variable((num_classes,), "zeros", name="seen")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        (num_classes,) = self.seen.shape
        predicted = ops.one_hot(ops.argmax(y_pred, axis=-1), num_classes)
        self.seen.assign(ops.maximum(self.seen, ops.max(predicted, axis=0)))

    def result(self) -> Any:
        # Several devices' counts are added up.
        return ops.sum(ops.cast(self.seen > 0, "float32"))
