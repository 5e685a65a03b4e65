"""The few of Keras's internals that kerasoft needs, in one place.

Keras hands masks from layer to layer as attributes of tensors (on JAX, whose arrays
take no attributes, in a table of its own), and keeps a context for as long as an
outermost call of a layer or a model lasts. Neither has a public name. The tests hold
what is used here to the oldest and the newest Keras that `pyproject.toml` allows.
"""

from typing import Any

import keras
from keras.src.backend import get_keras_mask, in_symbolic_scope, set_keras_mask
from keras.src.backend.common.tensor_attributes import get_tensor_attr, set_tensor_attr
from keras.src.losses.loss import scale_loss_for_distribution

__all__ = [
    "check_one_replica",
    "entry_layer",
    "get_keras_mask",
    "get_tensor_attr",
    "in_symbolic_scope",
    "is_first_call",
    "scale_loss_for_distribution",
    "set_keras_mask",
    "set_tensor_attr",
]


def check_one_replica(layer: keras.layers.Layer) -> None:
    """Refuses a layer that trains itself, where several replicas train a model.

    Raises:
        ValueError: If the layer is built under such a strategy of TensorFlow.
    """
    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf

    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    if replicas > 1:
        raise ValueError(
            f"A {type(layer).__name__} trains itself, and sees only the batch of its "
            "own replica. Build it under a strategy of one replica. Received: "
            f"num_replicas_in_sync={replicas}"
        )


_CALLED = "_kerasoft_called"


def entry_layer(layer: keras.layers.Layer) -> keras.layers.Layer:
    """The outermost layer, often a model, in whose call a layer is being called."""
    context = layer._get_call_context()
    layer._maybe_reset_call_context()
    return context.entry_layer


def is_first_call(layer: keras.layers.Layer) -> bool:
    """Whether a layer is called for the first time within one outermost call.

    A layer that is shared, or wrapped in `TimeDistributed`, is called several times in
    one call of its model.
    """
    context: Any = layer._get_call_context()
    # If the layer's `call` was called by itself, nothing else ends that context.
    layer._maybe_reset_call_context()
    called = context.__dict__.setdefault(_CALLED, set())
    first = id(layer) not in called
    called.add(id(layer))
    return first
