"""A layer whose training step costs the same for any number of classes."""

import math
import warnings
from typing import Any

import keras
import numpy as np
from keras import ops

from kerasoft import _keras, heads
from kerasoft.losses import raise_unless
from kerasoft.ops import LOWEST, Tensor
from kerasoft.output_layers import factors
from kerasoft.output_layers.base import (
    OutputLayer,
    best_of,
    no_best,
    register,
    sample_of,
)
from kerasoft.output_layers.crossentropy import Outcome
from kerasoft.output_layers.loops import (
    map_rows,
    times_transposed,
    value_and_gradient,
    when,
    with_gradients,
)
from kerasoft.rows import add_at, rows_at
from kerasoft.schedules import LearningRate, checked_rate, rate_at, rate_config

TOLERANCE = 0.01  # the maximum error of `inverse`


@register
class FactoredOutput(OutputLayer):
    """Spherical losses at a cost that does not depend on the number of classes.

    The losses of the heads `z_loss`, `spherical_softmax` and `taylor_softmax` depend on
    the logits `o = W h` of a row of features `h` by three numbers: the sum of their
    squares, their sum, and the logit of the label. With `Q = transpose(W) @ W` and
    `w = sum(W)`, these are `h @ Q @ h`, `w @ h` and `W[label] @ h`. A step of
    stochastic gradient descent changes all of `W`, to

    ```python
    W_new = W @ M - rate * ones * transpose(b) + G
    ```

    where the matrix `M` and the vector `b` have the size of the features, and only the
    labels' rows of `G` are not 0. The layer stores `W` as `V @ U + ones *
    transpose(c)`, and also `Q`, `w` and the inverse of `U`. So a step changes only
    these, `c`, and the labels' rows of `V`. The loss, its gradients and the weights
    after the step are exact, and a step costs about `batch * dim**2`, for any number of
    classes.

    Therefore the layer updates its own weights during the training step, by plain
    stochastic gradient descent on the mean loss, with its own learning rate. None of
    its weights is trainable. The optimiser of the model trains the layers before it,
    with the exact gradient of the features.

    Rounding errors accumulate in `Q` and `U`. So after `refactor_every` steps, or when
    `U` is no longer well conditioned, the layer sets `V` to `W`, which takes about
    `2 * num_classes * dim**2` multiplications.

    Evaluation and prediction compute all classes in blocks, so errors of `Q` do not
    affect them. Training does not compute the rank of a label nor, with `z_loss`, its
    probability, so `Classifier` reports fewer metrics. Predictions of `z_loss` have
    `scores` instead of `log_probabilities`.

    Args:
        num_classes: Integer, at least 2.
        head: `"z_loss"`, `"spherical_softmax"`, `"taylor_softmax"`, or a head of one of
            these types.
        learning_rate: Positive float, or a schedule of `keras.optimizers.schedules`,
            which is evaluated at the layer's number of training steps.
        weight_decay: Float. Each step multiplies all weights and biases by
            `1 - learning_rate * weight_decay`.
        refactor_every: Positive integer, the number of steps after which the layer
            recomputes `V`.
        use_bias: Boolean, whether the classes have biases, which are weights of an
            additional feature that is always 1.
        kernel_initializer: Initialiser of the weights of the classes. By default their
            variance is `1 / dim`, so that features of magnitude 1 give logits of
            magnitude 1.
        **kwargs: Keyword arguments of `OutputLayer`.

    Raises:
        ValueError: If an argument is not as described above, and as in `OutputLayer`.
            Also in training (on TensorFlow as an `InvalidArgumentError`), if the
            learning rate is so large that a step would make `U` singular; where values
            cannot be checked, the loss is NaN and the weights do not change.

    Reference:
        [Vincent et al., 2015](https://arxiv.org/abs/1412.7091), for the factored form;
        [de Brébisson and Vincent, 2016](https://arxiv.org/abs/1604.08859), for the
        Z-loss.

    Example:

    >>> layer = output_layers.FactoredOutput(1000, "spherical_softmax")
    >>> model = output_layers.Classifier(keras.layers.Dense(16), layer)
    >>> model.compile("adam")
    >>> history = model.fit(np.ones((8, 4)), np.arange(8), verbose=0).history
    >>> sorted(history)
    ['loss', 'nll']
    """

    def __init__(
        self,
        num_classes: int,
        head: "str | heads.Head" = "z_loss",
        learning_rate: LearningRate = 0.1,
        weight_decay: float = 0.0,
        refactor_every: int = 1000,
        use_bias: bool = True,
        kernel_initializer: Any = None,
        **kwargs: Any,
    ):
        if kernel_initializer is None:
            kernel_initializer = keras.initializers.VarianceScaling(mode="fan_out")
        super().__init__(num_classes, use_bias, kernel_initializer, **kwargs)
        if num_classes < 2:
            raise ValueError(
                "There must be at least 2 classes, because with one the loss is "
                "constant. "
                f"Received: num_classes={num_classes}"
            )
        if isinstance(head, dict):
            head = keras.saving.deserialize_keras_object(head)
        found = heads.find(head)
        if not isinstance(found, heads.SphericalHead) or found.axis != -1:
            kind = heads.SphericalHead
            names = (k for k, v in heads.HEADS.items() if issubclass(v, kind))
            raise ValueError(
                f"`head` must be one of {', '.join(names)}, with axis=-1; use "
                f"`ChunkedOutput` for other heads. Received: head={head!r}"
            )
        self.head = found
        self.learning_rate = checked_rate(learning_rate)
        if not weight_decay >= 0:
            raise ValueError(
                f"`weight_decay` must be at least 0. Received: {weight_decay}"
            )
        if not isinstance(refactor_every, int) or refactor_every < 1:
            raise ValueError(
                "`refactor_every` must be a positive integer. "
                f"Received: refactor_every={refactor_every!r}"
            )
        self.weight_decay = float(weight_decay)
        self.refactor_every = refactor_every

    # Weights

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        _keras.check_one_replica(self)
        self.head.build((None, self.num_classes))  # or Keras builds it at each batch
        dim = self.dim + self.use_bias
        if dim > self.num_classes:
            warnings.warn(
                f"With {dim} features over {self.num_classes} classes, a factored "
                "layer costs more than a dense one; use `ChunkedOutput` instead.",
                stacklevel=2,
            )

        def factor(shape, dtype=None):
            kernel = self.kernel_initializer((self.num_classes, self.dim), dtype)
            return ops.pad(kernel, [[0, 0], [0, shape[1] - self.dim]])

        def add(name, shape, initializer, dtype="float32"):
            return self.add_weight(
                shape, initializer, dtype, trainable=False, name=name
            )

        # W = factor @ right + ones * transpose(common)
        self.factor = add("factor", (self.num_classes, dim), factor)
        self.right = add("right", (dim, dim), "identity")
        self.inverse = add("inverse", (dim, dim), "identity")
        self.common = add("common", (dim,), "zeros")

        def at_start(i):
            return lambda *_, **__: factors.moments(self.factor.value)[i]

        # transpose(W) @ W, and the sum of the rows of W
        self.squares = add("squares", (dim, dim), at_start(0))
        self.total = add("total", (dim,), at_start(1))
        self.step = add("step", (), "zeros", "int32")
        self.refactored = add("refactored", (), "zeros", "int32")  # at which step

    def refactor(self) -> None:
        """Sets `factor` to `W`, `right` to the identity, and recomputes `Q` and `w`."""
        right, common = ops.copy(self.right), ops.copy(self.common)
        map_rows(lambda rows: rows @ right + common, self.factor, factors.ROWS)
        for variable in (self.right, self.inverse):
            variable.assign(ops.eye(variable.shape[0]))
        self.common.assign(ops.zeros_like(common))
        squares, total = factors.moments(self.factor.value)
        self.squares.assign(squares)
        self.total.assign(total)
        self.refactored.assign(self.step + 0)  # a copy: JAX may not share memory

    def dense_weights(self) -> tuple[np.ndarray, np.ndarray]:
        """The weights of a dense layer that gives the same logits.

        Returns:
            Arrays of shape `(dim, num_classes)` and `(num_classes,)`, as
            `keras.layers.Dense` has them.
        """
        factor, right, common = map(
            ops.convert_to_numpy, (self.factor, self.right, self.common)
        )
        kernel = factor @ right + common
        if self.use_bias:
            return kernel[:, :-1].T, kernel[:, -1]
        return kernel.T, np.zeros(self.num_classes, "float32")

    # Training

    def outcome(
        self, features: Tensor, labels: Tensor, weights: Tensor, training: bool
    ) -> Outcome:
        if not training:
            return self._over_all_classes(features, labels, weights)
        rows = rows_at(self.factor, labels)
        # Copies, because PyTorch's backpropagation must not see later assignments.
        right, squares, total = map(ops.copy, (self.right, self.squares, self.total))
        own = rows @ right + ops.copy(self.common)

        def compute(h, weights, gradients):
            h = self._with_one(h)
            product = h @ squares
            sums = ops.stack(
                [
                    ops.sum(h * product, axis=-1),
                    ops.squeeze(h @ total[:, None], -1),
                    ops.sum(h * own, axis=-1),
                ]
            )

            def of(sums):
                loss = self.head.loss_of_sums(*ops.unstack(sums, 3), self.num_classes)
                return ops.sum(loss * weights), loss

            found, loss, slopes = value_and_gradient(of, sums)
            loss = ops.stop_gradient(loss)
            by_sums = ops.stop_gradient(slopes)[..., None]
            by_h = 2 * by_sums[0] * product + by_sums[1] * total + by_sums[2] * own
            gradient = (by_h[:, : self.dim], loss) if gradients else ()
            return found, (loss, slopes, product), gradient

        found, (loss, slopes, product) = with_gradients(
            compute, (features, weights), training
        )
        h = self._with_one(ops.stop_gradient(features))
        if self.trainable:
            valid = self._update(h, ops.cast(labels, "int32"), own, product, slopes)
            found = found + ops.where(valid, 0.0, math.nan)
        return Outcome(found, loss if self._has_probabilities else None, None)

    def _update(self, h, labels, own, product, slopes):
        """Takes a step of gradient descent if possible; returns whether it was."""
        rate = rate_at(self.learning_rate, self.step)
        variables = self.right, self.inverse, self.common, self.squares, self.total
        old = factors.Factors(*map(ops.convert_to_tensor, variables))
        new, added = factors.after_step(
            old,
            factors.Step(h, labels, own, product, slopes),
            rate,
            1 - rate * self.weight_decay,
            float(self.num_classes),
        )
        off = factors.error_of_inverse(new)
        valid = off < TOLERANCE
        says = (
            "The training step failed: the learning rate of the output layer is too "
            "large for these features. Lower it, or normalise the features. Received: "
            "learning_rate="
        )
        valid = raise_unless(valid, says, ops.convert_to_tensor(rate))
        add_at(self.factor, labels, ops.where(valid, added, 0.0))
        for variable, before, after in zip(variables, old, new, strict=True):
            variable.assign(ops.where(valid, after, before))
        self.step.assign_add(1)
        due = self.step - self.refactored >= self.refactor_every
        when(
            ops.logical_and(valid, ops.logical_or(due, off > TOLERANCE / 10)),
            self.refactor,
            self.non_trainable_weights,
        )
        return valid

    def _with_one(self, features):
        """Features with an additional feature of 1 if there are biases."""
        if not self.use_bias:
            return features
        return ops.concatenate([features, ops.ones_like(features[:, :1])], axis=-1)

    # Evaluation and prediction, over blocks of classes

    @property
    def _has_probabilities(self) -> bool:
        return self.head.outputs != "scores"

    def _factors(self, features):
        """The factor and the summand that turn rows of `factor` into logits."""
        h = self._with_one(ops.cast(features, "float32"))
        common = h @ ops.convert_to_tensor(self.common)[:, None]
        return times_transposed(h, ops.convert_to_tensor(self.right)), common

    def _order(self, logits):
        """A value that orders the classes of a row like their scores."""
        n = self.num_classes
        return self.head.score_of_sums(float(n), 0.0, logits, n)

    def _over_all_classes(self, features, labels, weights) -> Outcome:
        labels = ops.cast(labels, "int32")
        logits = self._logits(features, labels[:, None])
        own = self._order(logits)

        def step(start, block, seen, carry):
            order = self._order(block)
            return (carry[0] + factors.ahead_of(order, own, seen, start, labels),)

        (ahead,), sums = self._fold_classes(features, step, (ops.zeros_like(own),))
        loss = self.head.loss_of_sums(*sums, logits, self.num_classes)[:, 0]
        nll = loss if self._has_probabilities else None
        return Outcome(ops.sum(loss * weights), nll, ahead[:, 0])

    def _fold_classes(self, features, step, carry):
        """`fold_logits` over all classes, for features of shape `(batch, dim)`."""
        h, common = self._factors(features)
        block = self.block_size(ops.shape(features)[0])
        return factors.fold_logits(h, self.factor.value, common, block, step, carry)

    def _logits(self, features, classes):
        """The logits of some classes of each row, of the shape of `classes`."""
        h, common = self._factors(features)
        rows = rows_at(self.factor, classes)
        return ops.squeeze(rows @ h[..., None], -1) + common

    @property
    def value_name(self) -> str:
        return "log_probabilities" if self._has_probabilities else "scores"

    def likeliest(self, features: Tensor, k: int) -> tuple[Tensor, Tensor]:
        features = ops.cast(features, "float32")

        def step(start, logits, seen, carry):
            order = ops.where(seen, LOWEST, self._order(logits))
            best, where = ops.top_k(order, min(k, logits.shape[-1]))
            places = ops.cast(where, "int32") + start
            return best_of((carry[0], best), (carry[1], places), k)

        (_, classes), sums = self._fold_classes(features, step, no_best(features, k))
        logits = self._logits(features, classes)
        return self.head.score_of_sums(*sums, logits, self.num_classes), classes

    def scores(self, features: Tensor, classes: Tensor) -> Tensor:
        """The log-probabilities of given classes, or their scores with `z_loss`.

        Args:
            features: Float tensor of shape `(batch, dim)`.
            classes: Integer tensor of shape `(batch, count)`.
        """
        _, sums = self._fold_classes(features, lambda *_: (), ())
        logits = self._logits(features, ops.convert_to_tensor(classes))
        return self.head.score_of_sums(*sums, logits, self.num_classes)

    def log_probabilities(self, features: Tensor, classes: Tensor) -> Tensor:
        self._check_probabilities()
        return self.scores(features, classes)

    def draw(self, features: Tensor, seed: Any) -> Tensor:
        self._check_probabilities()
        h, common = self._factors(features)
        block = self.block_size(ops.shape(features)[0])
        return sample_of(
            h,
            self.factor.value,
            None,
            seed.next(),
            block,
            lambda logits: self._order(logits + common),
        )

    def _check_probabilities(self):
        if not self._has_probabilities:
            raise ValueError(
                "This head returns scores, which are not probabilities; use the method "
                f"`scores`. Received: head={self.head!r}"
            )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "head": keras.saving.serialize_keras_object(self.head),
            "learning_rate": rate_config(self.learning_rate),
            "weight_decay": self.weight_decay,
            "refactor_every": self.refactor_every,
        }
