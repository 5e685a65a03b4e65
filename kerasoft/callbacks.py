"""Callbacks for the heads."""

import keras
from keras import ops

from kerasoft.heads import GumbelHead


class TemperatureLogger(keras.callbacks.Callback):
    """Adds the temperature that a head has reached to the logs of each epoch.

    Callbacks that come after it, such as `CSVLogger` and `TensorBoard`, write it
    under `temperature`, and so does the history that `fit` returns. In a model
    without a head that has a temperature it does nothing.

    Example:

    >>> head = heads.GumbelSoftmax(temperature=3.0)
    >>> model = keras.Sequential([keras.layers.Dense(2), head])
    >>> model.compile(loss=losses.matched_loss(head))
    >>> data = np.zeros((4, 2)), np.zeros((4,), int)
    >>> history = model.fit(*data, verbose=0, callbacks=[TemperatureLogger()])
    >>> history.history["temperature"]
    [3.0]
    """

    def on_epoch_end(self, epoch, logs=None):
        for layer in self.model.layers:
            if isinstance(layer, GumbelHead) and logs is not None:
                logs["temperature"] = float(
                    ops.convert_to_numpy(layer.current_temperature)
                )
