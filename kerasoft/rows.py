"""Rows of tensors and of variables, by a range or by indices, on each backend."""

from typing import Any

from keras import backend, ops

from kerasoft.ops import Tensor


def rows_of(matrix: Tensor, start: Any, count: int) -> Tensor:
    """`count` rows of a tensor from a start, which may be a tensor."""
    match backend.backend():
        case "tensorflow":
            import tensorflow as tf

            # Not a slice, because XLA compiles a slice again for each start.
            return tf.gather(matrix, start + tf.range(count))
        case "jax":
            import jax

            return jax.lax.dynamic_slice_in_dim(matrix, start, count)
        case _:
            return matrix[start : start + count]


def set_rows(matrix: Tensor, start: Any, rows: Tensor) -> Tensor:
    """Replaces the rows of a tensor from a start on, in place where possible."""
    match backend.backend():
        case "tensorflow":
            import tensorflow as tf

            where = start + tf.range(tf.shape(rows)[0])
            return tf.tensor_scatter_nd_update(matrix, where[:, None], rows)
        case "jax":
            import jax

            return jax.lax.dynamic_update_slice_in_dim(matrix, rows, start, 0)
        case _:
            matrix[start : start + rows.shape[0]] = rows
            return matrix


def rows_at(variable: Any, indices: Tensor) -> Tensor:
    """The rows of a variable at indices, without copying the others."""
    if backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.gather(variable.value, indices)
    return ops.take(variable.value, indices, axis=0)


def add_at(variable: Any, indices: Tensor, rows: Tensor) -> None:
    """Adds rows to a variable at indices, which may repeat, in place if possible."""
    match backend.backend():
        case "tensorflow":
            import tensorflow as tf

            variable.value.scatter_add(tf.IndexedSlices(rows, indices))
        case "torch":
            import torch

            with torch.no_grad():
                variable.value.index_add_(0, indices, rows)
        case _:
            variable.assign(add_rows(variable.value, indices, rows))


def look_up(table: Any, indices: Tensor) -> Tensor:
    """The rows of an array or tensor at indices of any shape."""
    return ops.take(ops.convert_to_tensor(table), indices, axis=0)


def add_rows(matrix: Tensor, indices: Tensor, rows: Tensor) -> Tensor:
    """Adds rows to a matrix at indices, which may repeat.

    It may reuse the memory of `matrix`, so do not use `matrix` afterwards.
    """
    match backend.backend():
        case "tensorflow":
            import tensorflow as tf

            return tf.tensor_scatter_nd_add(matrix, indices[:, None], rows)
        case "jax":
            return matrix.at[indices].add(rows)
        case "torch":
            return matrix.index_add_(0, indices, rows)
        case _:
            import numpy as np

            summed = np.array(matrix)
            np.add.at(summed, indices, rows)
            return summed
