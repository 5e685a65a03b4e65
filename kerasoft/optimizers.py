"""Keras's SGD and Muon, faster for networks with many small variables."""

import re
from typing import Any

import keras
from keras import backend, ops

from kerasoft.ops import Tensor

register = keras.saving.register_keras_serializable(package="kerasoft")


@register
class SGD(keras.optimizers.SGD):
    """`keras.optimizers.SGD`, with one op per variable on TensorFlow.

    It has the same arguments, state and results as Keras's optimiser. On the TensorFlow
    backend, one op updates a momentum and its variable, and a learning-rate schedule is
    evaluated once per step; Keras evaluates it again for the weight decay of every
    variable.

    Args:
        *args: The arguments of `keras.optimizers.SGD`.
        **kwargs: The same, by name.

    Example:

    >>> kernel = keras.Variable([1.0, 2.0])
    >>> optimizer = SGD(0.1, momentum=0.9, nesterov=True)
    >>> optimizer.apply([np.array([1.0, 1.0], "float32")], [kernel])
    >>> print(np.round(kernel.numpy(), 3))
    [0.81 1.81]
    """

    @property
    def _fused(self):
        if backend.backend() != "tensorflow" or not self.momentum:
            return False
        import tensorflow as tf

        return tf.distribute.get_strategy().num_replicas_in_sync == 1

    def _apply_weight_decay(self, variables):
        if not self._fused:  # otherwise `update_step` applies it
            super()._apply_weight_decay(variables)

    def update_step(
        self, gradient: Tensor, variable: Any, learning_rate: Tensor
    ) -> None:
        if not self._fused:
            super().update_step(gradient, variable, learning_rate)
            return
        import tensorflow as tf

        rate = tf.cast(learning_rate, variable.dtype)
        if self.weight_decay is not None and self._use_weight_decay(variable):
            variable.assign_sub(variable * (rate * self.weight_decay))
        momentum = self.momentums[self._get_variable_index(variable)]
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=variable.handle,
            accum=momentum.value.handle,
            lr=rate,
            grad=tf.convert_to_tensor(gradient, variable.dtype),
            momentum=tf.cast(self.momentum, variable.dtype),
            use_nesterov=self.nesterov,
        )


@register
class Muon(keras.optimizers.Muon):
    """`keras.optimizers.Muon`, which treats the kernels of convolutions as matrices.

    Keras's optimiser uses AdamW for every variable that is not a matrix, which is
    nearly all of a convolutional network. Here a kernel of shape `(height, width,
    inputs, outputs)` is treated as a matrix of shape `(height * width * inputs,
    outputs)`, and the Newton-Schulz steps use its smaller dimension.

    Args:
        *args: The arguments of `keras.optimizers.Muon`.
        **kwargs: The same, by name.

    Reference:
        [Jordan et al., 2024](https://kellerjordan.github.io/posts/muon/), and
        [Liu et al., 2025](https://arxiv.org/abs/2502.16982), equation 4, for the scale.

    Example:

    >>> kernel = keras.Variable(np.zeros((3, 3, 8, 4), "float32"))
    >>> optimizer = Muon(learning_rate=0.1, weight_decay=None)
    >>> optimizer.apply([np.ones((3, 3, 8, 4), "float32")], [kernel])
    >>> bool(np.all(kernel.numpy() < 0))
    True
    """

    def _should_use_adamw(self, variable):
        if len(variable.shape) != 4:
            return super()._should_use_adamw(variable)
        return any(re.search(name, variable.path) for name in self.exclude_layers)

    def _apply_weight_decay(self, variables):
        rate = self.learning_rate  # Keras evaluates the schedule for each variable
        for variable in variables:
            adamw = self._should_use_adamw(variable)
            decay = self.adam_weight_decay if adamw else self.weight_decay
            if decay and self._use_weight_decay(variable):
                kept = 1 - ops.cast(rate, variable.dtype) * decay
                variable.assign(variable * kept)

    def zeropower_via_newtonschulz5(self, x: Tensor, steps: int) -> Tensor:
        # Each step multiplies by a polynomial of the Gram matrix of the smaller side.
        # So the steps compute their product, which multiplies the far larger x once.
        matrix = ops.reshape(x, (-1, x.shape[-1]))
        tall = matrix.shape[0] > matrix.shape[1]
        matrix = matrix / (ops.norm(matrix) + 1e-7)
        turned = ops.transpose(matrix)
        gram = turned @ matrix if tall else matrix @ turned
        identity = ops.eye(gram.shape[0], dtype=gram.dtype)
        product = identity
        for _ in range(steps):
            inner = self.muon_b * identity + self.muon_c * gram
            polynomial = self.muon_a * identity + gram @ inner
            product = polynomial @ product
            gram = polynomial @ gram @ polynomial
        matrix = matrix @ product if tall else product @ matrix
        return ops.reshape(matrix, x.shape)

    def lr_adjust(self, x: Tensor) -> Tensor:
        matrix = ops.reshape(x, (-1, x.shape[-1]))
        return ops.reshape(super().lr_adjust(matrix), x.shape)
