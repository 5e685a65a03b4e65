"""The softmax family as Keras layers, and the registry of their names.

A head turns logits into probabilities or log-probabilities; its attribute `outputs`
says which. `Head` documents what all heads have in common.
"""

import difflib
import inspect
from typing import Any

import keras

from kerasoft.heads.alternatives import (
    SinSoftmax,
    SphericalHead,
    SphericalSoftmax,
    TaylorSoftmax,
    ZScore,
)
from kerasoft.heads.base import Head
from kerasoft.heads.gumbel import GumbelHead, GumbelSoftmax, LogGumbelSoftmax
from kerasoft.heads.softmax import LogSoftmax, LogSoftmax2, Softmax, Softmax2
from kerasoft.heads.sparse import Entmax15, SparseHead, Sparsemax

__all__ = [
    "HEADS",
    "Entmax15",
    "GumbelHead",
    "GumbelSoftmax",
    "Head",
    "LogGumbelSoftmax",
    "LogSoftmax",
    "LogSoftmax2",
    "SinSoftmax",
    "Softmax",
    "Softmax2",
    "SparseHead",
    "Sparsemax",
    "SphericalHead",
    "SphericalSoftmax",
    "TaylorSoftmax",
    "ZScore",
    "find",
    "get",
    "takes",
]

HEADS: dict[str, type[Head]] = {
    "softmax": Softmax,
    "log_softmax": LogSoftmax,
    "softmax2": Softmax2,
    "log_softmax2": LogSoftmax2,
    "gumbel_softmax": GumbelSoftmax,
    "log_gumbel_softmax": LogGumbelSoftmax,
    "taylor_softmax": TaylorSoftmax,
    "spherical_softmax": SphericalSoftmax,
    "z_loss": ZScore,
    "sin_softmax": SinSoftmax,
    "sparsemax": Sparsemax,
    "entmax15": Entmax15,
}


def get(name: str, /, **kwargs: Any) -> Head:
    """Creates a head by its name.

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
    return _class_of(name)(**kwargs)


def takes(name: str, option: str) -> bool:
    """Whether a head has an option, such as `temperature`.

    Args:
        name: String, a key of `HEADS`.
        option: String, the name of an argument.

    Raises:
        ValueError: If no head has that name.
    """
    return option in inspect.signature(_class_of(name)).parameters


def _class_of(name: str) -> type[Head]:
    if name not in HEADS:
        near = difflib.get_close_matches(str(name), HEADS) or HEADS
        raise ValueError(
            f"There is no head with that name; did you mean {' or '.join(near)}? "
            f"Received: {name!r}"
        )
    return HEADS[name]


def find(where: "str | keras.layers.Layer") -> Head:
    """Finds the head that a model or a wrapper ends in.

    Args:
        where: A head's name, a head, a layer that wraps one (such as
            `keras.layers.TimeDistributed`), or a model whose output comes from one. A
            subclass of `keras.Model` does not tell what its output comes from: of it,
            the only head is taken. If that is not its last layer, pass the head that
            is, or none.

    Returns:
        The head itself; for a name, a new one with its default arguments.

    Raises:
        ValueError: If there is no head there, or more than one; or a head in a
            `TimeDistributed` counts its axis from the front, where one more is to come.

    Example:

    >>> model = keras.Sequential([keras.layers.Dense(3), LogSoftmax(name="mine")])
    >>> find(model).name
    'mine'
    """
    if isinstance(where, str):
        return get(where)
    if isinstance(where, Head):
        return where
    if isinstance(where, keras.layers.Wrapper):
        head = find(where.layer)
        if isinstance(where, keras.layers.TimeDistributed) and head.axis >= 0:
            raise ValueError(
                "In a `TimeDistributed`, which adds an axis before the head's, count "
                f"the axis of the classes from the end. Received: axis={head.axis}"
            )
        return head
    if isinstance(where, keras.Sequential) and where.layers:
        return find(where.layers[-1])
    if isinstance(where, keras.Model):
        ends = _ends(where)
        if len(ends) == 1:
            return find(ends[0])
        raise ValueError(
            "Expected a model that ends in one head; pass the head itself. "
            f"Received: {where!r}, which has {len(ends)} outputs or heads"
        )
    raise ValueError(
        "Expected a head, the name of one, or a layer or model that ends in one. "
        f"Received: {where!r}"
    )


def _ends(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers that produce a model's outputs, or the heads of a subclassed model."""
    try:
        outputs = model.outputs
    except AttributeError:
        outputs = None
    if outputs:
        return [output._keras_history.operation for output in outputs]
    return [layer for layer in model._flatten_layers() if isinstance(layer, Head)]
