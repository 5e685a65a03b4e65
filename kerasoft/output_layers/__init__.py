"""Output layers for many classes, which own their weights and compute their own loss.

An output layer takes the place of `Dense(num_classes)`, a head and a loss. What all of
them have in common is told in `OutputLayer`; `Classifier` trains them with `fit`.
"""

from kerasoft.output_layers.base import OutputLayer
from kerasoft.output_layers.chunked import ChunkedOutput
from kerasoft.output_layers.classifier import Classifier

__all__ = ["ChunkedOutput", "Classifier", "OutputLayer"]
