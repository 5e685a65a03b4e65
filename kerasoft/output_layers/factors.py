"""The algebra of `FactoredOutput`: a step of gradient descent on a factored matrix."""

from collections.abc import Callable
from typing import Any, NamedTuple

from keras import ops

from kerasoft.ops import Tensor
from kerasoft.output_layers.base import block_of_logits
from kerasoft.output_layers.loops import fold
from kerasoft.rows import rows_of

ROWS = 8192  # of the weights, processed at once


class Factors(NamedTuple):
    """What is stored of `W = factor @ right + ones * transpose(common)`.

    All but the largest part, `factor`, which has a row for each class.

    Attributes:
        right: Matrix of the size of the features.
        inverse: The inverse of `right`.
        common: Vector that is added to each row.
        squares: `Q = transpose(W) @ W`.
        total: The sum of the rows of `W`.
    """

    right: Tensor
    inverse: Tensor
    common: Tensor
    squares: Tensor
    total: Tensor


class Step(NamedTuple):
    """A batch, and the slopes of its loss.

    Attributes:
        h: Features, of shape `(batch, dim)`.
        labels: Their labels.
        own: The rows of `W` at the labels, of the shape of `h`.
        product: `h @ Q`.
        slopes: Of shape `(3, batch)`: the derivatives of the loss with respect to the
            sum of squares, the sum, and the label's logit of each example.
    """

    h: Tensor
    labels: Tensor
    own: Tensor
    product: Tensor
    slopes: Tensor


def moments(factor: Tensor) -> tuple[Tensor, Tensor]:
    """`transpose(W) @ W` and the sum of the rows, if `W` is equal to `factor`."""
    classes, dim = factor.shape
    block = min(ROWS, classes)
    first = ops.zeros((dim,), "float32")

    def step(i, carry):
        squares, total = carry
        start = ops.minimum(i * block, classes - block)
        new = start + ops.arange(block) >= i * block
        rows = rows_of(factor, start, block) * ops.cast(new, "float32")[:, None]
        squares = squares + ops.transpose(rows) @ rows
        return squares, total + ops.sum(rows, axis=0)

    return fold(step, -(-classes // block), (first[:, None] + first, first))


def after_step(
    old: Factors, step: Step, rate: Tensor, kept: Tensor, classes: float
) -> tuple[Factors, Tensor]:
    """The factors after a step of gradient descent.

    Args:
        old: The factors before the step.
        step: What the step trains on.
        rate: The learning rate.
        kept: What weight decay multiplies the weights by.
        classes: The number of rows of `W`.

    Returns:
        The new factors, and what to add to the labels' rows of `factor`, of the shape
        of the features.
    """
    h, labels, own, product, slopes = step
    right, inverse, common, squares, total = old
    by_squares, by_total, by_logit = ops.unstack(slopes[..., None], 3)
    turned = ops.transpose(h)
    # W_new = kept * W @ M - rate * ones * transpose(b) + G, where G has the rows of g
    # at the labels, M = 1 - transpose(h) @ (s * h), and g = t * h.
    s, t = 2 * rate / kept * by_squares, -rate * by_logit
    scaled, g = s * h, t * h
    b = ops.sum(by_total * h, axis=0)

    def times_m(x):
        return kept * (x - (x @ turned) @ scaled)

    right = kept * (right - ops.transpose(h @ ops.transpose(right)) @ scaled)
    inverse, h_inverse = _inverse_of(h, s, inverse)
    inverse, added = inverse / kept, t / kept * h_inverse
    common = times_m(common[None])[0] - rate * b

    # Q_new = transpose(W_new) @ W_new is a sum of terms of the form transpose(x) @ h
    # and their transposes. Terms of pairs of rows are summed first.
    moved, sum_of_g = times_m(total[None])[0], ops.sum(g, axis=0)
    same = ops.cast(ops.equal(labels[:, None], labels), "float32")
    s_, t_ = ops.transpose(s), ops.transpose(t)
    pairs = (
        kept**2 / 2 * s * (h @ ops.transpose(product)) * s_
        - kept * t * (own @ turned) * s_
        + t * same * t_ / 2
    )
    x = pairs @ h + kept * (t * own - kept * s * product)
    x = x - rate * by_total * (moved + sum_of_g - rate * classes / 2 * b)
    half = ops.transpose(x) @ h
    squares = kept**2 * squares + half + ops.transpose(half)
    total = moved - rate * classes * b + sum_of_g
    return Factors(right, inverse, common, squares, total), added


def error_of_inverse(factors: Factors) -> Tensor:
    """By how much multiplying by `right` and by its inverse changes a vector."""
    dim = factors.right.shape[0]
    probe = ops.cos(ops.arange(dim, dtype="float32"))[None]
    return ops.max(ops.abs((probe @ factors.right) @ factors.inverse - probe))


def _inverse_of(h, s, inverse):
    """The inverse of `right @ M` from that of `right`, and `h` times this inverse.

    With `M = 1 - transpose(h) @ (s * h)`, this uses Woodbury's formula. It solves the
    smaller of two systems of equations, of the size of the batch or of the features.
    """
    batch, dim = ops.shape(h)
    turned = ops.transpose(h)
    product = h @ inverse

    def near_one(size):
        # Slightly more than 1, so that a singular system gives a very large solution,
        # which `error_of_inverse` shows, instead of an error of the backend.
        return ops.eye(size) * (1 + 2**-23)

    def by_rows():
        system = near_one(batch) - (h @ turned) * ops.transpose(s)
        found = ops.solve(system, product)
        return inverse + turned @ (s * found), found

    def by_features():
        system = near_one(dim) - turned @ (s * h)
        found = inverse + ops.solve(system, turned @ (s * product))
        return found, h @ found

    if isinstance(batch, int):
        return by_rows() if batch <= dim else by_features()
    return ops.cond(batch <= dim, by_rows, by_features)


def fold_logits(
    h: Tensor, factor: Tensor, common: Tensor, block: int, step: Callable, carry: Any
) -> tuple[Any, tuple[Tensor, Tensor]]:
    """Folds a function over blocks of the logits `h @ transpose(factor) + common`.

    Args:
        h: Of shape `(batch, dim)`.
        factor: Of shape `(classes, dim)`.
        common: Of shape `(batch, 1)`.
        block: The number of classes in a block.
        step: A function of a block's first class, its logits, which of them the
            previous block had, and the carried state, that returns the new state.
        carry: The initial state.

    Returns:
        The final state, and the sums of squares and of logits, of shape `(batch, 1)`.
    """
    zeros = ops.zeros_like(common)

    def of_block(i, carry):
        carry, (squares, total) = carry
        start, logits, seen = block_of_logits(h, factor, i, block)
        logits = logits + common
        new = ops.where(seen, 0.0, logits)
        squares = squares + ops.sum(new * new, axis=-1, keepdims=True)
        total = total + ops.sum(new, axis=-1, keepdims=True)
        return step(start, logits, seen, carry), (squares, total)

    return fold(of_block, -(-factor.shape[0] // block), (carry, (zeros, zeros)))


def ahead_of(
    order: Tensor, own: Tensor, seen: Tensor, start: Any, labels: Tensor
) -> Tensor:
    """How many other classes of a block are at least as likely as the label."""
    classes = start + ops.arange(order.shape[-1])
    others = ops.logical_and(
        ops.logical_not(seen), ops.not_equal(classes, labels[:, None])
    )
    ahead = ops.logical_and(others, ops.logical_not(order < own))  # of NaN, too
    return ops.sum(ops.cast(ahead, "float32"), axis=-1, keepdims=True)
