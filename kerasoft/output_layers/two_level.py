"""The softmax over groups of classes: first the group, then the class in it."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kerasoft.ops import LOWEST, Tensor
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
    add_rows,
    add_to_rows,
    fold,
    fold_groups,
    rows_of,
    times_transposed,
    uniform,
    with_gradients,
)

ROWS = 16  # of one group, worked off at once


@register
class TwoLevelOutput(OutputLayer):
    """Softmax over groups of classes, times a softmax over the classes of a group.

    Formula:

    ```python
    log_p(class) = (
        log_softmax(features @ group_kernel.T + group_bias)[group of class]
        + log_softmax(features @ kernel[group].T + bias[group])[class]
    )
    ```

    In training, a row computes the logits of all groups and of the classes of its
    label's group: with the square root of N groups of equal size, 2 sqrt(N) logits in
    place of N. The log-probabilities are exact and sum to 1. Training does not compute
    the rank of a label, so `Classifier` gives accuracies in evaluation alone.

    Args:
        num_classes: Positive integer.
        groups: The group of each class, integers of shape `(num_classes,)` from 0 on,
            such as CIFAR-100's 20 superclasses; or `None` for some `sqrt(num_classes)`
            groups of neighbouring classes.
        **kwargs: Keyword arguments of `OutputLayer`.

    Raises:
        ValueError: If `groups` are not as told above, or as `OutputLayer` does.

    Reference:
        [Goodman, 2001](https://arxiv.org/abs/cs/0108006).

    Example:

    >>> layer = output_layers.TwoLevelOutput(6, groups=[0, 0, 1, 1, 1, 2])
    >>> layer(np.zeros((3, 8)))["classes"].shape == (3, 5)
    True
    """

    def __init__(
        self,
        num_classes: int,
        groups: Sequence[int] | None = None,
        **kwargs: Any,
    ):
        super().__init__(num_classes, **kwargs)
        if groups is None:
            size = round(num_classes**0.5)
            groups = np.arange(num_classes) // size
        self.groups = np.asarray(groups)
        whole = np.issubdtype(self.groups.dtype, np.integer)
        if not whole or self.groups.shape != (num_classes,):
            raise ValueError(
                f"`groups` must be {num_classes} integers, one for each class. "
                f"Received: {self.groups.dtype} of shape {self.groups.shape}"
            )
        empty = np.setdiff1d(np.arange(self.groups.max() + 1), self.groups)
        if self.groups.min() < 0 or empty.size:
            found = self.groups.min() if self.groups.min() < 0 else empty[0]
            raise ValueError(
                "`groups` must be numbered from 0 on, each with a class. "
                f"Received: {'a group' if found < 0 else 'no class in group'} {found}"
            )
        # The weights stand group after group; a class's place there is its slot.
        by_slot = np.argsort(self.groups, kind="stable")
        self._classes = by_slot.astype("int32")
        self._slots = np.argsort(by_slot).astype("int32")
        sizes = np.bincount(self.groups)
        self._firsts = (np.cumsum(sizes) - sizes).astype("int32")
        self._sizes = sizes.astype("int32")

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self.group_kernel, self.group_bias = self.add_dense(
            "group_", len(self._sizes), self.dim
        )
        self.kernel, self.bias = self.add_dense("", self.num_classes, self.dim)

    def _look_up(self, table, indices):
        return ops.take(ops.convert_to_tensor(table), indices, axis=0)

    def _within(self, kernel, bias, group):
        """The first slot, kernel and biases of a group, filled up with masked slots."""
        most = int(self._sizes.max())
        first = self._look_up(self._firsts, group)
        start = ops.minimum(first, self.num_classes - most)
        slots = start + ops.arange(most)
        size = self._look_up(self._sizes, group)
        inside = ops.logical_and(slots >= first, slots < first + size)
        rows = rows_of(kernel, start, most)
        return start, rows, ops.where(inside, rows_of(bias, start, most), -np.inf)

    def _nll(self, features, labels, weights, training):
        """The weighted sum of the rows' losses, and the losses."""
        labels = ops.cast(labels, "int32")
        groups = self._look_up(self.groups.astype("int32"), labels)
        total, of_group, _ = crossentropy(
            features,
            *self.dense(self.group_kernel, self.group_bias),
            groups,
            weights,
            chunk_bytes=self.chunk_bytes,
            training=training,
        )
        order = ops.argsort(groups)
        h, v, g, slots = (
            ops.take(x, order, axis=0)
            for x in (features, weights, groups, self._look_up(self._slots, labels))
        )

        def compute(h, kernel, bias, v, gradients):
            def step(i, carry, group, counts, h, v, slots):
                start, rows, biases = self._within(kernel, bias, group)
                logits = times_transposed(h, rows) + biases
                local = ops.clip(slots - start, 0, rows.shape[0] - 1)[:, None]
                largest = ops.max(logits, axis=-1, keepdims=True)
                weighted = ops.exp(logits - largest)
                total = ops.sum(weighted, axis=-1, keepdims=True)
                truth = ops.take_along_axis(logits, local, axis=-1)
                nll = ops.squeeze(largest + ops.log(total) - truth, -1)
                if not gradients:
                    return carry, (nll,)
                v = ops.where(counts, v, 0.0)[:, None]
                scale = v / total
                slope = scale * (weighted @ rows)
                slope = slope - v * ops.take(rows, ops.squeeze(local, -1), axis=0)
                by_kernel, by_bias = carry
                product = ops.transpose(weighted) @ ops.concatenate(
                    [h * scale, scale], axis=-1
                )
                by_kernel = add_to_rows(by_kernel, start, product[:, :-1])
                by_bias = add_to_rows(by_bias, start, product[:, -1:])
                return (by_kernel, by_bias), (nll, slope)

            arrays = h, v, slots
            if not gradients:
                _, (nll,) = fold_groups(step, arrays, g, ROWS, (), ((),))
                return ops.sum(nll * v), (nll,), ()
            sums = ops.zeros_like(kernel), ops.zeros((self.num_classes, 1), "float32")
            (by_kernel, by_bias), (nll, slope) = fold_groups(
                step, arrays, g, ROWS, sums, ((), (self.dim,))
            )
            by_kernel = add_rows(by_kernel, slots, -v[:, None] * h)
            by_bias = ops.squeeze(add_rows(by_bias, slots, -v[:, None]), -1)
            return ops.sum(nll * v), (nll,), (slope, by_kernel, by_bias, nll)

        kernel, bias = self.dense(self.kernel, self.bias)
        within, (nll,) = with_gradients(compute, (h, kernel, bias, v), training)
        return total + within, of_group + ops.take(nll, ops.argsort(order), axis=0)

    def outcome(
        self, features: Tensor, labels: Tensor, weights: Tensor, training: bool
    ) -> Outcome:
        total, nll = self._nll(features, labels, weights, training)
        rank = None if training else rank_of(self, features, labels, nll)
        return Outcome(total, nll, rank)

    def likeliest(self, features: Tensor, k: int) -> tuple[Tensor, Tensor]:
        features = ops.cast(features, "float32")
        kernel, bias = self.dense(self.group_kernel, self.group_bias)
        block = self.block_size(ops.shape(features)[0])
        _, _, normaliser = likeliest_of(features, kernel, bias, 1, block)
        by_class = self.dense(self.kernel, self.bias)
        most = int(self._sizes.max())
        first = features[:, :1] * 0.0
        carry = (
            ops.repeat(first + LOWEST, k, axis=1),
            ops.cast(ops.repeat(first, k, axis=1), "int32"),
        )

        def step(i, carry):
            start, rows, biases = self._within(*by_class, i)
            logits = times_transposed(features, rows) + biases
            of_group = times_transposed(features, rows_of(kernel, i, 1)) + bias[i]
            offset = of_group - normaliser
            offset = offset - ops.logsumexp(logits, axis=-1, keepdims=True)
            best, where = ops.top_k(logits, min(k, most))
            places = start + ops.cast(where, "int32")
            return best_of((carry[0], best + offset), (carry[1], places), k)

        best, slots = fold(step, len(self._sizes), carry)
        return best, self._look_up(self._classes, slots)

    def log_probabilities(self, features: Tensor, classes: Tensor) -> Tensor:
        features = ops.cast(features, "float32")
        classes = ops.convert_to_tensor(classes)
        ones = ops.ones_like(features[:, 0])
        columns = [
            -self._nll(features, classes[:, j], ones, False)[1]
            for j in range(classes.shape[1])
        ]
        return ops.stack(columns, axis=-1)

    def draw(self, features: Tensor, seed: keras.random.SeedGenerator) -> Tensor:
        block = self.block_size(ops.shape(features)[0])
        dense = self.dense(self.group_kernel, self.group_bias)
        groups = sample_of(features, *dense, seed.next(), block)
        order = ops.argsort(groups)
        by_class = self.dense(self.kernel, self.bias)
        state = seed.next()

        def step(i, carry, group, counts, h):
            start, rows, biases = self._within(*by_class, group)
            logits = times_transposed(h, rows) + biases
            largest = ops.max(logits, axis=-1, keepdims=True)
            below = ops.cumsum(ops.exp(logits - largest), axis=-1)
            u = uniform(state, i, (ROWS, 1))
            drawn = ops.sum(ops.cast(below <= u * below[:, -1:], "int32"), axis=-1)
            return carry, (ops.cast(start + drawn, "float32"),)

        _, (slots,) = fold_groups(
            step,
            (ops.take(features, order, axis=0),),
            ops.take(groups, order, axis=0),
            ROWS,
            (),
            ((),),
        )
        slots = ops.cast(ops.take(slots, ops.argsort(order), axis=0), "int32")
        return self._look_up(self._classes, slots)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "groups": self.groups.tolist(),
        }
