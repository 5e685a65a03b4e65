"""The sampled softmax: trained on some classes, evaluated on all of them."""

from typing import Any

import numpy as np
from keras import ops, random

from kerasoft.ops import Tensor
from kerasoft.ops.common import largest_of
from kerasoft.output_layers.base import register
from kerasoft.output_layers.chunked import ChunkedOutput
from kerasoft.output_layers.crossentropy import Outcome
from kerasoft.output_layers.loops import (
    times_transposed,
    with_gradients,
)
from kerasoft.output_layers.ranks import checked_counts
from kerasoft.rows import look_up
from kerasoft.seed_generator import SeedGenerator

NUMBERS = 2**30  # each class owns a range of these numbers, and some are drawn
OF_CHUNKED = ("head", "label_smoothing", "allowed")  # arguments of `ChunkedOutput` only


@register
class SampledOutput(ChunkedOutput):
    """Softmax that is trained on the label and on classes drawn at random.

    Formula, where `expected` is the expected number of times that a class is drawn:

    ```python
    adjusted = logits - log(expected)
    loss = logsumexp(adjusted of the label and the drawn classes) - adjusted[label]
    ```

    Subtracting `log(expected)` corrects for the sampling. The more classes are drawn,
    the closer the loss is to that of the full softmax; if all are drawn, it is the
    same. `expected` is proportional to `counts`, and at most 1: each step draws one
    class from each of `num_sampled` equal shares of the counts, so few classes are
    drawn twice, and the most frequent ones are always drawn once. All rows of a batch
    use the same classes, and each step draws new ones. If a drawn class is the label of
    a row, it is left out for that row.

    Evaluation, predictions and samples use all classes, in chunks as in
    `ChunkedOutput`. Training does not compute the rank of a label, so `Classifier`
    reports accuracies only in evaluation, and the `nll` in training is that among the
    drawn classes. A step holds `batch * num_sampled` logits.

    Only the drawn rows of the weights have a gradient. On TensorFlow, this gradient is
    sparse, and Keras's `SGD` without momentum and `Adagrad` update only these rows.
    With other optimisers, and on JAX and PyTorch, the gradient is as large as the
    weights.

    Args:
        num_classes: Positive integer.
        num_sampled: Positive integer, how many classes are drawn in a step, at most
            `num_classes`.
        counts: The sampling weights: `"log_uniform"` for
            `log((rank + 2) / (rank + 1))`, which suits classes that are numbered by
            decreasing frequency, such as words; `"uniform"`; or how often each class
            occurs, of shape `(num_classes,)`.
        seed: Integer, or `None` for one drawn at random.
        **kwargs: Keyword arguments of `OutputLayer`.

    Raises:
        ValueError: If `num_sampled` is not in `1..num_classes`, `counts` are not as
            described above, and as in `OutputLayer`.

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
        for name in OF_CHUNKED:
            if name in kwargs:
                raise ValueError(
                    "A SampledOutput is trained as a softmax over sampled classes, so "
                    f"it has no argument `{name}`; ChunkedOutput does. "
                    f"Received: {name}={kwargs[name]!r}"
                )
        super().__init__(num_classes, **kwargs)
        if not isinstance(num_sampled, int) or not 1 <= num_sampled <= num_classes:
            raise ValueError(
                f"`num_sampled` must be an integer in 1..{num_classes}. "
                f"Received: num_sampled={num_sampled!r}"
            )
        self.num_sampled = num_sampled
        if isinstance(counts, str):
            self.counts = counts
        else:
            self.counts = checked_counts(counts, num_classes)
        self._classes, self._ends = _shares(self.counts, num_classes, num_sampled)
        self._ranks = np.argsort(self._classes).astype("int32")
        self.seed = seed
        self.seed_generator = SeedGenerator(seed)

    def outcome(
        self, features: Tensor, labels: Tensor, weights: Tensor, training: bool
    ) -> Outcome:
        if not training:
            return super().outcome(features, labels, weights, training)
        drawn, labels = self.drawn(), ops.cast(labels, "int32")
        # One look-up, so that the gradient of the weights is one sparse tensor.
        classes = ops.concatenate([drawn, labels])
        offset = -self.log_expected(classes)
        if self.bias is not None:
            offset = offset + ops.take(self.bias, classes, axis=0)
        kernel = ops.take(self.kernel, classes, axis=0)
        own = ops.equal(labels[:, None], drawn)
        return sampled_crossentropy(features, kernel, offset, own, weights, training)

    def drawn(self) -> Tensor:
        """Draws classes for a step, of shape `(num_sampled,)`."""
        each = NUMBERS // self.num_sampled
        shape = (self.num_sampled,)
        numbers = random.randint(shape, 0, each, "int32", self.seed_generator)
        numbers = numbers + ops.arange(self.num_sampled, dtype="int32") * each
        ends = ops.convert_to_tensor(self._ends)
        ranks = ops.searchsorted(ends, numbers, side="right")
        return look_up(self._classes, ranks)

    def log_expected(self, classes: Tensor) -> Tensor:
        """The logarithm of the expected number of times that classes are drawn."""
        ranks = look_up(self._ranks, classes)
        ends = ops.convert_to_tensor(self._ends)
        before = ops.take(ends, ops.maximum(ranks - 1, 0), axis=0)
        before = ops.where(ranks > 0, before, 0)
        shares = ops.cast(ops.take(ends, ranks, axis=0) - before, "float32")
        return ops.log(shares / (NUMBERS // self.num_sampled))

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        for name in OF_CHUNKED:
            del config[name]
        counts = self.counts if isinstance(self.counts, str) else self.counts.tolist()
        own = {"num_sampled": self.num_sampled, "counts": counts, "seed": self.seed}
        return {**config, **own}


def sampled_crossentropy(
    features: Tensor,
    kernel: Tensor,
    offset: Tensor,
    own: Tensor,
    weights: Tensor,
    training: bool = True,
) -> Outcome:
    """The weighted sum of cross-entropies over each row's label and the drawn classes.

    Args:
        features: Float tensor of shape `(batch, dim)`.
        kernel: Float tensor of shape `(drawn + batch, dim)`, the weights of the drawn
            classes, then of each row's label.
        offset: Float tensor of shape `(drawn + batch,)`, the bias of each of them minus
            the logarithm of its expected number of draws.
        own: Boolean tensor of shape `(batch, drawn)`, where a row's label is drawn.
        weights: Float tensor of shape `(batch,)`.
        training: Whether gradients will be needed.
    """
    n = ops.shape(own)[1]

    def compute(h, kernel, offset, v, gradients):
        drawn = times_transposed(h, kernel[:n]) + offset[:n]
        drawn = ops.where(own, -np.inf, drawn)
        truth = ops.sum(h * kernel[n:], axis=-1) + offset[n:]
        largest = ops.maximum(ops.squeeze(largest_of(drawn, -1), -1), truth)
        weighted = ops.exp(drawn - largest[:, None])
        of_label = ops.exp(truth - largest)
        total = ops.sum(weighted, axis=-1) + of_label
        nll = ops.log(total) + largest - truth
        slopes = ()
        if gradients:
            scale = (v / total)[:, None]
            by_truth = (v * (of_label / total - 1))[:, None]
            by_label = by_truth * h, ops.squeeze(by_truth, -1)
            turned = ops.transpose(weighted)
            slopes = (
                scale * (weighted @ kernel[:n]) + by_truth * kernel[n:],
                ops.concatenate([turned @ (scale * h), by_label[0]]),
                ops.concatenate([ops.squeeze(turned @ scale, -1), by_label[1]]),
                nll,
            )
        return ops.sum(nll * v), (nll,), slopes

    arguments = features, kernel, offset, weights
    total, (nll,) = with_gradients(compute, arguments, training)
    return Outcome(total, nll, None)


def _shares(
    counts: Any, num_classes: int, num_sampled: int
) -> tuple[np.ndarray, np.ndarray]:
    """The classes by decreasing counts, and the end of each class's range of numbers.

    There are `NUMBERS // num_sampled` numbers for each draw. No class has more, so the
    most frequent classes have exactly as many and are always drawn.
    """
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
    classes = np.argsort(-counts, kind="stable")
    most = NUMBERS // num_sampled
    # At least 2 numbers, so that rounding leaves every class one.
    shares = np.maximum(counts[classes] / counts.sum() * most * num_sampled, 2)
    full = 0
    while True:
        rest = (num_sampled - full) * most
        shares[full:] *= rest / max(shares[full:].sum(), 1)
        above = int(np.searchsorted(-shares[full:], -most))
        if not above:
            break
        shares[full : full + above] = most
        full += above
    ends = np.cumsum(shares).round()
    return classes.astype("int32"), ends.astype("int32")
