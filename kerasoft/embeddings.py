"""An embedding whose rows are updated as rows."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import backend, ops

from kerasoft import _keras
from kerasoft.losses import register
from kerasoft.ops import Tensor
from kerasoft.rows import add_at, rows_at
from kerasoft.schedules import LearningRate, checked_rate, rate_at, rate_config

# On JAX, what the embeddings of a step of training meet.
_TAPPED = contextvars.ContextVar("tapped", default=None)


@register
class RowwiseEmbedding(keras.layers.Layer):
    """An embedding that trains itself: a step costs as much as the rows it meets.

    The gradient of `keras.layers.Embedding` is as large as its table on JAX and
    PyTorch, and on TensorFlow most of Keras's optimisers make it so: a step of training
    then costs as much as there are rows, however few of them a batch meets. This layer
    updates the rows that a batch meets, in the backward pass, by row-wise Adagrad:

    ```python
    sum_of_squares[row] += mean(gradient[row] ** 2)
    table[row] -= learning_rate * gradient[row] / (sqrt(sum_of_squares[row]) + epsilon)
    ```

    The optimiser that the model is compiled with trains the other layers. On JAX, a row
    is updated where the model is a `kerasoft.output_layers.Classifier`; in another
    model, training raises an error. The gradient is that of the loss as it is scaled:
    a `LossScaleOptimizer` (float16) changes the steps.

    Args:
        input_dim: Positive integer, how many rows there are.
        output_dim: Positive integer, the size of a row.
        learning_rate: Positive float, or a `keras.optimizers.schedules` schedule, which
            is evaluated at the number of training steps that the layer has taken.
        epsilon: Positive float.
        embeddings_initializer: Initialiser of the table.
        **kwargs: Base layer keyword arguments, such as `name` and `dtype`.

    Call arguments:
        inputs: Integer tensor of any shape, numbers of rows.
        training: Boolean, whether the layer is in training.

    Returns:
        Float tensor of the shape of `inputs` and `output_dim`.

    Raises:
        ValueError: If an argument is not as told above, or the layer is built under a
            strategy of several replicas, each of which would need the others' rows.
        RuntimeError: If it is trained on JAX outside a `Classifier`.

    Reference:
        [Duchi et al., 2011](https://jmlr.org/papers/v12/duchi11a.html), for Adagrad;
        [Naumov et al., 2019](https://arxiv.org/abs/1906.00091), for one sum a row.

    Example:

    >>> layer = RowwiseEmbedding(1_000, 8)
    >>> layer(np.array([[3, 5, 3]])).shape == (1, 3, 8)
    True
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        learning_rate: LearningRate = 0.1,
        epsilon: float = 1e-7,
        embeddings_initializer: Any = "uniform",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        for name, value in (("input_dim", input_dim), ("output_dim", output_dim)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(
                    f"`{name}` must be a positive integer. Received: {name}={value!r}"
                )
        if not epsilon > 0:
            raise ValueError(f"`epsilon` must be positive. Received: {epsilon}")
        self.input_dim, self.output_dim = input_dim, output_dim
        self.learning_rate = checked_rate(learning_rate)
        self.epsilon = epsilon
        self.embeddings_initializer = keras.initializers.get(embeddings_initializer)

    def build(self, input_shape: Any) -> None:
        _keras.check_one_replica(self)

        def add(name, shape, initializer="zeros", dtype="float32", trainable=False):
            # Not cast to a half precision, as a whole, at each call.
            return self.add_weight(
                shape,
                initializer,
                dtype,
                trainable=trainable,
                autocast=False,
                name=name,
            )

        shape = (self.input_dim, self.output_dim)
        self.embeddings = add("embeddings", shape, self.embeddings_initializer)
        self.sum_of_squares = add("sum_of_squares", (self.input_dim,))
        self.step = add("step", (), dtype="int32")
        # What backpropagation comes through, where it must come through a weight. It
        # is multiplied by 0, and stays what it is.
        self.anchor = add("anchor", (), trainable=True)

    def call(self, inputs: Tensor, training: bool | None = False) -> Tensor:
        ids = ops.cast(inputs, "int32")
        rows = rows_at(self.embeddings, ids)
        if training:
            rows = self._with_update(ids, rows)
        return ops.cast(rows, self.compute_dtype)

    def compute_output_spec(self, inputs: Any, **kwargs: Any) -> Any:
        shape = (*inputs.shape, self.output_dim)
        return keras.KerasTensor(shape, self.compute_dtype)

    def _with_update(self, ids, rows):
        """The rows, which are updated as soon as their gradient is known."""
        match backend.backend():
            case "tensorflow":
                import tensorflow as tf

                @tf.custom_gradient
                def anchored(anchor):
                    def backward(slopes):
                        self.update(ids, slopes)
                        return tf.zeros_like(anchor)

                    return tf.identity(rows), backward

                return anchored(tf.convert_to_tensor(self.anchor.value))
            case "torch":
                import torch

                if not torch.is_grad_enabled():
                    return rows
                # PyTorch's `detach` shares memory with the table's rows only if the
                # look-up is a view, which it is not.
                rows = rows.detach().requires_grad_()

                def hook(slopes):
                    with torch.no_grad():
                        self.update(ids, slopes)

                rows.register_hook(hook)
                return rows + 0 * self.anchor.value
            case "jax":
                import jax.core

                tapped = _TAPPED.get()
                if tapped is not None:
                    return tapped(self, ids, rows)
                if isinstance(rows, jax.core.Tracer) and not _keras.in_symbolic_scope():
                    raise RuntimeError(
                        "On JAX, a `RowwiseEmbedding` is trained by the `fit` of a "
                        "`kerasoft.output_layers.Classifier`. Make the model one, or "
                        f"use `keras.layers.Embedding`. Received: {self.name}"
                    )
                return rows
            case _:
                return rows

    def update(self, ids: Tensor, slopes: Tensor) -> None:
        """Makes a step of row-wise Adagrad.

        Args:
            ids: Integer tensor, numbers of rows, which may repeat.
            slopes: Float tensor of the shape of `ids` and `output_dim`, the gradient of
                what was looked up there.
        """
        ids = ops.reshape(ids, (-1,))
        slopes = ops.reshape(ops.cast(slopes, "float32"), (-1, self.output_dim))
        ids, slopes = _summed_by_row(ids, slopes)
        more = ops.mean(slopes * slopes, axis=-1)
        total = rows_at(self.sum_of_squares, ids) + more
        rate = rate_at(self.learning_rate, self.step)
        scale = -rate / (ops.sqrt(total) + self.epsilon)
        add_at(self.sum_of_squares, ids, more)
        add_at(self.embeddings, ids, scale[:, None] * slopes)
        self.step.assign_add(1)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "input_dim": self.input_dim,
            "output_dim": self.output_dim,
            "learning_rate": rate_config(self.learning_rate),
            "epsilon": self.epsilon,
            "embeddings_initializer": keras.initializers.serialize(
                self.embeddings_initializer
            ),
        }


def _summed_by_row(ids, slopes):
    """The gradients of one row summed: as many ids and gradients, some of them 0."""
    count = ops.shape(ids)[0]
    order = ops.argsort(ids)
    rising = ops.take(ids, order)
    new = ops.not_equal(rising[1:], rising[:-1])
    place = ops.cumsum(ops.pad(ops.cast(new, "int32"), [[1, 0]]))
    sums = ops.segment_sum(ops.take(slopes, order, axis=0), place, count)
    of_place = ops.segment_max(rising, place, count)
    return ops.maximum(of_place, 0), sums


def with_updates(
    compute: Callable[[list], tuple[Tensor, tuple]], model: keras.Model, weights: list
) -> tuple[Tensor, tuple]:
    """The loss of a step of training on JAX, with the rows of embeddings updated.

    JAX's functions have no side effects, so what backpropagation tells an embedding
    cannot be used while it runs. Here the loss and all of its gradients are computed
    on the way forward, those of the rows are used, and the others kept for the way
    back.

    Args:
        compute: From the trainable weights to the loss and what else Keras's trainer
            wants, of which the third part are the values of the weights that are not
            trainable.
        model: The model, with its embeddings.
        weights: The values of the trainable weights.
    """
    layers = [x for x in model._flatten_layers() if isinstance(x, RowwiseEmbedding)]
    if not layers:
        return compute(weights)
    import jax

    met: list[RowwiseEmbedding] = []

    def tapped(weights, taps):
        """The loss, given what is added to each look-up: zeros, which have gradients"""
        met.clear()
        seen = []

        def tap(layer, ids, rows):
            met.append(layer)
            seen.append((ids, rows))
            return rows if taps is None else rows + taps[len(met) - 1]

        with _tapping(tap):
            loss, others = compute(weights)
        return loss, (others, seen)

    def forward(weights):
        _, (_, seen) = jax.eval_shape(lambda weights: tapped(weights, None), weights)
        taps = [ops.zeros(rows.shape, rows.dtype) for _, rows in seen]
        (loss, (others, seen)), (slopes, by_rows) = jax.value_and_grad(
            tapped, argnums=(0, 1), has_aux=True
        )(weights, taps)
        variables = model.non_trainable_variables
        scope = keras.StatelessScope(zip(variables, others[2], strict=True))
        with scope:
            for layer, (ids, _), slope in zip(met, seen, by_rows, strict=True):
                layer.update(ids, slope)
        updated = [scope.get_current_value(v) for v in variables]
        return (loss, (*others[:2], updated, *others[3:])), slopes

    @jax.custom_vjp
    def run(weights):
        return forward(weights)[0]

    def backward(slopes, upstream):
        return (jax.tree.map(lambda slope: upstream[0] * slope, slopes),)

    run.defvjp(forward, backward)
    return run(weights)


@contextlib.contextmanager
def _tapping(tap) -> Iterator[None]:
    token = _TAPPED.set(tap)
    try:
        yield
    finally:
        _TAPPED.reset(token)
