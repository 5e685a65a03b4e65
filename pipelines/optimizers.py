"""The optimiser of a run, with its learning-rate schedule."""

from __future__ import annotations

import keras

from kerasoft.optimizers import SGD, Muon
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
    """Linear warm-up to the peak, then cosine decay to 0 at the last step."""
    warmup = round(config.warmup_epochs * steps)
    total = config.epochs * steps
    return keras.optimizers.schedules.CosineDecay(
        0.0 if warmup else config.learning_rate,
        decay_steps=max(total - warmup, 1),
        warmup_target=config.learning_rate if warmup else None,
        warmup_steps=warmup,
    )
