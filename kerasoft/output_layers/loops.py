"""Loops that run one step after the other, and gradients made on the way forward.

An output layer never holds the logits of a whole batch, so it works the batch off in
chunks, and takes from each what it adds to the loss and to the gradients. What the
backends do alike is said here once.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import backend, ops

from kerasoft.ops import TINY, Tensor
from kerasoft.rows import rows_of, set_rows


def fold(
    step: Callable[[Any, tuple], tuple], count: Any, carry: Sequence[Any]
) -> tuple:
    """Runs a step for 0, 1, ..., count - 1, one after the other.

    One step's tensors are gone before the next begins, which is what the memory of an
    output layer rests on. (`keras.ops.while_loop` leaves ten steps in flight on
    TensorFlow.)

    Args:
        step: From the number of the step and what is carried, to what is carried on.
        count: Integer or scalar tensor, how many steps.
        carry: What the first step is given, tensors or tuples of them.

    Returns:
        What the last step carries on.
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
    """Works off the rows of some tensors, so many at a time.

    Args:
        step: From the number of the chunk, what is carried, and the chunk of each
            array, to what is carried on, and the outputs of the chunk's rows. The last
            chunk is filled up with rows that do not count.
        arrays: Tensors of equally many rows.
        rows: How many rows a chunk has.
        carry: What the first step is given.
        outputs: The shape of each output in one row.
        span: The first of the rows to work off and how many there are, scalars that may
            be tensors; or `None` for all of them.

    Returns:
        What the last step carries on, and the outputs of all rows, in float32. They are
        of no meaning outside the span.
    """
    batch = ops.shape(arrays[0])[0]
    start, count = (0, batch) if span is None else span
    chunks = (count + rows - 1) // rows
    length = chunks * rows if span is None else batch + rows
    arrays = [pad_rows(x, length) for x in arrays]
    results = tuple(ops.zeros((length, *shape), "float32") for shape in outputs)

    def chunk(i, carried):
        carry, results = carried
        at = start + i * rows
        carry, made = step(i, carry, *(rows_of(x, at, rows) for x in arrays))
        return carry, tuple(map(lambda x, y: set_rows(x, at, y), results, made))

    carry, results = fold(chunk, chunks, (carry, results))
    return carry, tuple(x[:batch] for x in results)


def with_gradients(
    compute: Callable[..., tuple[Tensor, tuple, tuple]],
    arguments: Sequence[Tensor],
    training: bool,
) -> tuple[Tensor, tuple]:
    """A scalar whose gradients are worked out together with it.

    Args:
        compute: From the arguments and the keyword `gradients`, a boolean, to a scalar,
            a tuple of other results, and the gradient of the scalar by each of the
            arguments (or an empty tuple).
        arguments: Float tensors.
        training: Whether gradients will be asked for. If not, they can still be had,
            at the price of a second run.

    Returns:
        The scalar, and the other results, which have no gradient.
    """
    match backend.backend():
        case "tensorflow":
            import tensorflow as tf

            @tf.custom_gradient
            def run(*arguments):
                total, others, made = compute(*arguments, gradients=training)

                def backward(upstream, *_):
                    slopes = made or compute(*arguments, gradients=True)[2]
                    return [upstream * slope for slope in slopes]

                return (total, *others), backward

            # A variable would have to be handed to `backward` as such.
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

            class Run(torch.autograd.Function):
                @staticmethod
                def forward(ctx, *arguments):
                    wanted = any(ctx.needs_input_grad)
                    total, others, slopes = compute(*arguments, gradients=wanted)
                    ctx.save_for_backward(*slopes)
                    ctx.mark_non_differentiable(*others)
                    return (total, *others)

                @staticmethod
                def backward(ctx, upstream, *_):  # pyright: ignore
                    return tuple(upstream * slope for slope in ctx.saved_tensors)

            total, *others = Run.apply(*map(ops.convert_to_tensor, arguments))
            return total, tuple(others)
        case _:
            total, others, _ = compute(*arguments, gradients=False)
            return total, others


def pad_rows(x: Tensor, count: Any) -> Tensor:
    """A tensor with rows of zeros after its own, `count` in all."""
    pad = [[0, count - ops.shape(x)[0]]] + [[0, 0]] * (len(x.shape) - 1)
    return ops.pad(x, pad)


def uniform(seed: Tensor, index: Any, shape: tuple) -> Tensor:
    """Uniform numbers of (0, 1), a function of a seed's state and of an index alone.

    Args:
        seed: What `SeedGenerator.next` gives, two integers.
        index: Integer or scalar tensor, which draw it is.
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
            return jax.random.uniform(key, shape, minval=TINY)
        case "torch":
            import torch

            mixed = index
            for part in seed.tolist():
                mixed = (mixed * 1_000_003 + int(part)) % 2**63
            generator = torch.Generator(seed.device)
            generator.manual_seed(mixed)
            u = torch.rand(shape, generator=generator, device=seed.device)
            return u.clamp_min(TINY)
        case _:
            import numpy as np

            draws = np.random.default_rng([*np.asarray(seed).tolist(), index])
            return np.maximum(draws.random(shape, "float32"), TINY)


def gumbel_noise(seed: Tensor, index: Any, shape: tuple) -> Tensor:
    """Standard Gumbel noise, a function of a seed's state and of an index alone."""
    return -ops.log(-ops.log(uniform(seed, index, shape)))


def value_and_gradient(
    function: Callable[[Tensor], tuple[Tensor, Any]], x: Tensor
) -> tuple[Tensor, Any, Tensor]:
    """A scalar function's value, what else it gives, and its gradient.

    Args:
        function: From a tensor to a scalar and anything else.
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
            raise NotImplementedError(f"The backend {name} has no gradients.")


def map_rows(function: Callable[[Tensor], Tensor], variable: Any, block: int) -> None:
    """Replaces the rows of a variable by a function of them, `block` rows at a time."""
    count = variable.shape[0]
    block = min(block, count)

    def mapped(i, matrix):
        # The last block begins earlier, so as to be as large.
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
    """Calls a function that assigns to variables, if a condition holds."""
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
    """`matrix + transpose(a) @ b`, where PyTorch can in the memory of `matrix`."""
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
