"""Networks whose last layers are the logits and a head.

`BACKBONES` maps a name to a function of `num_classes`, `head`, `width`, `input_shape`,
`name` and its own options, that returns a model that ends in the head. `build` also
accepts your own network as `module:function`.
"""

import importlib
import inspect
from collections.abc import Callable
from typing import Any

import keras

from kerasoft.backbones.parts import classifier
from kerasoft.backbones.plain import plain_cnn
from kerasoft.backbones.resnet import resnet12

BACKBONES: dict[str, Callable[..., keras.Model]] = {
    "resnet12": resnet12,
    "plain_cnn": plain_cnn,
}


def find(name: str) -> Callable[..., keras.Model]:
    """The function that builds a backbone.

    Args:
        name: A name of `BACKBONES`, or `module:function`.

    Returns:
        The function. Your own function can have the arguments `input_shape` and any
        options of `build`. It returns a model that takes pixels in 0..255 and outputs
        features: maps of shape `(batch, height, width, channels)`, or vectors.

    Raises:
        ValueError: If there is no backbone with that name.
    """
    if name in BACKBONES:
        return BACKBONES[name]
    module, colon, function = name.partition(":")
    if not colon:
        known = ", ".join(BACKBONES)
        raise ValueError(
            f"A backbone is one of {known}, or your own as module:function. "
            f"Received: {name}"
        )
    try:
        found = getattr(importlib.import_module(module), function)
        inspect.signature(found)
    except Exception as error:  # whatever the code of a module raises
        raise ValueError(
            f"The backbone {name} cannot be imported: {_line(error)}. Python searches "
            "the working directory and the installed packages for the module."
        ) from error
    return found


def takes(name: str, option: str) -> bool:
    """Whether a backbone has an option."""
    return option in inspect.signature(find(name)).parameters


def build(
    name: str,
    num_classes: int,
    head: "str | keras.layers.Layer | None" = None,
    input_shape: tuple[int, ...] = (32, 32, 3),
    **options: Any,
) -> keras.Model:
    """Builds a network that ends in a head.

    Args:
        name: A name of `BACKBONES`, or `module:function`.
        num_classes: Positive integer.
        head: A head's name, a layer, or `None` to output the logits.
        input_shape: Tuple of integers, `(height, width, channels)`.
        **options: Options such as `width` and `dropblock`. Options that the backbone
            does not have are ignored.

    Returns:
        A functional `keras.Model` that takes pixels in 0..255. The logits are the
        output of the layer `logits`.

    Raises:
        ValueError: If there is no such backbone, or your own function does not return a
            model with one output of features.

    Example:

    >>> model = backbones.build("plain_cnn", 10, "softmax", width=4, dropblock=0.1)
    >>> model.output_shape
    (None, 10)
    """
    function, options = find(name), {"input_shape": input_shape, **options}
    given = {k: v for k, v in options.items() if takes(name, k)}
    if name in BACKBONES:
        return function(num_classes=num_classes, head=head, **given)
    try:
        inspect.signature(function).bind(**given)
    except TypeError as error:
        raise ValueError(
            f"The backbone {name} requires an argument that `build` does not have: "
            f"{_line(error)}. Available are {', '.join(options)}."
        ) from error
    model: Any = function(**given)
    # A Sequential model has the attribute, a subclassed model does not.
    outputs = getattr(model, "outputs", None) or []
    if len(outputs) != 1 or len(outputs[0].shape) not in (2, 4):
        raise ValueError(
            f"The backbone {name} must return a functional or Sequential keras.Model "
            "with one output of the shape (batch, height, width, channels) or (batch, "
            f"channels). Received: {_line(model)}"
        )
    return classifier(model.inputs[0], outputs[0], num_classes, head, model.name)


def _line(what: Any) -> str:
    """The text of an error or an object, on one line."""
    return " ".join(str(what).split())
