"""The softmax family for Keras 3."""

from kerasoft import callbacks, heads, losses, ops, output_layers, schedules
from kerasoft.embeddings import RowwiseEmbedding
from kerasoft.plain_cnn import plain_cnn
from kerasoft.resnet12 import resnet12
from kerasoft.views import probabilities

__version__ = "0.2.0"
__all__ = [
    "RowwiseEmbedding",
    "callbacks",
    "heads",
    "losses",
    "ops",
    "output_layers",
    "plain_cnn",
    "probabilities",
    "resnet12",
    "schedules",
]
