"""An embedding that updates only the rows that occur in a batch."""

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

# On JAX, the function that records the look-ups of a training step.
_TAPPED = contextvars.ContextVar("tapped", default=None)


@register
class RowwiseEmbedding(keras.layers.Layer):
    """An embedding whose training step updates only the rows in the batch.

    The gradient of `keras.layers.Embedding` is as large as its table on JAX and
    PyTorch, and with most of Keras's optimisers also on TensorFlow. So the cost of a
    training step is proportional to the size of the table, even if a batch contains few
    of its rows. This layer updates only the rows in the batch, during the backward
    pass, with row-wise Adagrad:

    ```python
    sum_of_squares[row] += mean(gradient[row] ** 2)
    table[row] -= learning_rate * gradient[row] / (sqrt(sum_of_squares[row]) + epsilon)
    ```

    The optimiser of the model trains the other layers. On JAX, the layer works only in
    a `kerasoft.output_layers.Classifier`; in another model, training raises an error.
    The layer uses the gradient of the scaled loss, so a `LossScaleOptimizer` (float16)
    changes its steps.

    Args:
        input_dim: Positive integer, how many rows there are.
        output_dim: Positive integer, the size of a row.
        learning_rate: Positive float, or a schedule of `keras.optimizers.schedules`,
            which is evaluated at the layer's number of updates: one for each look-up of
            a training step.
        epsilon: Positive float.
        embeddings_initializer: Initialiser of the table.
        **kwargs: Base layer keyword arguments, such as `name` and `dtype`.

    Call arguments:
        inputs: Integer tensor of any shape, indices of rows.
        training: Boolean, whether the layer is in training.

    Returns:
        Float tensor of shape `(*inputs.shape, output_dim)`.

    Raises:
        ValueError: If an argument is not as described above, or the layer is built
            under a strategy with several replicas.
        RuntimeError: If it is trained on JAX outside a `Classifier`.

    Reference:
        [Duchi et al., 2011](https://jmlr.org/papers/v12/duchi11a.html), for Adagrad;
        [Naumov et al., 2019](https://arxiv.org/abs/1906.00091), for the single
        sum of squares per row.

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
            # Otherwise each call would cast the whole table to half precision.
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
        # A trainable weight, so that backpropagation reaches this layer. It is
        # multiplied by 0, and does not change.
        self.anchor = add("anchor", (), trainable=True)

    def call(self, inputs: Tensor, training: bool | None = False) -> Tensor:
        ids = ops.cast(inputs, "int32")
        rows = rows_at(self.embeddings, ids)
        if training and self.trainable:
            rows = self._with_update(ids, rows)
        return ops.cast(rows, self.compute_dtype)

    def compute_output_spec(self, inputs: Any, **kwargs: Any) -> Any:
        shape = (*inputs.shape, self.output_dim)
        return keras.KerasTensor(shape, self.compute_dtype)

    def _with_update(self, ids, rows):
        """The rows, which are updated when their gradient is computed."""
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
                # The look-up is a copy, not a view, so the rows do not share memory
                # with the table.
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
                        "`kerasoft.output_layers.Classifier`. Use that model, or "
                        f"`keras.layers.Embedding`. Received: {self.name}"
                    )
                return rows
            case _:
                return rows

    def update(self, ids: Tensor, slopes: Tensor) -> None:
        """Takes a step of row-wise Adagrad.

        Args:
            ids: Integer tensor, indices of rows, which may repeat.
            slopes: Float tensor of shape `(*ids.shape, output_dim)`, the gradient of
                these rows.
        """
        ids = ops.reshape(ids, (-1,))
        if ids.shape[0] == 0:
            return  # Keras's sums over segments need one
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
    """Sums the gradients of equal ids; the results are padded with 0."""
    count = ops.shape(ids)[0]
    order = ops.argsort(ids)
    rising = ops.take(ids, order)
    new = ops.not_equal(rising[1:], rising[:-1])
    place = ops.cumsum(ops.pad(ops.cast(new, "int32"), [[1, 0]]))[:count]
    sums = ops.segment_sum(ops.take(slopes, order, axis=0), place, count)
    of_place = ops.segment_max(rising, place, count)
    return ops.maximum(of_place, 0), sums


def with_updates(
    compute: Callable[[list], tuple[Tensor, tuple]], model: keras.Model, weights: list
) -> tuple[Tensor, tuple]:
    """The loss of a training step on JAX, which also updates the embeddings' rows.

    JAX's functions have no side effects, so an embedding cannot be updated during
    backpropagation. Instead, the forward pass computes the loss and all of its
    gradients, updates the rows with theirs, and saves the others for the backward pass.

    Args:
        compute: A function of the trainable weights that returns the loss and the other
            results for Keras's trainer, the third of which are the values of the
            non-trainable weights.
        model: The model, with its embeddings.
        weights: The values of the trainable weights.
    """
    layers = [x for x in model._flatten_layers() if isinstance(x, RowwiseEmbedding)]
    if not layers:
        return compute(weights)
    import jax

    layers_called: list[RowwiseEmbedding] = []

    def tapped(weights, taps):
        """The loss with `taps`, zeros that have gradients, added to each look-up."""
        layers_called.clear()
        seen = []

        def tap(layer, ids, rows):
            layers_called.append(layer)
            seen.append((ids, rows))
            return rows if taps is None else rows + taps[len(layers_called) - 1]

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
            for layer, (ids, _), slope in zip(
                layers_called, seen, by_rows, strict=True
            ):
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
