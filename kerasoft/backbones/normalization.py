"""Batch normalisation that uses TensorFlow's fused op where possible."""

from typing import Any

import keras
from keras import backend

from kerasoft.ops import Tensor


@keras.saving.register_keras_serializable(package="kerasoft")
class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization`, with a fused op on TensorFlow.

    It has the same arguments, weights and results as Keras's layer. On the TensorFlow
    backend, for images with channels last, it uses one op, which does not copy
    half-precision inputs to float32.

    Args:
        **kwargs: The arguments of `keras.layers.BatchNormalization`.

    Call arguments:
        inputs: Tensor.
        training: Boolean, whether to normalise by mean and variance of the batch and
            to update the moving averages.
        mask: Boolean tensor, see `keras.layers.BatchNormalization`.

    Example:

    >>> x = np.random.default_rng(0).normal(size=(8, 4, 4, 2)).astype("float32")
    >>> fused, plain = BatchNormalization(), keras.layers.BatchNormalization()
    >>> bool(np.allclose(fused(x, training=True), plain(x, training=True), atol=1e-5))
    True
    """

    def call(
        self, inputs: Tensor, training: bool | None = None, mask: Tensor | None = None
    ) -> Tensor:
        fusable = (
            backend.backend() == "tensorflow"
            and len(inputs.shape) == 4
            and self.axis in (-1, 3)
            and self.scale
            and self.center
            and mask is None
            and self.variable_dtype == "float32"
            and self.compute_dtype != "float64"
            and not self.synchronized
            and not self.renorm
        )
        if not fusable:
            return super().call(inputs, training=training, mask=mask)
        return self._fused(inputs, training=bool(training and self.trainable))

    def _fused(self, inputs: Any, training: bool) -> Any:
        import tensorflow as tf

        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=self.gamma,
            offset=self.beta,
            mean=[] if training else self.moving_mean,
            variance=[] if training else self.moving_variance,
            epsilon=self.epsilon,
            is_training=training,
        )
        if training:
            # The op returns the unbiased variance; Keras averages the biased one.
            count = tf.cast(tf.size(inputs) // tf.shape(inputs)[-1], "float32")
            variance *= (count - 1) / count
            for moving, value in (
                (self.moving_mean, mean),
                (self.moving_variance, variance),
            ):
                moving.assign(moving * self.momentum + value * (1 - self.momentum))
        return outputs
