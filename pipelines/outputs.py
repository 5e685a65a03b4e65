"""Output layers in place of the dense layer of logits, by name.

An output layer is named as `NAME` or, with a number, as `NAME:NUMBER`. To add one, add
a function to `OUTPUTS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np

from kerasoft import heads
from kerasoft.output_layers import (
    AdaptiveOutput,
    AllClasses,
    ChunkedOutput,
    Classifier,
    FactoredOutput,
    OutputLayer,
    SampledOutput,
    TwoLevelOutput,
)
from pipelines.datasets import Data
from pipelines.errors import InputError

LEAST_SAMPLED = 64  # classes of a step, if the number is not given, or a tenth of them


class Request(NamedTuple):
    """What an output layer is made for.

    Attributes:
        data: Has the classes, how often they occur, and their superclasses.
        head: The head whose loss it is to have.
        label_smoothing: See `Config`.
        learning_rate: For layers that train their own weights: from a factor to that
            many times the run's learning rate, as a number or schedule.
        weight_decay: For the same; it is multiplied by the learning rate.
        seed: Of what it draws at random.
        number: What stands after its name, if anything.
    """

    data: Data
    head: heads.Head
    label_smoothing: float
    learning_rate: Callable[[int], Any]
    weight_decay: float
    seed: int
    number: int | None

    @property
    def num_classes(self) -> int:
        return len(self.data.class_names)

    @property
    def counts(self) -> np.ndarray:
        return np.bincount(self.data.train.labels, minlength=self.num_classes)


class Output(NamedTuple):
    """A kind of output layer.

    Attributes:
        make: From a request to the layer.
        head: The class of the heads that it can have.
        numbered: Whether its name may have a number.
        smooths: Whether it can smooth labels.
    """

    make: Callable[[Request], OutputLayer]
    head: type[heads.Head]
    numbered: bool = False
    smooths: bool = False


def _chunked(request: Request) -> OutputLayer:
    return ChunkedOutput(
        request.num_classes,
        request.head,
        label_smoothing=request.label_smoothing,
        name="logits",
    )


def _factored(request: Request) -> OutputLayer:
    times = request.number or 1
    return FactoredOutput(
        request.num_classes,
        request.head,
        learning_rate=request.learning_rate(times),
        weight_decay=request.weight_decay / times,  # as much as of other weights
        name="logits",
    )


def _sampled(request: Request) -> OutputLayer:
    classes = request.num_classes
    usual = max(classes // 10, min(LEAST_SAMPLED, classes))
    return SampledOutput(
        classes,
        min(request.number or usual, classes),
        request.counts,
        seed=request.seed,
        name="logits",
    )


def _adaptive(request: Request) -> OutputLayer:
    return AdaptiveOutput(request.num_classes, request.counts, name="logits")


def _two_level(request: Request) -> OutputLayer:
    groups = request.data.superclasses
    if request.number:
        count = min(request.number, request.num_classes)
        groups = np.arange(request.num_classes) * count // request.num_classes
    return TwoLevelOutput(request.num_classes, groups, name="logits")


OUTPUTS = {
    "chunked": Output(_chunked, heads.Head, smooths=True),
    "factored": Output(_factored, heads.SphericalHead, numbered=True),
    "sampled": Output(_sampled, heads.LogSoftmax, numbered=True),
    "adaptive": Output(_adaptive, heads.LogSoftmax),
    "two_level": Output(_two_level, heads.LogSoftmax, numbered=True),
}


def find(name: str) -> tuple[Output, int | None]:
    """Finds an output layer by its name. Returns it and its number.

    Raises:
        InputError: If there is none, or its number is not possible.
    """
    kind, colon, given = name.partition(":")
    output = OUTPUTS.get(kind)
    if output is None:
        raise InputError(f"it must be one of {', '.join(OUTPUTS)}, not {name}")
    if not colon:
        return output, None
    if not output.numbered:
        raise InputError(f"{kind} has no number, as in {name}")
    if not given.isdecimal() or not 0 < int(given) < 2**31:
        raise InputError(f"the number of {kind} must be whole and above 0, not {given}")
    return output, int(given)


def possible_heads(output: Output) -> list[str]:
    """The names of the heads that an output layer can have."""
    return [n for n, head in heads.HEADS.items() if issubclass(head, output.head)]


def features_of(model: keras.Model) -> keras.Model:
    """The part of a network before its logits."""
    return keras.Model(model.input, model.get_layer("logits").input, name=model.name)


def all_classes(plain: keras.Model, trained: Classifier) -> keras.Model:
    """A trained model that answers with a head for all classes, as others do.

    Where a dense layer gives the same logits, it is that one. Otherwise the output
    layer's log-probabilities take the place of the logits, which log-softmax does not
    change.

    Args:
        plain: The same network with a dense layer and the head.
        trained: The model, whose weights it gets.
    """
    features_of(plain).set_weights(trained.backbone.get_weights())
    layer = trained.output_layer
    if isinstance(layer, FactoredOutput | ChunkedOutput):
        dense = layer.dense_weights()
        plain.get_layer("logits").set_weights(list(dense))
        return plain
    logits, head = plain.get_layer("logits"), heads.find(plain)
    copy = type(layer).from_config(layer.get_config())
    every = AllClasses(copy, name=logits.name)
    # Another head, for this one already has an input.
    outputs = type(head).from_config(head.get_config())(every(logits.input))
    copy.set_weights(layer.get_weights())
    return keras.Model(plain.input, outputs, name=plain.name)
