"""The internals of Keras that kerasoft uses.

Keras passes masks from layer to layer as attributes of tensors (on JAX, whose arrays
have no attributes, in a table), and keeps a context during the outermost call of a
layer or a model. Neither has a public API. The tests check this module with the oldest
and the newest Keras that `pyproject.toml` allows.
"""

import functools
from collections.abc import Callable
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
    "without_autograph",
]


def without_autograph(function: Callable) -> Callable:
    """Keeps a function as it is in a `tf.function`.

    TensorFlow's AutoGraph would rewrite it, but does not know all of Python, and warns
    that it could not.
    """

    @functools.wraps(function)
    def kept(*args, **kwargs):
        if keras.backend.backend() != "tensorflow":
            return function(*args, **kwargs)
        import tensorflow as tf

        as_it_is = tf.autograph.experimental.do_not_convert(function)
        return as_it_is(*args, **kwargs)

    return kept


def check_one_replica(layer: keras.layers.Layer) -> None:
    """Checks that a layer that updates its own weights has only one replica.

    Raises:
        ValueError: If TensorFlow's distribution strategy has several replicas.
    """
    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf

    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    if replicas > 1:
        raise ValueError(
            f"A {type(layer).__name__} updates its own weights, from the batch of one "
            "replica only. Build it under a strategy with one replica. Received: "
            f"num_replicas_in_sync={replicas}"
        )


_CALLED = "_kerasoft_called"


def entry_layer(layer: keras.layers.Layer) -> keras.layers.Layer:
    """The outermost layer, often a model, whose call includes this layer's call."""
    context = layer._get_call_context()
    layer._maybe_reset_call_context()
    return context.entry_layer


def is_first_call(layer: keras.layers.Layer) -> bool:
    """Whether this is the first call of a layer within the outermost call.

    One call of a model calls a layer several times if the layer is shared or wrapped in
    `TimeDistributed`.
    """
    context: Any = layer._get_call_context()
    # If `call` was called directly, nothing else resets the context.
    layer._maybe_reset_call_context()
    called = context.__dict__.setdefault(_CALLED, set())
    first = id(layer) not in called
    called.add(id(layer))
    return first
