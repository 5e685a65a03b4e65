"""Callbacks for the heads."""

from typing import Any

import keras
from keras import ops

from kerasoft.heads import GumbelHead


class TemperatureLogger(keras.callbacks.Callback):
    """Adds the current temperature of a head to the logs of each epoch.

    The history that `fit` returns has it under `temperature`, and callbacks that come
    later in the list, such as `CSVLogger` and `TensorBoard`, write it. Heads inside
    nested layers and models are included. If there are several, each is logged as
    `temperature_NAME`, with the name of its layer. The callback does nothing if no head
    of the model has a temperature.

    Example:

    >>> head = heads.GumbelSoftmax(temperature=3.0)
    >>> model = keras.Sequential([keras.layers.Dense(2), head])
    >>> model.compile(loss=losses.matched_loss(head))
    >>> data = np.zeros((4, 2)), np.zeros((4,), int)
    >>> history = model.fit(*data, verbose=0, callbacks=[TemperatureLogger()])
    >>> history.history["temperature"]
    [3.0]
    """

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        layers = self.model._flatten_layers()
        heads = [layer for layer in layers if isinstance(layer, GumbelHead)]
        if logs is None:
            return
        for key, head in zip(_keys(heads), heads, strict=True):
            logs[key] = float(ops.convert_to_numpy(head.current_temperature))


def _keys(heads: list[GumbelHead]) -> list[str]:
    """The key of each head's temperature, with its path if names repeat."""
    if len(heads) == 1:
        return ["temperature"]
    names = [head.name for head in heads]
    if len(set(names)) < len(names):
        names = [head.path.replace("/", "_") for head in heads]
    return [f"temperature_{name}" for name in names]
