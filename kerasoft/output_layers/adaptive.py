"""The adaptive softmax: frequent classes at full width, rare ones in clusters."""

import itertools
from typing import Any

import numpy as np
from keras import ops

from kerasoft.ops import Tensor
from kerasoft.output_layers.base import (
    OutputLayer,
    best_of,
    likeliest_of,
    rank_of,
    register,
    sample_of,
)
from kerasoft.output_layers.crossentropy import Outcome, crossentropy
from kerasoft.output_layers.loops import (
    times_transposed,
)
from kerasoft.output_layers.ranks import (
    cheapest_cutoffs,
    checked_counts,
    checked_cutoffs,
    width_of,
)
from kerasoft.rows import look_up


@register
class AdaptiveOutput(OutputLayer):
    """Adaptive softmax: classes in clusters by frequency, less width for rare ones.

    The most frequent classes are in the head (here not a `Head` layer), the others in
    clusters. Formula, for a class of the head, and for class `j` of cluster `i`:

    ```python
    head = log_softmax(features @ kernel.T + bias)
    cluster = log_softmax(features @ projection[i] @ kernel[i].T + bias[i])
    log_p = head[class]  # or
    log_p = head[head_size + i] + cluster[j]
    ```

    Most labels are in the head, so a training step computes few logits of rare classes:
    for each row, only those of its label's cluster. The rows are sorted by cluster and
    processed in blocks of fixed size, so a step compiles on every backend. The
    log-probabilities are exact, also in training, and their exponentials sum to 1.
    Training does not compute the rank of a label, so `Classifier` reports accuracies
    only in evaluation.

    Args:
        num_classes: Positive integer.
        counts: How often each class occurs in training, numbers of shape
            `(num_classes,)`; or `None` if the classes are numbered by decreasing
            frequency. The layer sorts the classes.
        cutoffs: Increasing integers: the most frequent classes up to the first cutoff
            are the head, those up to the next are a cluster, and so on. With `None`,
            `cheapest_cutoffs` chooses them from `counts`.
        div_value: Float of at least 1. Cluster `i`, counted from 0, has features of
            dimension `dim // div_value ** (i + 1)`.
        **kwargs: Keyword arguments of `OutputLayer`.

    Raises:
        ValueError: If both `counts` and `cutoffs` are `None`, one of them is not as
            described above, `div_value` is below 1, and as in `OutputLayer`.

    Reference:
        [Grave et al., 2017](https://arxiv.org/abs/1609.04309).

    Example:

    >>> counts = 1000 / np.arange(1, 101)
    >>> layer = output_layers.AdaptiveOutput(100, counts, cutoffs=[10, 40])
    >>> layer(np.zeros((3, 16)))["classes"].shape == (3, 5)
    True
    """

    def __init__(
        self,
        num_classes: int,
        counts: Any = None,
        cutoffs: Any = None,
        div_value: float = 4.0,
        **kwargs: Any,
    ):
        super().__init__(num_classes, **kwargs)
        if counts is None and cutoffs is None:
            raise ValueError(
                "Pass `counts`, how often each class occurs, or the `cutoffs` of "
                "classes that are numbered by decreasing frequency. "
                "Received: counts=None, cutoffs=None"
            )
        if num_classes < 2:
            raise ValueError(
                "Frequent and rare classes need at least 2 classes. "
                f"Received: num_classes={num_classes}"
            )
        if not div_value >= 1:
            raise ValueError(
                f"`div_value` must be at least 1. Received: div_value={div_value!r}"
            )
        self.counts = None if counts is None else checked_counts(counts, num_classes)
        # Otherwise `build` chooses them, because they depend on the dimension.
        self.cutoffs: list[int] = []
        if cutoffs is not None:
            self.cutoffs = checked_cutoffs(cutoffs, num_classes)
        self.div_value = div_value

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        if not self.cutoffs:
            self.cutoffs = cheapest_cutoffs(self.counts, self.dim, self.div_value)
        by_rank = np.arange(self.num_classes)
        if self.counts is not None:
            by_rank = np.argsort(-self.counts, kind="stable")
        self._classes = by_rank.astype("int32")
        self._ranks = np.argsort(by_rank).astype("int32")
        edges = [*self.cutoffs, self.num_classes]
        sizes = [b - a for a, b in itertools.pairwise(edges)]
        self.head_size = self.cutoffs[0]
        outputs = self.head_size + len(sizes)
        self.kernel, self.bias = self.add_dense("", outputs, self.dim)
        self.clusters = []
        for i, size in enumerate(sizes):
            width = width_of(i, self.dim, self.div_value)
            projection = self.add_weight(
                shape=(self.dim, width),
                initializer=self.another_initializer(),
                dtype="float32",
                name=f"projection_{i}",
            )
            self.clusters.append(
                (projection, *self.add_dense(f"cluster_{i}_", size, width))
            )

    def outcome(
        self, features: Tensor, labels: Tensor, weights: Tensor, training: bool
    ) -> Outcome:
        ranks = look_up(self._ranks, labels)
        cluster = ops.zeros_like(ranks)
        for cutoff in self.cutoffs:
            cluster = cluster + ops.cast(ranks >= cutoff, cluster.dtype)
        order = ops.argsort(cluster)
        parts = features, ranks, cluster, weights
        h, r, c, v = (ops.take(x, order, axis=0) for x in parts)
        options = {"chunk_bytes": self.chunk_bytes, "training": training}
        places = ops.where(c > 0, self.head_size + c - 1, r)
        kernel, bias = self.dense(self.kernel, self.bias)
        total, nll, _ = crossentropy(h, kernel, bias, places, v, **options)
        start = ops.sum(ops.cast(c < 1, "int32"))
        for i, (projection, *dense) in enumerate(self.clusters):
            count = ops.sum(ops.cast(ops.equal(c, i + 1), "int32"))
            kernel, bias = self.dense(*dense)
            found = crossentropy(
                h @ ops.convert_to_tensor(projection),
                kernel,
                bias,
                ops.clip(r - self.cutoffs[i], 0, kernel.shape[0] - 1),
                v,
                span=(start, count),
                **options,
            )
            total, nll = total + found.total, nll + found.nll
            start = start + count
        nll = ops.take(nll, ops.argsort(order), axis=0)
        rank = None if training else rank_of(self, features, labels, nll)
        return Outcome(total, nll, rank)

    def _parts(self, features, k):
        """Yields the head and each cluster, by decreasing frequency of their classes.

        Each is the first rank, features, kernel, biases, the `k` largest logits with
        their positions, and the offset from logits to log-probabilities.
        """
        kernel, bias = self.dense(self.kernel, self.bias)
        size = self.head_size
        block = self.block_size(ops.shape(features)[0])
        head = kernel[:size], bias[:size]
        best, places, own = likeliest_of(features, *head, min(k, size), block)
        logits = times_transposed(features, kernel[size:]) + bias[size:]
        normaliser = ops.logsumexp(
            ops.concatenate([own, logits], axis=-1), axis=-1, keepdims=True
        )
        yield 0, features, *head, best, places, -normaliser
        for i, (projection, *dense) in enumerate(self.clusters):
            z = features @ ops.convert_to_tensor(projection)
            kernel, bias = self.dense(*dense)
            count = min(k, kernel.shape[0])
            best, places, own = likeliest_of(z, kernel, bias, count, block)
            offset = logits[:, i : i + 1] - normaliser - own
            yield self.cutoffs[i], z, kernel, bias, best, places, offset

    def likeliest(self, features: Tensor, k: int) -> tuple[Tensor, Tensor]:
        features = ops.cast(features, "float32")
        values, places = [], []
        for start, _, _, _, best, where, offset in self._parts(features, k):
            values.append(best + offset)
            places.append(where + start)
        best, ranks = best_of(values, places, k)
        return best, look_up(self._classes, ranks)

    def log_probabilities(self, features: Tensor, classes: Tensor) -> Tensor:
        features = ops.cast(features, "float32")
        ranks = look_up(self._ranks, classes)
        found = 0.0
        for start, z, kernel, bias, _, _, offset in self._parts(features, 1):
            size = kernel.shape[0]
            local = ops.clip(ranks - start, 0, size - 1)
            logits = ops.einsum("bd,bkd->bk", z, ops.take(kernel, local, axis=0))
            logits = logits + ops.take(bias, local, axis=0) + offset
            here = ops.logical_and(ranks >= start, ranks < start + size)
            found = found + ops.where(here, logits, 0.0)
        return found

    def all_log_probabilities(self, features: Tensor) -> Tensor:
        features = ops.cast(features, "float32")
        parts = [
            times_transposed(z, kernel) + bias + offset
            for _, z, kernel, bias, _, _, offset in self._parts(features, 1)
        ]
        return ops.take(ops.concatenate(parts, axis=-1), self._ranks, axis=-1)

    def draw(self, features: Tensor, seed: Any) -> Tensor:
        block = self.block_size(ops.shape(features)[0])
        kernel, bias = self.dense(self.kernel, self.bias)
        drawn = sample_of(features, kernel, bias, seed.next(), block)
        ranks = drawn
        for i, (projection, *dense) in enumerate(self.clusters):
            z = features @ ops.convert_to_tensor(projection)
            inside = sample_of(z, *self.dense(*dense), seed.next(), block)
            here = ops.equal(drawn, self.head_size + i)
            ranks = ops.where(here, self.cutoffs[i] + inside, ranks)
        return look_up(self._classes, ranks)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "counts": None if self.counts is None else self.counts.tolist(),
            "cutoffs": list(self.cutoffs) or None,
            "div_value": self.div_value,
        }
