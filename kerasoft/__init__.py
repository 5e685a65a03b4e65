"""The softmax family for Keras 3."""

from kerasoft import callbacks, heads, losses, ops, schedules
from kerasoft.plain_cnn import plain_cnn
from kerasoft.resnet12 import resnet12

__version__ = "0.1.0"
__all__ = [
    "callbacks",
    "heads",
    "losses",
    "ops",
    "plain_cnn",
    "resnet12",
    "schedules",
]
