"""Output layers for many classes, which own their weights and compute their own loss.

An output layer replaces `Dense(num_classes)`, a head and a loss. `OutputLayer`
documents what all of them have in common; `Classifier` trains them with `fit`.
"""

from kerasoft.output_layers.adaptive import AdaptiveOutput
from kerasoft.output_layers.all_classes import AllClasses
from kerasoft.output_layers.base import OutputLayer
from kerasoft.output_layers.chunked import ChunkedOutput
from kerasoft.output_layers.classifier import Classifier
from kerasoft.output_layers.factored import FactoredOutput
from kerasoft.output_layers.ranks import cheapest_cutoffs
from kerasoft.output_layers.sampled import SampledOutput
from kerasoft.output_layers.two_level import TwoLevelOutput

__all__ = [
    "AdaptiveOutput",
    "AllClasses",
    "ChunkedOutput",
    "Classifier",
    "FactoredOutput",
    "OutputLayer",
    "SampledOutput",
    "TwoLevelOutput",
    "cheapest_cutoffs",
]
