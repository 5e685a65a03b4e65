"""Callbacks for the heads."""

from typing import Any

import keras
from keras import ops

from kerasoft.heads import GumbelHead


class TemperatureLogger(keras.callbacks.Callback):
    """Adds the temperature that a head has reached to the logs of each epoch.

    Callbacks that come after it, such as `CSVLogger` and `TensorBoard`, write it
    under `temperature`, and so does the history that `fit` returns. Heads are found at
    any depth of the model; where there are several, each is logged as
    `temperature_NAME`, by its layer's name. In a model without a head that has a
    temperature it does nothing.

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
    """What each head's temperature is logged as: by its path if names repeat."""
    if len(heads) == 1:
        return ["temperature"]
    names = [head.name for head in heads]
    if len(set(names)) < len(names):
        names = [head.path.replace("/", "_") for head in heads]
    return [f"temperature_{name}" for name in names]
