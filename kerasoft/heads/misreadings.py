"""Finds compiled losses and metrics that misinterpret a head's output."""

import inspect
from typing import Any

import keras

# The config of Keras's losses and metrics shows what they expect: those that expect
# probabilities have `from_logits: False`, or thresholds.
_THRESHOLDS = ("thresholds", "num_thresholds", "threshold")
_DIVERGENCES = ("kl_divergence", "KLDivergence")


def misreadings(model: keras.Model, outputs: str) -> list[str]:
    """Describes each of Keras's losses and metrics that misinterprets a model's output.

    Args:
        model: A compiled model.
        outputs: What the model returns, as in `Head.outputs`.

    Returns:
        A list of messages, each with the problem and its solution.
    """
    compiled = model._compile_config.config  # the arguments of `compile`
    kind = {"log_probabilities": "log-probabilities", "scores": "scores"}.get(outputs)
    messages = []
    for thing in _flatten(compiled.get("loss")):
        reads = _reads(keras.losses, thing)
        if kind and reads == "probabilities":
            messages.append(
                f"The loss {_name(thing)} reads probabilities, but the model returns "
                f"{kind}: it would learn nothing. Compile it with "
                "`loss=kerasoft.losses.matched_loss(model)`."
            )
        if not kind and reads == "logits":
            messages.append(
                f"The loss {_name(thing)} reads logits, but the model returns "
                "probabilities: softmax would be applied twice. Compile it with "
                "`loss=kerasoft.losses.matched_loss(model)`."
            )
    for name in ("metrics", "weighted_metrics"):
        for thing in _flatten(compiled.get(name)):
            if kind and _reads(keras.metrics, thing) == "probabilities":
                messages.append(
                    f"The metric {_name(thing)} reads probabilities, but the model "
                    f"returns {kind}. Compile and evaluate "
                    "`kerasoft.probabilities(model)` with it."
                )
    return messages


def _flatten(things: Any) -> list:
    """The losses or metrics of a compiled model as a flat list."""
    if things is None:
        return []
    if isinstance(things, list | tuple):
        return [one for thing in things for one in _flatten(thing)]
    if isinstance(things, dict):
        return [one for thing in things.values() for one in _flatten(thing)]
    return [things]


def _reads(module: Any, thing: Any) -> str | None:
    """What one of Keras's losses or metrics reads; `None` for any other."""
    if isinstance(thing, str):
        thing = _named(module, thing)
    if inspect.isfunction(thing) or inspect.isclass(thing):
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


def _named(module: Any, name: str) -> Any:
    """One of Keras's classes or functions, by its name or alias; `None` for any other.

    A metric is not made of it, as `keras.metrics.get` would: where its variables are
    made while TensorFlow traces a training step, the step is traced twice.
    """
    plain = name.replace("_", "").lower()
    for known, thing in vars(module).items():
        if inspect.isclass(thing) and known.lower() == plain:
            return thing
    try:
        return keras.losses.get(name)  # functions, by the aliases of metrics too
    except ValueError:
        return None


def _name(thing: Any) -> str:
    if isinstance(thing, str):
        return repr(thing)
    return getattr(thing, "__name__", type(thing).__name__)
