"""The base class of the output layers, and functions over blocks of classes."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from kerasoft import _keras, losses
from kerasoft.losses import register as register
from kerasoft.ops import LOWEST, Tensor, log_of
from kerasoft.ops.common import largest_of
from kerasoft.output_layers.crossentropy import Outcome
from kerasoft.output_layers.loops import (
    fold,
    times_transposed,
    uniform,
)
from kerasoft.rows import rows_of

PART = 64  # classes of a block, whose weights sampling sums first


class Numbered:
    """A `SeedGenerator` without a variable, which a `tf.function` could not create."""

    def __init__(self, seed: int):
        self.counter = itertools.count()
        self.seed = seed

    def next(self) -> Tensor:
        return ops.convert_to_tensor([self.seed, next(self.counter)], "uint32")


class OutputLayer(keras.layers.Layer):
    """Base of the output layers, which replace a dense layer, a head and a loss.

    All output layers share these properties:

    - They own the weights of the classes, and compute their loss from features and
      labels, without the logits of a whole batch. `Classifier` trains them with `fit`.
    - They compute in float32, whatever the dtype policy.
    - Labels are integers of shape `(batch,)` or `(batch, 1)`. A label outside `0..N-1`
      raises an error, or makes the loss NaN where values cannot be checked, as in
      `kerasoft.losses.HeadLoss`. Labels equal to `ignore_class` are ignored.
    - Called on features, they return the most likely classes and their
      log-probabilities.
    - `sample` draws classes at random.
    - The gradient of their loss cannot be differentiated again: on TensorFlow and
      PyTorch, that is an error.

    To write your own output layer, subclass `OutputLayer` and define `build`,
    `outcome`, `likeliest`, `log_probabilities` and `draw`.

    Args:
        num_classes: Positive integer.
        use_bias: Boolean, whether the classes have biases.
        kernel_initializer: Initialiser of the weights of the classes.
        top_k: Positive integer, how many classes a prediction returns.
        ignore_class: Integer label that is ignored, or `None`.
        chunk_bytes: Positive integer, the maximum size in bytes of the logits that are
            in memory at once.
        **kwargs: Base layer keyword arguments, such as `name` and `dtype`.

    Call arguments:
        inputs: Features, float tensor of shape `(batch, dim)`.

    Returns:
        A dictionary of `classes`, integers of shape `(batch, top_k)`, the most likely
        first, and their `log_probabilities`.

    Raises:
        ValueError: If `num_classes`, `top_k` or `chunk_bytes` is not positive, or
            features are not of shape `(batch, dim)`.
    """

    def __init__(
        self,
        num_classes: int,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        top_k: int = 5,
        ignore_class: int | None = None,
        chunk_bytes: int = 2**28,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        for name, value in (
            ("num_classes", num_classes),
            ("top_k", top_k),
            ("chunk_bytes", chunk_bytes),
        ):
            if not isinstance(value, int) or value < 1:
                raise ValueError(
                    f"`{name}` must be a positive integer. Received: {name}={value!r}"
                )
        self.num_classes = num_classes
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.top_k = min(top_k, num_classes)
        self.ignore_class = ignore_class
        self.chunk_bytes = chunk_bytes

    @property
    def compute_dtype(self) -> str:
        return "float32"

    def build(self, input_shape: Any) -> None:
        if len(input_shape) != 2 or input_shape[-1] is None:
            raise ValueError(
                "Features must be of shape (batch, dim), with a known `dim`; add a "
                "pooling layer or `keras.layers.Flatten`. "
                f"Received: input_shape={tuple(input_shape)}"
            )
        self.dim = int(input_shape[-1])

    def add_dense(self, prefix: str, outputs: int, dim: int) -> tuple[Any, Any]:
        """Adds a kernel of shape `(outputs, dim)`, and biases if `use_bias`."""
        kernel = self.add_weight(
            shape=(outputs, dim),
            initializer=self.another_initializer()
            if prefix
            else self.kernel_initializer,
            dtype="float32",
            name=f"{prefix}kernel",
        )
        if not self.use_bias:
            return kernel, None
        return kernel, self.add_weight(
            shape=(outputs,),
            initializer="zeros",
            dtype="float32",
            name=f"{prefix}bias",
        )

    def another_initializer(self) -> Any:
        """A copy of the initialiser, which without a seed of its own draws another.

        One initialiser gives all weights the same numbers.
        """
        given: Any = self.kernel_initializer
        return given.clone() if hasattr(given, "clone") else given

    def dense(self, kernel: Any, bias: Any) -> tuple[Tensor, Tensor]:
        """A kernel and its biases as tensors, with biases of 0 if there are none."""
        kernel = ops.convert_to_tensor(kernel)
        if bias is None:
            return kernel, ops.zeros((kernel.shape[0],))
        return kernel, ops.convert_to_tensor(bias)

    def outcome(
        self, features: Tensor, labels: Tensor, weights: Tensor, training: bool
    ) -> Outcome:
        """The loss of labels in `0..N-1`, with a weight for each row."""
        raise NotImplementedError

    @_keras.without_autograph
    def evaluate_rows(
        self,
        features: Tensor,
        labels: Tensor,
        weights: Tensor | None = None,
        training: bool = False,
    ) -> tuple[Outcome, Tensor]:
        """The mean loss for features and labels, and the weight of each row.

        Args:
            features: Float tensor of shape `(batch, dim)`.
            labels: Integer tensor of shape `(batch,)` or `(batch, 1)`.
            weights: Float tensor of shape `(batch,)` or `(batch, 1)`, or `None` for
                weights of 1.
            training: Whether gradients will be needed.

        Returns:
            An `Outcome`, whose total is the weighted sum divided by the number of
            labels that are not ignored; and the weights, which are 0 for ignored
            labels.
        """
        features = ops.cast(features, "float32")
        labels = ops.convert_to_tensor(labels)
        if len(labels.shape) != 1 and (
            len(labels.shape) != 2 or labels.shape[1] not in (1, None)
        ):
            raise ValueError(
                "Labels must be integers of shape (batch,) or (batch, 1); of one-hot "
                "labels, take the `argmax`. "
                f"Received: labels.shape={tuple(labels.shape)}"
            )
        labels = ops.reshape(labels, (-1,))
        given = ops.ones_like(features[:, 0]) if weights is None else weights
        given = ops.reshape(ops.cast(given, "float32"), (-1,))
        labels, valid, ignored = losses.checked_labels(
            labels, self.num_classes, self.ignore_class
        )
        counted = ops.sum(ops.ones_like(given))
        if ignored is not None:
            given = ops.where(ignored, 0.0, given)
            counted = ops.sum(ops.cast(ops.logical_not(ignored), "float32"))
        shares = ops.divide_no_nan(given, counted)
        found = self.outcome(features, labels, shares, training)
        total = found.total + ops.where(ops.all(valid), 0.0, math.nan)
        return found._replace(total=total), given

    # Prediction, over blocks of classes

    def block_size(self, batch: Any) -> int:
        """How many classes fit into `chunk_bytes` for a batch of logits."""
        rows = max(batch, 1) if isinstance(batch, int) else 4096  # more than most
        return max(1, min(self.num_classes, self.chunk_bytes // (4 * rows)))

    @property
    def value_name(self) -> str:
        """The key of the values in a prediction."""
        return "log_probabilities"

    def call(self, inputs: Tensor) -> dict[str, Tensor]:
        values, classes = self.likeliest(inputs, self.top_k)
        return {"classes": classes, self.value_name: values}

    def compute_output_spec(self, inputs: Any, **kwargs: Any) -> Any:
        shape = (inputs.shape[0], self.top_k)
        return {
            "classes": keras.KerasTensor(shape, "int32"),
            self.value_name: keras.KerasTensor(shape, "float32"),
        }

    def likeliest(self, features: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The `k` largest log-probabilities, and their classes."""
        raise NotImplementedError

    def log_probabilities(self, features: Tensor, classes: Tensor) -> Tensor:
        """The log-probabilities of given classes, of shape `(batch, count)`."""
        raise NotImplementedError

    def all_log_probabilities(self, features: Tensor) -> Tensor:
        """The log-probabilities of all classes, of shape `(batch, num_classes)`."""
        values, classes = self.likeliest(features, self.num_classes)
        return ops.take_along_axis(values, ops.argsort(classes, axis=-1), axis=-1)

    @_keras.without_autograph
    def sample(self, features: Tensor, seed: Any = None) -> Tensor:
        """Draws a class for each row, from the exact distribution.

        The classes are processed in blocks, with two random numbers for each row and
        block. One draws a class within the block; the other is Gumbel noise, which is
        added to the block's log-sum-exp. The sample is the class of the block with the
        largest sum.

        Args:
            features: Float tensor of shape `(batch, dim)`.
            seed: Integer, `keras.random.SeedGenerator`, or `None`.

        Returns:
            Integers of shape `(batch,)`.

        Reference:
            [Maddison et al., 2014](https://arxiv.org/abs/1411.0030), for Gumbel
            variables over sets of classes.
        """
        if isinstance(seed, int):
            seed = Numbered(seed)
        elif not isinstance(seed, keras.random.SeedGenerator):
            seed = keras.random.SeedGenerator(seed)  # of None, or an error
        return self.draw(ops.cast(features, "float32"), seed)

    def draw(self, features: Tensor, seed: Any) -> Tensor:
        """Draws a class for each row; `sample` calls it.

        Args:
            features: Float tensor of shape `(batch, dim)`.
            seed: Its method `next` returns a seed, another one at each call.
        """
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "top_k": self.top_k,
            "ignore_class": self.ignore_class,
            "chunk_bytes": self.chunk_bytes,
        }


def rank_of(layer: OutputLayer, features: Tensor, labels: Tensor, nll: Tensor) -> Any:
    """How many other classes are at least as likely as each row's label, at most 5."""
    values, classes = layer.likeliest(features, min(5, layer.num_classes))
    others = ops.not_equal(classes, ops.cast(labels, "int32")[:, None])
    ahead = ops.logical_and(others, values >= -nll[:, None])
    rank = ops.sum(ops.cast(ahead, "float32"), axis=-1)
    return ops.where(ops.isnan(nll), 5.0, rank)


def no_best(features: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The initial values of `best_of`: `k` lowest values, with arbitrary classes."""
    first = ops.zeros_like(features[:, :1])
    values = ops.repeat(first + LOWEST, k, axis=1)
    return values, ops.cast(ops.repeat(first, k, axis=1), "int32")


def best_of(
    values: Sequence[Tensor], classes: Sequence[Tensor], k: int
) -> tuple[Tensor, Tensor]:
    """The `k` largest of several tensors' values, and their classes."""
    best, order = ops.top_k(ops.concatenate(values, axis=-1), k)
    return best, ops.take_along_axis(ops.concatenate(classes, axis=-1), order, axis=-1)


def sample_of(
    features: Tensor,
    kernel: Tensor,
    bias: Tensor | None,
    seed: Tensor,
    block: int,
    log_weight: Callable[[Tensor], Tensor] = lambda logits: logits,
) -> Tensor:
    """Samples of the softmax of a dense layer, computed over blocks of classes.

    Args:
        features: Of shape `(batch, dim)`.
        kernel: Of shape `(classes, dim)`.
        bias: Of shape `(classes,)`, or `None` for none.
        seed: A seed from `SeedGenerator.next`.
        block: The number of classes in a block.
        log_weight: A function that is applied to the logits before the exponential.

    Returns:
        Integers of shape `(batch,)`.
    """
    # The cumulative sum runs over parts of a block, then over the classes of one part.
    block = min(block, kernel.shape[0])
    part = PART if block >= PART else 1
    block -= block % part
    first = ops.zeros_like(features[:, :1])
    carry = first + LOWEST, ops.cast(first, "int32")

    def step(i, carry):
        best, classes = carry
        start, logits, seen = block_of_logits(features, kernel, i, block)
        if bias is not None:
            logits = logits + rows_of(bias, start, block)
        logits = ops.where(seen, -math.inf, log_weight(logits))
        largest = largest_of(logits, -1)
        shifted = ops.maximum(largest, LOWEST)  # if all classes of the block are masked
        weights = ops.reshape(ops.exp(logits - shifted), (-1, block // part, part))
        u = uniform(seed, i, (2, *ops.shape(first)))
        found, left, total = _found(ops.sum(weights, axis=-1), u[0])
        inside = ops.take_along_axis(weights, found[..., None], axis=1)
        inside = ops.squeeze(inside, axis=1)
        share = ops.divide_no_nan(left, ops.sum(inside, axis=-1, keepdims=True))
        drawn = ops.cast(start + found * part + _found(inside, share)[0], "int32")
        score = shifted + log_of(total) - ops.log(-ops.log(u[1]))
        better = score > best
        return ops.where(better, score, best), ops.where(better, drawn, classes)

    _, classes = fold(step, -(-kernel.shape[0] // block), carry)
    return ops.squeeze(classes, -1)


def _found(weights, share):
    """Where the cumulative sum of weights exceeds a share of their total.

    Returns:
        The position, the rest of the share there, and the total, each of shape
        `(batch, 1)`.
    """
    below = ops.cumsum(weights, axis=-1)
    total = below[:, -1:]
    share = ops.minimum(share, 1 - 1e-6) * total  # never at a weight of 0
    place = ops.sum(ops.cast(below <= share, "int32"), axis=-1, keepdims=True)
    place = ops.minimum(place, weights.shape[-1] - 1)
    before = ops.take_along_axis(below - weights, place, axis=-1)
    return place, ops.maximum(share - before, 0.0), total


def block_of_logits(
    features: Tensor, kernel: Any, i: Any, block: int
) -> tuple[Any, Tensor, Tensor]:
    """The logits of the i-th block of classes of a dense layer, without biases.

    Returns:
        The block's first class; its logits, of shape `(batch, block)`; and which of
        them are already in the previous block, because the last block starts earlier to
        have the same size.
    """
    start = ops.minimum(i * block, kernel.shape[0] - block)
    seen = start + ops.arange(block) < i * block
    return start, times_transposed(features, rows_of(kernel, start, block)), seen


def likeliest_of(
    features: Tensor, kernel: Tensor, bias: Tensor, k: int, block: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The largest logits of a dense layer, computed over blocks of classes.

    Args:
        features: Of shape `(batch, dim)`.
        kernel: Of shape `(classes, dim)`.
        bias: Of shape `(classes,)`.
        k: The number of logits.
        block: The number of classes in a block.

    Returns:
        The logits and the classes, of shape `(batch, k)`, and the log-sum-exp of all
        logits, of shape `(batch, 1)`.
    """
    classes = kernel.shape[0]
    block = max(min(block, classes), k)
    first = ops.zeros_like(features[:, :1])
    carry = (*no_best(features, k), first + LOWEST, first)

    def step(i, carry):
        values, indices, largest, total = carry
        start, logits, seen = block_of_logits(features, kernel, i, block)
        logits = ops.where(seen, -math.inf, logits + rows_of(bias, start, block))
        best, where = ops.top_k(logits, k)
        values, indices = best_of(
            (values, best), (indices, ops.cast(where, "int32") + start), k
        )
        highest = ops.maximum(largest, best[:, :1])
        total = total * ops.exp(largest - highest) + ops.sum(
            ops.exp(logits - highest), axis=-1, keepdims=True
        )
        return values, indices, highest, total

    values, indices, largest, total = fold(step, -(-classes // block), carry)
    return values, indices, largest + ops.log(total)
