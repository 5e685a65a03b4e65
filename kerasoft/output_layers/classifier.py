"""A model that trains an output layer with `fit`."""

import contextlib
import contextvars
from typing import Any

import keras

from kerasoft import _keras, embeddings
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
    """A model of a backbone and an output layer, for `fit`, `evaluate` and `predict`.

    Compile it with an optimiser only. The output layer has its own loss and computes
    the metrics `accuracy`, `top_5_accuracy` and `nll` (minus the mean log-probability
    of the labels, without smoothing) in the same pass; metrics that a layer does not
    compute are omitted. In training and in `evaluate`, a call of the model returns the
    backbone's features, otherwise the output layer's predictions.

    Args:
        backbone: A layer or model that returns features of shape `(batch, dim)`.
        output_layer: An `OutputLayer`.
        **kwargs: Base model keyword arguments, such as `name`.

    Raises:
        ValueError: If `output_layer` is not an `OutputLayer`, or if the model is
            called after it was compiled with a loss or metrics.

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
        self._unknown: tuple[
            str, ...
        ] = ()  # metrics that the last step did not compute

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
                    f"Compile a `Classifier` without `{name}`: its output layer has "
                    f"its own loss and metrics. Received: "
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
        found, weights = self.output_layer.evaluate_rows(
            y_pred, y, sample_weight, training
        )
        self._unknown = ()
        if found.rank is None:
            self._unknown += ("accuracy", "top_5_accuracy")
        else:
            self.accuracy.update_state(found.rank < 1, weights)
            self.top_5_accuracy.update_state(found.rank < 5, weights)
        if found.nll is None:
            self._unknown += ("nll",)
        else:
            self.nll.update_state(found.nll, weights)
        loss = _keras.scale_loss_for_distribution(found.total)
        for extra in self.losses:
            loss = loss + _keras.scale_loss_for_distribution(extra)
        return loss

    def compute_loss_and_updates(self, weights: list, *args: Any, **kwargs: Any) -> Any:
        """The loss of a step, which Keras's trainer calls on JAX."""

        def compute(weights):
            return super(Classifier, self).compute_loss_and_updates(  # pyright: ignore
                weights, *args, **kwargs
            )

        if kwargs.get("training"):
            return embeddings.with_updates(compute, self, weights)
        return compute(weights)

    def test_step(self, *args: Any, **kwargs: Any) -> Any:
        with _evaluating():
            return super().test_step(*args, **kwargs)

    def get_metrics_result(self) -> dict[str, Tensor]:
        found = dict(super().get_metrics_result())
        return {k: v for k, v in found.items() if k not in self._unknown}

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
