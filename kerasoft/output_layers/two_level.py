"""A two-level softmax: first over groups, then over the classes of a group."""

from typing import Any

import numpy as np
from keras import ops

from kerasoft.ops import Tensor
from kerasoft.ops.common import largest_of
from kerasoft.output_layers.base import (
    OutputLayer,
    best_of,
    likeliest_of,
    no_best,
    rank_of,
    register,
    sample_of,
)
from kerasoft.output_layers.crossentropy import Outcome, crossentropy
from kerasoft.output_layers.loops import (
    fold,
    times_transposed,
    uniform,
)
from kerasoft.rows import look_up

ROWS = 16  # of the same group, in a block


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

    Training computes, for each row, the logits of all groups and of the classes in its
    label's group: with sqrt(N) groups of equal size, 2 sqrt(N) logits instead of N. The
    log-probabilities are exact, and their exponentials sum to 1. Training does not
    compute the rank of a label, so `Classifier` reports accuracies only in evaluation.
    Memory holds a copy of the weights of each group in the batch, padded to the size of
    the largest group, so one very large group increases the cost of all groups.

    Args:
        num_classes: Positive integer.
        groups: The group of each class, integers from 0 of shape `(num_classes,)`, such
            as CIFAR-100's 20 superclasses; or `None` for about `sqrt(num_classes)`
            groups of consecutive classes.
        **kwargs: Keyword arguments of `OutputLayer`.

    Raises:
        ValueError: If `groups` are not as described above, and as in `OutputLayer`.

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
        groups: Any = None,
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
        # The weights are sorted by group; the slot of a class is its position there.
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

    def _of_groups(self, kernel, bias, groups):
        """The slots of some groups, their kernels, and biases.

        Every group is padded to the size of the largest one, with biases of -inf.
        """
        place = ops.arange(int(self._sizes.max()))
        slots = look_up(self._firsts, groups)[..., None] + place
        there = place < look_up(self._sizes, groups)[..., None]
        slots = ops.minimum(slots, self.num_classes - 1)
        biases = 0.0 if bias is None else ops.take(bias, slots, axis=0)
        return slots, ops.take(kernel, slots, axis=0), ops.where(there, biases, -np.inf)

    def _blocks(self, features, groups):
        """Sorts rows into blocks of `ROWS` rows of the same group.

        Returns:
            The features by block, of shape `(blocks, ROWS, dim)`; the group of each
            block; and the position of each row in the flattened blocks.
        """
        batch = ops.shape(features)[0]
        groups = ops.cast(groups, "int32")
        order = ops.cast(ops.argsort(groups), "int32")
        rising = ops.take(groups, order, axis=0)
        rows = ops.arange(batch, dtype="int32")
        first = ops.cast(ops.searchsorted(rising, rising, side="left"), "int32")
        within = (rows - first) % ROWS
        block = ops.cumsum(ops.cast(ops.equal(within, 0), "int32")) - 1
        # The maximum number: one incomplete block for each group, and the full ones.
        incomplete = len(self._sizes)
        incomplete = min(batch, incomplete) if isinstance(batch, int) else incomplete
        count = incomplete + batch // ROWS
        place = block * ROWS + within
        found = ops.zeros((count * ROWS,), "int32")
        found = ops.scatter_update(found, place[:, None], order)
        of_block = ops.zeros((count,), "int32")
        of_block = ops.scatter_update(of_block, block[:, None], rising)
        shape = (count, ROWS, self.dim)
        by_block = ops.reshape(ops.take(features, found, axis=0), shape)
        return by_block, of_block, ops.take(place, ops.argsort(order), axis=0)

    def _nll(self, features, labels, weights, training):
        """The weighted sum of the rows' losses, and the losses."""
        labels = ops.cast(labels, "int32")
        groups = look_up(self.groups.astype("int32"), labels)
        total, nll, _ = crossentropy(
            features,
            *self.dense(self.group_kernel, self.group_bias),
            groups,
            weights,
            chunk_bytes=self.chunk_bytes,
            training=training,
        )
        h, of_block, place = self._blocks(features, groups)
        _, kernel, bias = self._of_groups(self.kernel, self.bias, of_block)
        logits = h @ ops.transpose(kernel, (0, 2, 1)) + bias[:, None]
        most = logits.shape[-1]
        of_row = ops.take(ops.reshape(logits, (-1, most)), place, axis=0)
        own = look_up(self._slots, labels) - look_up(self._firsts, groups)
        truth = ops.take_along_axis(of_row, own[:, None], axis=-1)
        within = ops.logsumexp(of_row, axis=-1) - ops.squeeze(truth, -1)
        return total + ops.sum(within * weights), nll + ops.stop_gradient(within)

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
        count, most = len(self._sizes), int(self._sizes.max())
        at_once = min(count, max(1, block // most))

        def step(i, carry):
            groups = i * at_once + ops.arange(at_once)
            found = ops.minimum(groups, count - 1)
            slots, rows, biases = self._of_groups(*by_class, found)
            rows = ops.reshape(rows, (-1, self.dim))
            logits = ops.reshape(times_transposed(features, rows), (-1, *slots.shape))
            logits = logits + biases
            own = ops.take(kernel, found, axis=0)
            offset = times_transposed(features, own) + ops.take(bias, found, axis=0)
            offset = ops.where(groups < count, offset - normaliser, -np.inf)
            offset = offset[..., None] - ops.logsumexp(logits, axis=-1, keepdims=True)
            log_p = ops.reshape(logits + offset, (-1, at_once * most))
            best, where = ops.top_k(log_p, min(k, at_once * most))
            places = ops.take(ops.reshape(slots, (-1,)), where, axis=0)
            return best_of((carry[0], best), (carry[1], places), k)

        best, slots = fold(step, -(-count // at_once), no_best(features, k))
        return best, look_up(self._classes, slots)

    def log_probabilities(self, features: Tensor, classes: Tensor) -> Tensor:
        features = ops.cast(features, "float32")
        classes = ops.convert_to_tensor(classes)
        ones = ops.ones_like(features[:, 0])
        columns = [
            -self._nll(features, classes[:, j], ones, False)[1]
            for j in range(classes.shape[1])
        ]
        return ops.stack(columns, axis=-1)

    def all_log_probabilities(self, features: Tensor) -> Tensor:
        features = ops.cast(features, "float32")
        kernel, bias = self.dense(self.kernel, self.bias)
        logits = times_transposed(features, kernel) + bias
        group_kernel, group_bias = self.dense(self.group_kernel, self.group_bias)
        of_groups = times_transposed(features, group_kernel) + group_bias
        of_groups = ops.log_softmax(of_groups, axis=-1)
        # The classes of a group stand side by side.
        parts = [
            ops.log_softmax(logits[:, first : first + size], axis=-1)
            + of_groups[:, group : group + 1]
            for group, (first, size) in enumerate(
                zip(self._firsts.tolist(), self._sizes.tolist(), strict=True)
            )
        ]
        return ops.take(ops.concatenate(parts, axis=-1), self._slots, axis=-1)

    def draw(self, features: Tensor, seed: Any) -> Tensor:
        block = self.block_size(ops.shape(features)[0])
        dense = self.dense(self.group_kernel, self.group_bias)
        groups = sample_of(features, *dense, seed.next(), block)
        h, of_block, place = self._blocks(features, groups)
        slots, kernel, bias = self._of_groups(self.kernel, self.bias, of_block)
        logits = h @ ops.transpose(kernel, (0, 2, 1)) + bias[:, None]
        largest = largest_of(logits, -1)
        below = ops.cumsum(ops.exp(logits - largest), axis=-1)
        u = uniform(seed.next(), 0, (*ops.shape(below)[:2], 1))
        drawn = ops.sum(ops.cast(below <= u * below[..., -1:], "int32"), axis=-1)
        slots = ops.reshape(ops.take_along_axis(slots, drawn, axis=-1), (-1,))
        return look_up(self._classes, ops.take(slots, place, axis=0))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "groups": self.groups.tolist(),
        }
