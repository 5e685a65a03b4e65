"""The softmax family for Keras 3."""

from kerasoft import (
    backbones,
    callbacks,
    heads,
    losses,
    ops,
    optimizers,
    output_layers,
    schedules,
)
from kerasoft.backbones import plain_cnn, resnet12
from kerasoft.embeddings import RowwiseEmbedding
from kerasoft.views import probabilities

__version__ = "0.2.0"
__all__ = [
    "RowwiseEmbedding",
    "backbones",
    "callbacks",
    "heads",
    "losses",
    "ops",
    "optimizers",
    "output_layers",
    "plain_cnn",
    "probabilities",
    "resnet12",
    "schedules",
]
