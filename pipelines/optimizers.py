"""The optimiser of a run, with its learning-rate schedule."""

from __future__ import annotations

import keras

from kerasoft.optimizers import SGD, Muon
from kerasoft.schedules import WarmUp
from pipelines.config import Config

ADAM_SHARE = 0.3  # of Muon's learning rate, for what is no kernel of a convolution


def make_optimizer(config: Config, steps: int) -> keras.optimizers.Optimizer:
    """The config's optimiser, with its learning-rate schedule."""
    rate, decay = learning_rate(config, steps), config.weight_decay
    match config.optimizer:
        case "muon":
            return Muon(
                rate,
                weight_decay=decay,
                adam_weight_decay=decay,
                adam_lr_ratio=ADAM_SHARE,
                exclude_layers=["logits"],
            )
        case "adam":
            return keras.optimizers.AdamW(rate, weight_decay=decay)
        case "sgd":
            return SGD(rate, momentum=0.9, nesterov=True, weight_decay=decay or None)


def learning_rate(config: Config, steps: int):
    """Linear warm-up to the peak, then decay to 0 at the last step."""
    schedules, peak = keras.optimizers.schedules, config.learning_rate
    epochs = config.epochs
    warming = config.warmup_epochs if config.warmup_epochs < epochs else epochs / 2
    warmup = round(warming * steps)
    left = max(epochs * steps - warmup, 1)
    if config.schedule == "linear_decay":
        falling = schedules.PolynomialDecay(peak, left, end_learning_rate=0.0)
        return WarmUp(falling, warmup) if warmup else falling
    return schedules.CosineDecay(
        0.0 if warmup else peak,
        decay_steps=left,
        warmup_target=peak if warmup else None,
        warmup_steps=warmup,
    )
