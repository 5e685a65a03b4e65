"""The sampled softmax: trained on some classes, evaluated on all of them."""

from typing import Any

import numpy as np
from keras import ops, random

from kerasoft.ops import Tensor
from kerasoft.output_layers.base import register
from kerasoft.output_layers.chunked import ChunkedOutput
from kerasoft.output_layers.crossentropy import Outcome
from kerasoft.output_layers.loops import times_transposed
from kerasoft.output_layers.ranks import checked_counts
from kerasoft.seed_generator import SeedGenerator

DRAWS = 2**30  # in how many equal parts the classes share the numbers drawn


@register
class SampledOutput(ChunkedOutput):
    """Softmax that is trained on the label and on classes drawn at random.

    Formula, where `q` is the probability with which a class is drawn:

    ```python
    adjusted = logits - log(num_sampled * q)
    loss = logsumexp(adjusted of the label and the drawn classes) - adjusted[label]
    ```

    Dividing each class by how often it is expected among those drawn makes up for their
    choice: with more and more draws the loss becomes that of the whole softmax. All
    rows of a batch meet the same classes, drawn anew in each step, with replacement. A
    drawn class that is a row's own label is left out for that row.

    The loss of evaluation is that of all classes, as are predictions and samples; they
    are worked off in chunks, as in `ChunkedOutput`. Training does not compute the rank
    of a label, so `Classifier` gives accuracies in evaluation alone, and the `nll` of
    training is that among the classes drawn.

    The gradient of the weights touches the rows of the classes drawn. TensorFlow keeps
    it so, and Keras's `SGD` without momentum and `Adagrad` there update these rows
    alone; other optimisers, JAX and PyTorch make it as large as the weights.

    Args:
        num_classes: Positive integer.
        num_sampled: Positive integer, how many classes are drawn in a step.
        counts: With which probabilities: `"log_uniform"`, by
            `log((rank + 2) / (rank + 1))`, for classes that are numbered by falling
            frequency as in a natural language; `"uniform"`; or how often each class
            occurs, numbers of shape `(num_classes,)`.
        seed: Integer, or `None` for one drawn at random.
        **kwargs: Keyword arguments of `OutputLayer`.

    Raises:
        ValueError: If `num_sampled` is not positive, `counts` is not as told above, or
            as `OutputLayer` does.

    Reference:
        [Bengio and Senécal, 2008](https://doi.org/10.1109/TNN.2007.912312), and for the
        form of the correction [Yi et al., 2019](https://doi.org/10.1145/3298689.3346996).

    Example:

    >>> layer = output_layers.SampledOutput(1000, num_sampled=50, seed=0)
    >>> layer(np.zeros((3, 8)))["classes"].shape == (3, 5)
    True
    """

    def __init__(
        self,
        num_classes: int,
        num_sampled: int,
        counts: Any = "log_uniform",
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(num_classes, **kwargs)
        if not isinstance(num_sampled, int) or num_sampled < 1:
            raise ValueError(
                "`num_sampled` must be a positive integer. "
                f"Received: num_sampled={num_sampled!r}"
            )
        self.num_sampled = num_sampled
        if isinstance(counts, str):
            self.counts = counts
        else:
            self.counts = checked_counts(counts, num_classes)
        self._ends = _ends(self.counts, num_classes)
        self.seed = seed
        self.seed_generator = SeedGenerator(seed)

    def outcome(
        self, features: Tensor, labels: Tensor, weights: Tensor, training: bool
    ) -> Outcome:
        if not training:
            return super().outcome(features, labels, weights, training)
        # One look-up, so that the gradient of the weights is one set of rows.
        classes = ops.concatenate([self.drawn(), ops.cast(labels, "int32")])
        nll = sampled_crossentropy(
            features,
            ops.take(self.kernel, classes, axis=0),
            None if self.bias is None else ops.take(self.bias, classes, axis=0),
            classes,
            self.log_expected(classes),
            self.num_sampled,
        )
        return Outcome(ops.sum(nll * weights), ops.stop_gradient(nll), None)

    def drawn(self) -> Tensor:
        """Draws classes for a step, of shape `(num_sampled,)`, with replacement."""
        ends = ops.convert_to_tensor(self._ends)
        numbers = random.randint(
            (self.num_sampled,), 0, int(self._ends[-1]), "int32", self.seed_generator
        )
        return ops.cast(ops.searchsorted(ends, numbers, side="right"), "int32")

    def log_expected(self, classes: Tensor) -> Tensor:
        """The logarithm of how often classes are expected among those drawn."""
        ends = ops.convert_to_tensor(self._ends)
        before = ops.take(ends, ops.maximum(classes - 1, 0), axis=0)
        before = ops.where(classes > 0, before, 0)
        shares = ops.cast(ops.take(ends, classes, axis=0) - before, "float32")
        return ops.log(shares * (self.num_sampled / int(self._ends[-1])))

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        for name in ("head", "label_smoothing", "allowed"):
            del config[name]
        counts = self.counts if isinstance(self.counts, str) else self.counts.tolist()
        own = {"num_sampled": self.num_sampled, "counts": counts, "seed": self.seed}
        return {**config, **own}


def sampled_crossentropy(
    features: Tensor,
    kernel: Tensor,
    bias: Tensor | None,
    classes: Tensor,
    log_expected: Tensor,
    num_sampled: int,
) -> Tensor:
    """The cross-entropy of each row among its label and the classes drawn.

    Args:
        features: Float tensor of shape `(batch, dim)`.
        kernel: Float tensor of shape `(num_sampled + batch, dim)`, the weights of the
            classes drawn, then of each row's label.
        bias: Float tensor of shape `(num_sampled + batch,)`, or `None`.
        classes: Integer tensor of shape `(num_sampled + batch,)`.
        log_expected: Float tensor of shape `(num_sampled + batch,)`, the logarithm of
            how often each of them is expected to be drawn.
        num_sampled: Integer.

    Returns:
        Float tensor of shape `(batch,)`.
    """
    offset = -log_expected if bias is None else bias - log_expected
    n = num_sampled
    drawn = times_transposed(features, kernel[:n]) + offset[:n]
    own = ops.equal(classes[n:, None], classes[:n])
    drawn = ops.where(own, -np.inf, drawn)
    truth = ops.sum(features * kernel[n:], axis=-1) + offset[n:]
    largest = ops.stop_gradient(ops.maximum(ops.max(drawn, axis=-1), truth))
    total = ops.sum(ops.exp(drawn - largest[:, None]), axis=-1)
    total = total + ops.exp(truth - largest)
    return ops.log(total) + largest - truth


def _ends(counts, num_classes):
    """Where the share of each class of the numbers below `DRAWS` ends, in int32."""
    if isinstance(counts, str):
        ranks = np.arange(num_classes)
        known = {
            "log_uniform": np.log1p(1 / (ranks + 1)),
            "uniform": np.ones(num_classes),
        }
        if counts not in known:
            raise ValueError(
                "`counts` must be 'log_uniform', 'uniform', or a number for each "
                f"class. Received: counts={counts!r}"
            )
        counts = known[counts]
    shares = counts / counts.sum() * (DRAWS - num_classes)
    return np.cumsum(np.floor(shares).astype("int64") + 1).astype("int32")
