"""Notices a compiled loss or metric that takes a head's output for something else."""

import inspect
from typing import Any

import keras

# Losses and metrics of Keras say in their config what they read: those of probabilities
# have `from_logits: False`, or thresholds to compare them with.
_THRESHOLDS = ("thresholds", "num_thresholds", "threshold")
_DIVERGENCES = ("kl_divergence", "KLDivergence")


def misreadings(model: keras.Model, outputs: str) -> list[str]:
    """Tells of each of Keras's losses and metrics that misreads a model's output.

    Args:
        model: A compiled model.
        outputs: What it puts out, an `outputs` of a head.

    Returns:
        A sentence for each, with the way out in it.
    """
    compiled = model._compile_config.config  # what `compile` was given, as it was
    told = {"log_probabilities": "log-probabilities", "scores": "scores"}.get(outputs)
    found = []
    for thing in _flatten(compiled.get("loss")):
        reads = _reads(keras.losses, thing)
        if told and reads == "probabilities":
            found.append(
                f"The loss {_name(thing)} reads probabilities, and the model puts out "
                f"{told}: it would learn nothing. Compile it with "
                "`loss=kerasoft.losses.matched_loss(model)`."
            )
        if not told and reads == "logits":
            found.append(
                f"The loss {_name(thing)} reads logits, and the model puts out "
                "probabilities: softmax would be taken twice. Compile it with "
                "`loss=kerasoft.losses.matched_loss(model)`."
            )
    for name in ("metrics", "weighted_metrics"):
        for thing in _flatten(compiled.get(name)):
            if told and _reads(keras.metrics, thing) == "probabilities":
                found.append(
                    f"The metric {_name(thing)} reads probabilities, and the model "
                    f"puts out {told}. Compile and evaluate "
                    "`kerasoft.probabilities(model)` with it."
                )
    return found


def _flatten(things: Any) -> list:
    """The losses or metrics of a compiled model, one by one."""
    if things is None:
        return []
    if isinstance(things, list | tuple):
        return [one for thing in things for one in _flatten(thing)]
    if isinstance(things, dict):
        return [one for thing in things.values() for one in _flatten(thing)]
    return [things]


def _reads(module: Any, thing: Any) -> str | None:
    """What one of Keras's losses or metrics reads; `None` of any other."""
    if isinstance(thing, str):
        try:
            thing = module.get(thing)
        except ValueError:
            return None
    if inspect.isfunction(thing):
        name, home = thing.__name__, thing.__module__
        parameters = inspect.signature(thing).parameters.values()
        options = {parameter.name: parameter.default for parameter in parameters}
    else:
        name, home = type(thing).__name__, type(thing).__module__
        options = thing.get_config() if home.startswith("keras.") else {}
    if not home.startswith("keras."):
        return None
    if "from_logits" in options:
        return "logits" if options["from_logits"] else "probabilities"
    by_threshold = any(option in options for option in _THRESHOLDS)
    return "probabilities" if by_threshold or name in _DIVERGENCES else None


def _name(thing: Any) -> str:
    if isinstance(thing, str):
        return repr(thing)
    return getattr(thing, "__name__", type(thing).__name__)
