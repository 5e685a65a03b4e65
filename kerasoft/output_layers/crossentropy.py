"""Exact cross-entropy over many classes, without the logits of a whole batch.

One pass over each chunk of rows computes logits, log-sum-exp, loss and gradients. With
the weights `W`, a row of features `h`, its label `y` and its weight `v`, the loss
`v (logsumexp(W h + b) - (W h + b)_y)` has the gradient `v (softmax - one_hot)` with
respect to the logits. Products with the softmax are computed from `exp(logits - max)`,
and the results, which are small matrices, are then divided by its sum.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from keras import ops

from kerasoft.ops import Tensor
from kerasoft.output_layers.loops import (
    add_product,
    fold_rows,
    times_transposed,
    with_gradients,
)
from kerasoft.rows import add_rows

BLOCKS = 4  # of classes, in which a chunk is processed
ROWS = 32  # of a chunk, if only a span of the rows counts


class Outcome(NamedTuple):
    """What an output layer computes for features and labels.

    Attributes:
        total: Scalar, the weighted sum of the rows' losses, with its gradients.
        nll: Minus the log-probability of each row's label, without smoothing; or `None`
            where there are no probabilities.
        rank: How many other classes are at least as likely as each row's label, where
            5 can mean 5 or more; or `None` if this is not computed.
    """

    total: Tensor
    nll: Any
    rank: Any


def crossentropy(
    features: Tensor,
    kernel: Tensor,
    bias: Tensor,
    labels: Tensor,
    weights: Tensor,
    label_smoothing: float = 0.0,
    allowed: Any = None,
    noise: Callable[[Any, tuple], Tensor] | None = None,
    chunk_bytes: int = 2**28,
    training: bool = True,
    span: tuple[Any, Any] | None = None,
) -> Outcome:
    """The weighted sum of softmax cross-entropies, computed in chunks of rows.

    Args:
        features: Float tensor of shape `(batch, dim)`.
        kernel: Float tensor of shape `(classes, dim)`.
        bias: Float tensor of shape `(classes,)`.
        labels: Integer tensor of shape `(batch,)`, in `0..classes-1`.
        weights: Float tensor of shape `(batch,)`.
        label_smoothing: Float in [0, 1), the share of each target that is distributed
            evenly over the allowed classes.
        allowed: Boolean array of shape `(classes,)`, or `None` if all are allowed.
        noise: A function of the number of a chunk and block, and of a shape, that
            returns what is added to the logits. It must be deterministic.
        chunk_bytes: The size in bytes of the logits of a chunk.
        training: Whether gradients will be needed.
        span: The first row that counts and the number of rows that count, which may be
            scalar tensors; or `None` for all rows. The loss of other rows is 0.
    """
    classes = kernel.shape[0]
    count = BLOCKS if span is None else 1
    edges = [classes * k // count for k in range(count + 1)]
    blocks = [(a, b) for a, b in itertools.pairwise(edges) if a < b]
    batch = ops.shape(features)[0]
    rows = rows_of_a_chunk(batch, classes, chunk_bytes)
    counted = _counted(batch, span)
    if span is not None:
        rows = rows_of_a_chunk(ROWS, classes, chunk_bytes)
        weights = counted(weights)
    share = label_smoothing
    mean: Any = None
    if allowed is not None:
        allowed = ops.convert_to_tensor(allowed, "bool")
        bias = ops.where(allowed, bias, -math.inf)
        mean = ops.cast(allowed, "float32")
        mean = mean / ops.sum(mean)

    def compute(features, kernel, bias, weights, gradients):
        # The mean of the classes' weights, for label smoothing.
        centre: Any = 0.0
        centre_bias: Any = 0.0
        if share and mean is None:
            centre, centre_bias = ops.mean(kernel, axis=0), ops.mean(bias)
        elif share:
            centre = ops.squeeze(mean[None] @ kernel, 0)
            centre_bias = ops.sum(ops.where(allowed, bias, 0.0) * mean)

        def step(i, carry, h, v, y):
            logits = []
            for k, (a, b) in enumerate(blocks):
                x = times_transposed(h, kernel[a:b]) + bias[a:b]
                if noise is not None:
                    x = x + noise(i * len(blocks) + k, (rows, b - a))
                logits.append(x)
            largest = _reduced(
                ops.maximum, [ops.max(x, axis=-1, keepdims=True) for x in logits]
            )
            largest = ops.where(ops.equal(largest, -math.inf), 0.0, largest)
            truth = _at(logits, blocks, y)
            # Minus 1, because the true class is counted too. Not `x >= truth`, which
            # would put a NaN first.
            rank = _total([_count(ops.logical_not(x < truth)) for x in logits]) - 1
            weighted = [ops.exp(x - largest) for x in logits]
            total = _total([ops.sum(e, axis=-1, keepdims=True) for e in weighted])
            nll = largest + ops.log(total) - truth
            loss = nll
            if share:
                if noise is None:
                    evenly = h @ centre[:, None] + centre_bias
                else:
                    shown = [ops.where(ops.equal(x, -math.inf), 0.0, x) for x in logits]
                    evenly = _total([ops.sum(x, axis=-1, keepdims=True) for x in shown])
                    evenly = evenly / (classes if mean is None else ops.sum(allowed))
                loss = (1 - share) * nll + share * (largest + ops.log(total) - evenly)
            outputs = (ops.squeeze(loss, -1), ops.squeeze(nll, -1), rank)
            if not gradients:
                return carry, outputs
            scale = v[:, None] / total
            pairs = list(zip(weighted, blocks, strict=True))
            slope = scale * _total([e @ kernel[a:b] for e, (a, b) in pairs])
            slope = slope - v[:, None] * (
                (1 - share) * ops.take(kernel, y, axis=0) + share * centre
            )
            scaled = h * scale
            kernels = [
                add_product(sum_, e, scaled)
                for sum_, e in zip(carry[0], weighted, strict=True)
            ]
            biases = [
                add_product(sum_, e, scale)
                for sum_, e in zip(carry[1], weighted, strict=True)
            ]
            return (tuple(kernels), tuple(biases)), (*outputs, slope)

        arrays = features, weights, labels
        if not gradients:
            _, (loss, nll, rank) = fold_rows(step, arrays, rows, (), ((),) * 3, span)
            return ops.sum(counted(loss) * weights), (counted(nll), rank), ()
        dim = features.shape[1]
        sums = (
            tuple(ops.zeros((b - a, dim), "float32") for a, b in blocks),
            tuple(ops.zeros((b - a, 1), "float32") for a, b in blocks),
        )
        (kernels, biases), (loss, nll, rank, slope) = fold_rows(
            step, arrays, rows, sums, ((), (), (), (dim,)), span
        )
        truth = (1 - share) * weights
        by_kernel = add_rows(
            ops.concatenate(kernels), labels, -truth[:, None] * features
        )
        by_bias = add_rows(ops.concatenate(biases), labels, -truth[:, None])
        by_bias = ops.squeeze(by_bias, -1)
        if share:
            spread = ops.sum(weights[:, None] * features, axis=0) * share
            weight = share * ops.sum(weights)
            each = ops.full((classes,), 1 / classes) if mean is None else mean
            by_kernel = by_kernel - each[:, None] * spread
            by_bias = by_bias - each * weight
        slopes = counted(slope), by_kernel, by_bias, counted(loss)
        return ops.sum(counted(loss) * weights), (counted(nll), rank), slopes

    total, (nll, rank) = with_gradients(
        compute, (features, kernel, bias, weights), training
    )
    return Outcome(total, nll, rank)


def rows_of_a_chunk(batch: Any, classes: int, chunk_bytes: int) -> Any:
    """How many rows of logits fit into `chunk_bytes`, with chunks of similar size."""
    most = max(1, chunk_bytes // (4 * classes))
    batch = max(batch, 1) if isinstance(batch, int) else ops.maximum(batch, 1)
    count = (batch + most - 1) // most
    return (batch + count - 1) // count


def _counted(batch, span):
    """A function that sets rows outside a span to 0."""
    if span is None:
        return lambda x: x
    start, count = span
    rows = ops.arange(batch)
    inside = ops.logical_and(rows >= start, rows < start + count)
    return lambda x: ops.where(inside if len(x.shape) == 1 else inside[:, None], x, 0.0)


def _total(parts):
    return _reduced(ops.add, parts)


def _reduced(function, parts):
    total = parts[0]
    for part in parts[1:]:
        total = function(total, part)
    return total


def _count(mask):
    return ops.sum(ops.cast(mask, "float32"), axis=-1)


def _at(blocks_of_logits, blocks, labels):
    """The logit of each row's label."""
    found = 0.0
    for x, (a, b) in zip(blocks_of_logits, blocks, strict=True):
        here = ops.logical_and(labels >= a, labels < b)[:, None]
        local = ops.clip(labels - a, 0, b - a - 1)[:, None]
        found = found + ops.where(here, ops.take_along_axis(x, local, axis=-1), 0.0)
    return found
