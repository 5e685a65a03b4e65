"""The model that trains an output layer with `fit`."""

import contextlib
import contextvars
from typing import Any

import keras
from keras import ops

from kerasoft import _keras
from kerasoft.ops import Tensor
from kerasoft.output_layers.base import OutputLayer, register

_EVALUATING = contextvars.ContextVar("evaluating", default=False)


@contextlib.contextmanager
def _evaluating():
    token = _EVALUATING.set(True)
    try:
        yield
    finally:
        _EVALUATING.reset(token)


@register
class Classifier(keras.Model):
    """A backbone and an output layer, which `fit`, `evaluate` and `predict` work with.

    It is compiled with an optimiser alone: the output layer has its own loss, and gives
    `accuracy`, `top_5_accuracy` and `nll` (minus the mean log-probability of the
    labels, without smoothing) in the same pass, without the accuracies where the layer
    does not compute them in training. Called in training, and in `evaluate`,
    the model gives the backbone's features, otherwise the output layer's predictions.

    Args:
        backbone: A layer or model from inputs to features of shape `(batch, dim)`.
        output_layer: An `OutputLayer`.
        **kwargs: Base model keyword arguments, such as `name`.

    Raises:
        ValueError: If `output_layer` is not an `OutputLayer`, or the model is trained
            after it was compiled with a loss or metrics.

    Example:

    >>> backbone = keras.Sequential([keras.layers.Dense(16, "relu")])
    >>> layer = output_layers.ChunkedOutput(num_classes=1000)
    >>> model = output_layers.Classifier(backbone, layer)
    >>> model.compile("adam")
    >>> data = np.zeros((8, 4)), np.arange(8)
    >>> history = model.fit(*data, verbose=0).history
    >>> sorted(history)
    ['accuracy', 'loss', 'nll', 'top_5_accuracy']
    >>> model.predict(data[0], verbose=0)["classes"].shape
    (8, 5)
    """

    def __init__(
        self, backbone: keras.layers.Layer, output_layer: OutputLayer, **kwargs: Any
    ):
        super().__init__(**kwargs)
        if not isinstance(output_layer, OutputLayer):
            raise ValueError(
                "`output_layer` must be a layer of `kerasoft.output_layers`. "
                f"Received: output_layer={output_layer!r}"
            )
        self.backbone = backbone
        self.output_layer = output_layer
        self.accuracy = keras.metrics.Mean("accuracy")
        self.top_5_accuracy = keras.metrics.Mean("top_5_accuracy")
        self.nll = keras.metrics.Mean("nll")
        self._ranked = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        self._check_compiled()
        features = self.backbone(inputs, training=training)
        if not self.output_layer.built:
            self.output_layer.build(features.shape)
        if training or _EVALUATING.get():
            return features
        return self.output_layer(features)

    def _check_compiled(self) -> None:
        compiled = self._compile_config.config if self.compiled else {}
        for name in ("loss", "metrics", "weighted_metrics", "loss_weights"):
            if compiled.get(name) is not None:
                raise ValueError(
                    f"A `Classifier` is compiled without `{name}`: its output layer "
                    f"has a loss and metrics of its own. Received: "
                    f"{name}={compiled[name]!r}"
                )

    def compute_loss(
        self,
        x: Any = None,
        y: Tensor | None = None,
        y_pred: Any = None,
        sample_weight: Tensor | None = None,
        training: bool = True,
    ) -> Tensor:
        if y_pred is None or isinstance(y_pred, dict):  # predictions, not features
            y_pred = self.backbone(x, training=training)
        found, weights, counted = self.output_layer.evaluate_rows(
            y_pred, y, sample_weight, training
        )
        self._ranked = found.rank is not None
        if found.rank is not None:
            self.accuracy.update_state(found.rank < 1, weights)
            self.top_5_accuracy.update_state(found.rank < 5, weights)
        self.nll.update_state(found.nll, weights)
        loss = ops.divide_no_nan(found.total, counted)
        loss = _keras.scale_loss_for_distribution(loss)
        for extra in self.losses:
            loss = loss + _keras.scale_loss_for_distribution(extra)
        return loss

    def test_step(self, *args: Any, **kwargs: Any) -> Any:
        with _evaluating():
            return super().test_step(*args, **kwargs)

    def get_metrics_result(self) -> dict[str, Tensor]:
        found = dict(super().get_metrics_result())
        if not self._ranked:
            del found["accuracy"], found["top_5_accuracy"]
        return found

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "output_layer": keras.saving.serialize_keras_object(self.output_layer),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        parts = {
            name: keras.saving.deserialize_keras_object(config[name], custom_objects)
            for name in ("backbone", "output_layer")
        }
        return cls(**{**config, **parts})
