"""The softmax family as Keras layers, and the registry of their names.

A head turns logits into probabilities or log-probabilities, and says which in its
attribute `outputs`. It computes in float32 and returns float32 whatever its dtype
policy, so that it is safe at the end of a mixed-precision model.
"""

import difflib
import functools

import keras

from kerasoft.heads.alternatives import (
    SinSoftmax,
    Sparsemax,
    SphericalSoftmax,
    TaylorSoftmax,
)
from kerasoft.heads.base import Head
from kerasoft.heads.gumbel import GumbelHead, GumbelSoftmax, LogGumbelSoftmax
from kerasoft.heads.softmax import LogSoftmax, LogSoftmax2, Softmax2

__all__ = [
    "HEADS",
    "GumbelHead",
    "GumbelSoftmax",
    "Head",
    "LogGumbelSoftmax",
    "LogSoftmax",
    "LogSoftmax2",
    "SinSoftmax",
    "Softmax2",
    "Sparsemax",
    "SphericalSoftmax",
    "TaylorSoftmax",
    "get",
    "outputs_of",
]

HEADS = {
    "softmax": functools.partial(keras.layers.Softmax, dtype="float32"),
    "log_softmax": LogSoftmax,
    "softmax2": Softmax2,
    "log_softmax2": LogSoftmax2,
    "gumbel_softmax": GumbelSoftmax,
    "log_gumbel_softmax": LogGumbelSoftmax,
    "taylor_softmax": TaylorSoftmax,
    "spherical_softmax": SphericalSoftmax,
    "sin_softmax": SinSoftmax,
    "sparsemax": Sparsemax,
}


def get(name, /, **kwargs):
    """Makes the head of a name.

    Args:
        name: String, a key of `HEADS`.
        **kwargs: The arguments of the head's layer.

    Returns:
        A new layer.

    Raises:
        ValueError: If no head has that name.

    Example:

    >>> get("gumbel_softmax", temperature=0.5).temperature
    0.5
    """
    if name not in HEADS:
        near = difflib.get_close_matches(str(name), HEADS) or HEADS
        raise ValueError(
            f"There is no head of that name; did you mean {' or '.join(near)}? "
            f"Received: {name!r}"
        )
    return HEADS[name](**kwargs)


def outputs_of(head):
    """Tells what a head puts out.

    Args:
        head: A layer of this module, or `keras.layers.Softmax`.

    Returns:
        `"probabilities"`, `"log_probabilities"`, or `"sparse_probabilities"`, of which
        some are exactly 0.

    Raises:
        ValueError: If the layer is no head.

    Example:

    >>> outputs_of(LogSoftmax())
    'log_probabilities'
    """
    if isinstance(head, keras.layers.Softmax):
        return "probabilities"
    if not isinstance(head, Head):
        raise ValueError(
            "Expected a head, a layer of `kerasoft.heads` or `keras.layers.Softmax`. "
            f"Received: {head!r}"
        )
    return head.outputs
