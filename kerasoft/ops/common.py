"""What the functions of the family share: dtypes, masks and numerical ranges."""

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from keras import backend, ops

Tensor: TypeAlias = Any  # a tensor of the backend, or anything convertible to one

LOWEST = float(np.finfo("float32").min)
TINY = float(np.finfo("float32").tiny)
COLDEST = 1e-37  # the least magnitude of a temperature, whose reciprocal is finite


def log_of(probabilities: Tensor) -> Tensor:
    """Logarithm of probabilities, at least that of the smallest normal float32."""
    return ops.log(ops.maximum(probabilities, TINY))


def as_float32(x: Tensor) -> Tensor:
    """A tensor in float32."""
    return ops.cast(ops.convert_to_tensor(x), "float32")


def largest_of(x: Tensor, axis: int) -> Tensor:
    """The largest along an axis, which is kept with size 1.

    There may be no rows, which Keras refuses on TensorFlow and PyTorch.
    """
    match backend.backend():
        case "tensorflow":
            import tensorflow as tf

            if tf.is_tensor(x):
                return tf.reduce_max(x, axis, keepdims=True)
        case "torch":
            import torch

            if isinstance(x, torch.Tensor):
                return torch.amax(x, axis, keepdim=True)
    return ops.max(x, axis=axis, keepdims=True)


def same_shape(one: Sequence[int | None], other: Sequence[int | None]) -> bool:
    """Whether two shapes are equal, as far as their sizes are known."""
    return len(one) == len(other) and all(
        a == b or None in (a, b) for a, b in zip(one, other, strict=True)
    )


def centre(logits: Tensor, axis: int) -> Tensor:
    """The logits minus the largest, so that scaling them loses no precision."""
    x = as_float32(logits)
    largest = ops.stop_gradient(largest_of(x, axis))
    return x - ops.where(ops.equal(largest, -math.inf), 0.0, largest)


def split_empty(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """The logits, with 0 in rows of only -inf, and which rows those are."""
    largest = ops.stop_gradient(largest_of(x, axis))
    empty = ops.equal(largest, -math.inf)
    return ops.where(empty, 0.0, x), empty


def near_the_largest(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """The logits minus the largest, clipped at -2; and which were masked (-inf).

    The threshold of a sparse head is within 1 of the largest logit, so smaller logits
    are never in the support. Clipping them avoids rounding errors in cumulative sums.
    """
    masked = ops.equal(x, -math.inf)
    x = ops.where(masked, LOWEST, x)
    largest = ops.stop_gradient(largest_of(x, axis))
    return ops.where(masked, -2.0, ops.maximum(x - largest, -2.0)), masked


def split_mask(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The logits, with 0 where they are masked (-inf), and which are masked."""
    x = as_float32(logits)
    masked = ops.equal(x, -math.inf)
    return ops.where(masked, 0.0, x), masked


def away_from_0(number: Tensor, least: float) -> Tensor:
    """A number in float32 with a magnitude of at least `least`, and its sign."""
    number = as_float32(number)
    return ops.where(ops.abs(number) < least, sign_of(number) * least, number)


def sign_of(number: Tensor) -> Tensor:
    """-1 for a negative number, else 1, in float32 (whatever `floatx` is)."""
    return 1.0 - 2.0 * ops.cast(number < 0, "float32")


def temper(logits: Tensor, temperature: Tensor, noise: Tensor, axis: int) -> Tensor:
    """`(logits + noise) / temperature`, up to a constant; masked logits stay masked.

    As in `centre`, the logit with the highest probability is subtracted; with a
    negative temperature this is the smallest logit.
    """
    x, masked = split_mask(logits)
    temperature = away_from_0(temperature, COLDEST)  # a schedule may end at 0
    sign, noise = sign_of(temperature), as_float32(noise)
    largest = largest_of(ops.where(masked, -math.inf, sign * x), axis)
    most_likely = sign * ops.where(ops.equal(largest, -math.inf), 0.0, largest)
    x = (x - ops.stop_gradient(most_likely) + noise) / temperature
    return ops.where(masked, -math.inf, ops.clip(x, LOWEST, -LOWEST))


def magnitude(x: Tensor, axis: int) -> Tensor:
    """The largest magnitude, at least 1; after division by it, squares cannot overflow.

    At most 1e37, because XLA multiplies by the reciprocal and rounds a subnormal to 0.
    """
    largest = largest_of(ops.abs(x), axis)
    return ops.stop_gradient(ops.clip(largest, 1.0, 1e37))


def standard_deviation(variance: Tensor) -> Tensor:
    """The standard deviation, or 1 if it is 0."""
    return ops.sqrt(ops.where(variance > TINY, variance, 1.0))


def normalise(weights: Tensor, masked: Tensor, axis: int) -> Tensor:
    """Weights as shares of their sum, 0 where they are masked."""
    weights = ops.where(masked, 0.0, weights)
    total = ops.sum(weights, axis=axis, keepdims=True)
    return weights / ops.where(ops.equal(total, 0.0), 1.0, total)
