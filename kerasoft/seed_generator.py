"""A seed generator for models that are trained on several replicas."""

import keras
from keras import backend

from kerasoft.ops import Tensor


class SeedGenerator(keras.random.SeedGenerator):
    """`keras.random.SeedGenerator`, with different random numbers on each replica.

    Under a `tf.distribute` strategy, every replica has a copy of the state of Keras's
    generator, so all replicas draw the same numbers. Here the seed depends on the
    number of the replica. With one replica, the numbers are the same as Keras's.

    Args:
        seed: Integer, or `None` for one drawn at random.

    Example:

    >>> ours, keras_own = SeedGenerator(7), keras.random.SeedGenerator(7)
    >>> np.array_equal(ours.next(), keras_own.next())
    True
    """

    def next(self, ordered: bool = True) -> Tensor:
        seed = super().next(ordered)
        if backend.backend() != "tensorflow":
            return seed
        import tensorflow as tf

        replica = tf.distribute.get_replica_context()
        if replica is None or replica.num_replicas_in_sync == 1:
            return seed
        # A large stride, because layers often use consecutive seeds.
        stride = tf.constant([1_000_003, 0], seed.dtype)
        return seed + stride * tf.cast(replica.replica_id_in_sync_group, seed.dtype)
