"""Sequential loops, and gradients that are computed in the forward pass.

An output layer never holds the logits of a whole batch. It processes the batch in
chunks, and accumulates their loss and gradients. This module has one interface for all
backends.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import backend, ops

from kerasoft.ops import TINY, Tensor
from kerasoft.rows import rows_of, set_rows

ONCE = "An output layer has no second derivatives on this backend."


def fold(
    step: Callable[[Any, tuple], tuple], count: Any, carry: Sequence[Any]
) -> tuple:
    """Runs a step for 0, 1, ..., count - 1, sequentially.

    The tensors of a step are freed before the next step begins, which limits the memory
    of an output layer. (`keras.ops.while_loop` runs up to ten steps in parallel on
    TensorFlow.)

    Args:
        step: A function of the number of the step and the carried state, that returns
            the new state.
        count: Integer or scalar tensor, how many steps.
        carry: The initial state, tensors or tuples of them.

    Returns:
        The final state.
    """
    state: tuple = tuple(carry)
    match backend.backend():
        case "tensorflow":
            import tensorflow as tf

            _, state = tf.while_loop(
                lambda i, _: i < count,
                lambda i, state: (i + 1, step(i, state)),
                (0, state),
                parallel_iterations=1,
            )
        case "jax":
            import jax

            state = jax.lax.fori_loop(0, count, step, state)
        case _:
            for i in range(int(count)):
                state = step(i, state)
    return state


def fold_rows(
    step: Callable[..., tuple[tuple, tuple]],
    arrays: Sequence[Tensor],
    rows: int,
    carry: tuple,
    outputs: Sequence[tuple],
    span: tuple[Any, Any] | None = None,
) -> tuple[tuple, tuple]:
    """Processes the rows of some tensors in chunks.

    Args:
        step: A function of the number of the chunk, the carried state, and the chunk of
            each array, that returns the new state and the outputs of the chunk's rows.
            The last chunk is padded with rows whose outputs are discarded.
        arrays: Tensors with the same number of rows.
        rows: The number of rows in a chunk.
        carry: The initial state.
        outputs: The shape of each output for one row.
        span: The first row to process and the number of rows, which may be scalar
            tensors; or `None` for all rows.

    Returns:
        The final state, and the outputs of all rows, in float32. Outputs outside the
        span are undefined.
    """
    batch = ops.shape(arrays[0])[0]
    start, count = (0, batch) if span is None else span
    chunks = (count + rows - 1) // rows
    if isinstance(chunks, int):
        chunks = max(chunks, 1)  # JAX traces a chunk, even where there are no rows
    length = chunks * rows if span is None else batch + rows
    arrays = [pad_rows(x, length) for x in arrays]
    results = tuple(ops.zeros((length, *shape), "float32") for shape in outputs)

    def chunk(i, carried):
        carry, results = carried
        at = start + i * rows
        carry, of_chunk = step(i, carry, *(rows_of(x, at, rows) for x in arrays))
        return carry, tuple(map(lambda x, y: set_rows(x, at, y), results, of_chunk))

    carry, results = fold(chunk, chunks, (carry, results))
    return carry, tuple(x[:batch] for x in results)


def with_gradients(
    compute: Callable[..., tuple[Tensor, tuple, tuple]],
    arguments: Sequence[Tensor],
    training: bool,
) -> tuple[Tensor, tuple]:
    """A scalar whose gradients are computed together with it, in the forward pass.

    They cannot be differentiated again: on TensorFlow and PyTorch, that is an error.

    Args:
        compute: A function of the arguments and of the keyword `gradients`, a boolean.
            It returns a scalar, a tuple of other results, and the gradients of the
            scalar with respect to the arguments (or an empty tuple).
        arguments: Float tensors.
        training: Whether gradients will be needed. If this is `False` and they are
            needed, `compute` runs a second time.

    Returns:
        The scalar, and the other results, which have no gradient.
    """
    match backend.backend():
        case "tensorflow":
            import tensorflow as tf

            @tf.custom_gradient
            def once(slope):
                def refuse(*_):
                    raise NotImplementedError(ONCE)

                return tf.identity(slope), refuse

            @tf.custom_gradient
            def run(*arguments):
                total, others, computed = compute(*arguments, gradients=training)

                def backward(upstream, *_):
                    slopes = computed or compute(*arguments, gradients=True)[2]
                    return [upstream * once(slope) for slope in slopes]

                return (total, *others), backward

            # As tensors, because TensorFlow treats variables differently here.
            total, *others = run(*map(tf.convert_to_tensor, arguments))
            return total, tuple(map(tf.stop_gradient, others))
        case "jax":
            import jax

            @jax.custom_vjp
            def run_jax(*arguments):
                total, others, _ = compute(*arguments, gradients=False)
                return total, others

            def forward(*arguments):
                total, others, slopes = compute(*arguments, gradients=True)
                return (total, others), slopes

            def backward(slopes, upstream):
                return tuple(upstream[0] * slope for slope in slopes)

            run_jax.defvjp(forward, backward)
            return run_jax(*map(ops.convert_to_tensor, arguments))
        case "torch":
            import torch

            class Once(torch.autograd.Function):
                @staticmethod
                def forward(ctx, slope, *arguments):
                    return slope.clone()

                @staticmethod
                def backward(ctx, *_):  # pyright: ignore
                    raise NotImplementedError(ONCE)

            class Run(torch.autograd.Function):
                @staticmethod
                def forward(ctx, *arguments):
                    wanted = any(ctx.needs_input_grad)
                    total, others, slopes = compute(*arguments, gradients=wanted)
                    ctx.save_for_backward(*slopes, *arguments)
                    ctx.mark_non_differentiable(*others)
                    return (total, *others)

                @staticmethod
                def backward(ctx, upstream, *_):  # pyright: ignore
                    count = len(ctx.saved_tensors) // 2
                    slopes = ctx.saved_tensors[:count]
                    if torch.is_grad_enabled():  # to differentiate this again
                        given = ctx.saved_tensors[count:]
                        slopes = [Once.apply(slope, *given) for slope in slopes]
                    return tuple(upstream * slope for slope in slopes)

            total, *others = Run.apply(*map(ops.convert_to_tensor, arguments))
            return total, tuple(others)
        case _:
            total, others, _ = compute(*arguments, gradients=False)
            return total, others


def pad_rows(x: Tensor, count: Any) -> Tensor:
    """A tensor padded with rows of zeros to `count` rows."""
    pad = [[0, count - ops.shape(x)[0]]] + [[0, 0]] * (len(x.shape) - 1)
    return ops.pad(x, pad)


def uniform(seed: Tensor, index: Any, shape: tuple) -> Tensor:
    """Uniform random numbers in (0, 1) that depend only on a seed and an index.

    Args:
        seed: A seed from `SeedGenerator.next`, two integers.
        index: Integer or scalar tensor, the number of the draw.
        shape: Tuple of integers.
    """
    match backend.backend():
        case "tensorflow":
            import tensorflow as tf

            pair = tf.cast(seed, "int32") + tf.stack([0, tf.cast(index, "int32") * 256])
            return tf.random.stateless_uniform(shape, pair, minval=TINY)
        case "jax":
            import jax

            key = jax.random.fold_in(jax.random.wrap_key_data(seed), index)
            return jax.random.uniform(key, shape, "float32", minval=TINY)
        case "torch":
            import torch

            mixed = index
            for part in seed.tolist():
                mixed = (mixed * 1_000_003 + int(part)) % 2**63
            generator = torch.Generator(seed.device)
            generator.manual_seed(mixed)
            options: dict = {"generator": generator, "device": seed.device}
            return torch.rand(shape, dtype=torch.float32, **options).clamp_min(TINY)
        case _:
            import numpy as np

            draws = np.random.default_rng([*np.asarray(seed).tolist(), index])
            return np.maximum(draws.random(shape, "float32"), TINY)


def gumbel_noise(seed: Tensor, index: Any, shape: tuple) -> Tensor:
    """Standard Gumbel noise that depends only on a seed and an index."""
    return -ops.log(-ops.log(uniform(seed, index, shape)))


def value_and_gradient(
    function: Callable[[Tensor], tuple[Tensor, Any]], x: Tensor
) -> tuple[Tensor, Any, Tensor]:
    """A scalar function's value, its other results, and its gradient.

    Args:
        function: A function of a tensor that returns a scalar and other results.
        x: Float tensor.
    """
    match backend.backend():
        case "tensorflow":
            import tensorflow as tf

            with tf.GradientTape() as tape:
                tape.watch(x)
                total, others = function(x)
            return total, others, tape.gradient(total, x)
        case "jax":
            import jax

            (total, others), slope = jax.value_and_grad(function, has_aux=True)(x)
            return total, others, slope
        case "torch":
            import torch

            with torch.enable_grad():
                x = x.detach().requires_grad_()
                total, others = function(x)
                (slope,) = torch.autograd.grad(total, x)
            return total.detach(), others, slope
        case name:
            raise NotImplementedError(f"The backend {name} cannot compute gradients.")


def map_rows(function: Callable[[Tensor], Tensor], variable: Any, block: int) -> None:
    """Applies a function to the rows of a variable, `block` rows at a time."""
    count = variable.shape[0]
    block = min(block, count)

    def mapped(i, matrix):
        # The last block starts earlier, so that it has the same size.
        start = ops.minimum(i * block, count - block)
        rows = rows_of(matrix, start, block)
        done = (start + ops.arange(block) < i * block)[:, None]
        return start, ops.where(done, rows, function(rows))

    if backend.backend() == "tensorflow":
        import tensorflow as tf

        def step(i, carry):
            start, rows = mapped(i, variable.value)
            where = start + tf.range(block)
            variable.value.scatter_update(tf.IndexedSlices(rows, where))
            return carry

        fold(step, -(-count // block), (0,))
        return
    values = variable.value.detach() if backend.backend() == "torch" else variable.value
    (matrix,) = fold(
        lambda i, carry: (set_rows(carry[0], *mapped(i, carry[0])),),
        -(-count // block),
        (values,),
    )
    variable.assign(matrix)


def when(
    condition: Tensor, function: Callable[[], None], variables: Sequence[Any]
) -> None:
    """Calls a function that assigns to variables if a condition is true."""
    match backend.backend():
        case "tensorflow":
            import tensorflow as tf

            def called():
                function()
                return 0

            tf.cond(condition, called, lambda: 0)
        case "jax":
            import jax

            def assigned(values):
                scope = keras.StatelessScope(zip(variables, values, strict=True))
                with scope:
                    function()
                return [scope.get_current_value(v) for v in variables]

            values = [v.value for v in variables]
            values = jax.lax.cond(condition, assigned, lambda values: values, values)
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
        case _:
            if condition:
                function()


def add_product(matrix: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """`matrix + transpose(a) @ b`; on PyTorch, in the memory of `matrix`."""
    match backend.backend():
        case "tensorflow":
            import tensorflow as tf

            return matrix + tf.matmul(a, b, transpose_a=True)
        case "torch":
            return matrix.addmm_(a.T, b)
        case _:
            return matrix + ops.transpose(a) @ b


def times_transposed(a: Tensor, b: Tensor) -> Tensor:
    """`a @ transpose(b)`, without a transposed copy."""
    if backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.matmul(a, b, transpose_b=True)
    return a @ ops.transpose(b)
