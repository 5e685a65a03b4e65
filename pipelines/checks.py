"""Whether what a config or a search names is there, and goes together."""

from __future__ import annotations

from kerasoft import backbones, heads
from pipelines import datasets, losses, outputs
from pipelines.config import Config, Switch
from pipelines.errors import InputError
from pipelines.metrics import METRICS
from pipelines.search import Search


def check(config: Config) -> None:
    """Checks what a config names.

    A backbone of a module of the user's is only looked for where it will be trained
    (`check_backbone`): a trained run is read and judged without that module.

    Raises:
        InputError: If something is not there, or they do not go together.
    """
    _check_head(config)
    _check_loss(config)
    if config.output is not None:
        _check_output(config, config.output)
    if config.dataset != "auto":
        datasets.find(config.dataset)
    config.require(
        config.validation_share == Config.validation_share
        or config.dataset.partition(":")[0] != "glyphs",
        "validation_share",
        "cannot be set with glyphs, which have a typeface for validation",
    )
    if ":" not in config.backbone:
        check_backbone(config)


def check_backbone(config: Config) -> None:
    """Finds the backbone, and whether it has the options that are given.

    Raises:
        InputError: If it is not found, or has no such option.
    """
    try:
        drops = backbones.takes(config.backbone, "dropblock")
    except ValueError as error:
        raise InputError(f"backbone: {error}") from error
    config.require(
        not config.dropblock or drops,
        "dropblock",
        f"belongs to the backbone resnet12; {config.backbone} has none",
    )
    config.require(
        config.width == Config.width or backbones.takes(config.backbone, "width"),
        "width",
        f"cannot be set: the backbone {config.backbone} has no argument `width`",
    )


def check_objective(search: Search) -> None:
    """Checks that what is searched for is a metric.

    Raises:
        InputError: If it is none.
    """
    if search.objective not in METRICS:
        raise InputError(
            f"objective must be one of {', '.join(METRICS)}. "
            f"Received: {search.objective}"
        )


def _check_head(config: Config):
    head = config.head
    try:
        # Without making the head, which would draw from the random generators.
        heads.takes(head, "temperature")
    except ValueError as error:
        raise InputError(f"head: {error}") from error
    config.require(
        heads.takes(head, "temperature") or config.temperature is None,
        "temperature",
        f"belongs to the Gumbel heads; the head {head} has none",
    )
    config.require(
        heads.takes(head, "noise") or config.noise == "training",
        "noise",
        f"belongs to the Gumbel heads; the head {head} has none",
    )
    config.require(
        not config.hard or heads.takes(head, "hard"),
        "hard",
        "belongs to gumbel_softmax: the logarithm of a one-hot is not finite",
    )
    config.require(
        config.epsilon is None or heads.takes(head, "epsilon"),
        "epsilon",
        f"belongs to spherical_softmax; the head {head} has none",
    )


def _check_loss(config: Config):
    loss = config.loss
    for name in [loss.first, loss.then] if isinstance(loss, Switch) else [loss]:
        try:
            losses.find(name)
        except InputError as error:
            raise InputError(f"loss: {error}") from error


def _check_output(config: Config, name: str):
    try:
        output, _ = outputs.find(name)
    except InputError as error:
        raise InputError(f"output: {error}") from error
    possible = outputs.possible_heads(output)
    config.require(
        config.head in possible,
        "head",
        f"must be one of {', '.join(possible)} with the output {name}",
    )
    has_own = f"cannot be set with the output {name}, which has its own loss"
    config.require(config.loss == "matched", "loss", has_own)
    config.require(not config.mixup, "mixup", has_own)
    config.require(not config.hard, "hard", has_own)
    config.require(
        config.temperature != "learned",
        "temperature",
        f"cannot be learned with the output {name}",
    )
    config.require(
        output.smooths or not config.label_smoothing, "label_smoothing", has_own
    )
    config.require(
        config.strategy == "single", "strategy", f"must be single with {name}"
    )
