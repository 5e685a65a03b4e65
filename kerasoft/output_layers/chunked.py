"""The exact loss of any head, without the logits of a whole batch."""

from typing import Any

import keras
import numpy as np
from keras import ops

from kerasoft import heads
from kerasoft.ops import Tensor
from kerasoft.output_layers.base import (
    OutputLayer,
    likeliest_of,
    register,
    sample_of,
)
from kerasoft.output_layers.crossentropy import Outcome, crossentropy, rows_of_a_chunk
from kerasoft.output_layers.loops import (
    add_product,
    fold_rows,
    gumbel_noise,
    times_transposed,
    value_and_gradient,
    with_gradients,
)


@register
class ChunkedOutput(OutputLayer):
    """Dense layer, head and matched loss in one layer, computed in chunks of rows.

    Formula:

    ```python
    logits = features @ transpose(kernel) + bias
    loss = matched_loss(head)(labels, head(logits))
    ```

    The loss, its gradients and the predictions are those of `keras.layers.Dense` with
    the head, up to rounding; predictions are without Gumbel noise. Besides the gradient
    of the weights, memory holds only the logits of a chunk, `chunk_bytes` bytes,
    instead of several copies of the `4 * batch * num_classes` bytes of all logits. The
    forward pass also computes the gradients, so no logit is computed twice.

    Args:
        num_classes: Positive integer.
        head: A head's name or a head. Its `axis` must be -1.
        label_smoothing: Float in [0, 1), as in `kerasoft.losses.HeadLoss`.
        allowed: Booleans of shape `(num_classes,)`, `False` for masked classes; or
            `None`.
        **kwargs: Keyword arguments of `OutputLayer`.

    Raises:
        ValueError: If the head has another axis, `hard=True`, or both noise and a
            learned temperature, if `allowed` has another shape or allows no class, and
            as in `OutputLayer`.

    Example:

    >>> layer = output_layers.ChunkedOutput(num_classes=1000, top_k=2)
    >>> layer(np.zeros((3, 8)))["classes"].shape == (3, 2)
    True
    """

    def __init__(
        self,
        num_classes: int,
        head: "str | heads.Head" = "log_softmax",
        label_smoothing: float = 0.0,
        allowed: Any = None,
        **kwargs: Any,
    ):
        super().__init__(num_classes, **kwargs)
        if isinstance(head, dict):
            head = keras.saving.deserialize_keras_object(head)
        self.head = heads.find(head)
        if self.head.axis != -1:
            raise ValueError(
                "The head of an output layer must have axis=-1. "
                f"Received: axis={self.head.axis}"
            )
        noisy = isinstance(self.head, heads.GumbelHead) and self.head.noise != "never"
        if noisy and self.head.temperature == "learned":
            raise ValueError(
                "A head with a learned temperature must have noise='never' here. "
                f"Received: noise={self.head.noise!r}"
            )
        if getattr(self.head, "hard", False):
            raise ValueError(
                "A head with hard=True returns one-hot samples, of which an output "
                "layer computes no loss; use hard=False. "
                f"Received: head={self.head!r}"
            )
        self.loss = self.head.matched_loss(label_smoothing=label_smoothing)
        self.label_smoothing = label_smoothing
        self.allowed = None if allowed is None else np.asarray(allowed, "bool")
        if self.allowed is not None:
            if self.allowed.shape != (num_classes,):
                raise ValueError(
                    f"`allowed` must be of shape ({num_classes},). "
                    f"Received: allowed.shape={self.allowed.shape}"
                )
            if not self.allowed.any():
                raise ValueError("`allowed` must allow a class. Received: all False")
            self.top_k = min(self.top_k, int(self.allowed.sum()))

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self.head.build((None, self.num_classes))  # or Keras builds it at each batch
        self.kernel, self.bias = self.add_dense("", self.num_classes, self.dim)

    def _bias(self, scale: Tensor | float = 1.0) -> Tensor:
        """The scaled biases, and -inf for masked classes with any sign of the scale."""
        bias = ops.zeros((self.num_classes,)) if self.bias is None else self.bias
        bias = ops.convert_to_tensor(bias) * scale
        return bias if self.allowed is None else ops.where(self.allowed, bias, -np.inf)

    def dense_weights(self) -> tuple[np.ndarray, np.ndarray]:
        """The weights of a dense layer that gives the same logits.

        Returns:
            Arrays of shape `(dim, num_classes)` and `(num_classes,)`, as
            `keras.layers.Dense` has them.
        """
        kernel, bias = map(ops.convert_to_numpy, (self.kernel, self._bias()))
        return kernel.T, bias

    def outcome(
        self, features: Tensor, labels: Tensor, weights: Tensor, training: bool
    ) -> Outcome:
        scale = self.head.logit_scale(training)
        kernel = ops.convert_to_tensor(self.kernel)
        if scale is None:
            return self._by_autodiff(features, kernel, labels, weights, training)
        return crossentropy(
            features * scale,
            kernel,
            self._bias(scale),
            labels,
            weights,
            self.label_smoothing,
            self.allowed,
            self._noise(scale, training),
            self.chunk_bytes,
            training,
        )

    def _noise(self, scale, training):
        """The argument `noise` of `crossentropy`, or `None` without noise."""
        if not isinstance(self.head, heads.GumbelHead) or not self.head.is_noisy(
            training
        ):
            return None
        seed = self.head.seed_generator.next()
        return lambda i, shape: gumbel_noise(seed, i, shape) * scale

    def _by_autodiff(self, features, kernel, labels, weights, training) -> Outcome:
        """Like `crossentropy`, for heads that need automatic differentiation."""
        batch = ops.shape(features)[0]
        # Fewer rows, because automatic differentiation holds several copies of them.
        rows = rows_of_a_chunk(batch, self.num_classes, self.chunk_bytes // 4)
        dim = features.shape[1]

        def compute(features, kernel, bias, weights, gradients):
            def step(i, carry, h, v, y):
                logits = times_transposed(h, kernel) + bias

                def of(x):
                    outputs = self.head(x)
                    loss = self.loss.call(y, outputs)
                    return ops.sum(loss * v), (loss, outputs)

                if gradients:
                    _, (loss, outputs), slope = value_and_gradient(of, logits)
                else:
                    _, (loss, outputs) = of(logits)
                log_p = self.head.log_probabilities(ops.stop_gradient(outputs))
                truth = ops.take_along_axis(log_p, y[:, None], axis=-1)
                ahead = ops.logical_not(log_p < truth)  # of NaN, too
                rank = ops.sum(ops.cast(ahead, "float32"), axis=-1) - 1
                results = (ops.stop_gradient(loss), -ops.squeeze(truth, -1), rank)
                if not gradients:
                    return carry, results
                by_kernel, by_bias = carry
                by_kernel = add_product(by_kernel, slope, h)
                by_bias = by_bias + ops.sum(slope, axis=0)
                return (by_kernel, by_bias), (*results, slope @ kernel)

            sums, shapes = (), ((),) * 3
            if gradients:
                sums = ops.zeros_like(kernel), ops.zeros_like(bias)
                shapes = (*shapes, (dim,))
            sums, (loss, nll, rank, *slope) = fold_rows(
                step, (features, weights, labels), rows, sums, shapes
            )
            slopes = (slope[0], *sums, loss) if gradients else ()
            return ops.sum(loss * weights), (nll, rank), slopes

        total, (nll, rank) = with_gradients(
            compute, (features, kernel, self._bias(), weights), training
        )
        return Outcome(total, nll, rank)

    def likeliest(self, features: Tensor, k: int) -> tuple[Tensor, Tensor]:
        features = ops.cast(features, "float32")
        scale = self.head.logit_scale(False)
        if scale is not None:
            kernel, bias = ops.convert_to_tensor(self.kernel), self._bias(scale)
            block = self.block_size(ops.shape(features)[0])
            values, classes, normaliser = likeliest_of(
                features * scale, kernel, bias, k, block
            )
            return values - normaliser, classes
        log_p, classes = ops.top_k(self._rows(features), k)
        return log_p, ops.cast(classes, "int32")

    def log_probabilities(self, features: Tensor, classes: Tensor) -> Tensor:
        scale = self.head.logit_scale(False)
        if scale is None:
            return ops.take_along_axis(self._rows(features), classes, axis=-1)
        kernel, bias = ops.convert_to_tensor(self.kernel), self._bias(scale)
        features = ops.cast(features, "float32") * scale
        block = self.block_size(ops.shape(features)[0])
        _, _, normaliser = likeliest_of(features, kernel, bias, 1, block)
        logits = ops.einsum("bd,bkd->bk", features, ops.take(kernel, classes, axis=0))
        return logits + ops.take(bias, classes, axis=0) - normaliser

    def all_log_probabilities(self, features: Tensor) -> Tensor:
        return self._rows(features)

    def draw(self, features: Tensor, seed: Any) -> Tensor:
        scale = self.head.logit_scale(False)
        if scale is None:
            raise ValueError(
                "Only softmax heads can be sampled, at any temperature. "
                f"Received: head={self.head!r}"
            )
        kernel, bias = ops.convert_to_tensor(self.kernel), self._bias(scale)
        block = self.block_size(ops.shape(features)[0])
        return sample_of(features * scale, kernel, bias, seed.next(), block)

    def _rows(self, features: Tensor) -> Tensor:
        """The log-probabilities of all classes, for heads that need whole rows."""
        features = ops.cast(features, "float32")
        logits = times_transposed(features, ops.convert_to_tensor(self.kernel))
        outputs = self.head.activate(logits + self._bias())
        return self.head.log_probabilities(outputs)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "head": keras.saving.serialize_keras_object(self.head),
            "label_smoothing": self.label_smoothing,
            "allowed": None if self.allowed is None else self.allowed.tolist(),
        }
