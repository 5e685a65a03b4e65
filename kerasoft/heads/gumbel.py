"""The heads with Gumbel noise and a temperature."""

import math
import random
from typing import Literal, TypeAlias

import keras

from kerasoft import ops
from kerasoft.heads.base import Head, register
from kerasoft.seed_generator import SeedGenerator

LearningRateSchedule = keras.optimizers.schedules.LearningRateSchedule
Temperature: TypeAlias = (
    "float | Literal['learned'] | keras.optimizers.schedules.LearningRateSchedule"
)
LEARNED = "learned"
SOFTPLUS_IS_1 = math.log(math.e - 1)


class GumbelHead(Head):
    """Base of the heads with Gumbel noise and a temperature.

    Args:
        temperature: Non-zero float, a `LearningRateSchedule` of the training step, or
            `"learned"`.
        noise: `"training"`, `"always"` or `"never"`, when noise is added.
        seed: Integer, the seed of the noise. Drawn at random if `None`.
        axis: Integer, the axis of the classes.
        **kwargs: Base layer keyword arguments, such as `name` and `dtype`.
    """

    def __init__(
        self,
        temperature: Temperature = 1.0,
        noise="training",
        seed=None,
        axis=-1,
        **kwargs,
    ):
        super().__init__(axis=axis, **kwargs)
        if isinstance(temperature, dict):
            temperature = keras.optimizers.schedules.deserialize(temperature)
        if temperature != LEARNED and not isinstance(temperature, LearningRateSchedule):
            if isinstance(temperature, bool) or not isinstance(
                temperature, int | float
            ):
                raise ValueError(
                    "`temperature` must be a float, a "
                    "`keras.optimizers.schedules.LearningRateSchedule` or 'learned'. "
                    f"Received: temperature={temperature!r}"
                )
            if temperature == 0 or not math.isfinite(temperature):
                raise ValueError(
                    "`temperature` must be finite and not 0, because the logits are "
                    f"divided by it. Received: temperature={temperature}"
                )
        if noise not in ("training", "always", "never"):
            raise ValueError(
                "`noise` must be 'training', 'always' or 'never'. "
                f"Received: noise={noise!r}"
            )
        self.temperature = temperature
        self.noise = noise
        self.seed = random.randint(0, 2**31 - 1) if seed is None else seed
        self.seed_generator = SeedGenerator(self.seed)
        # The training steps taken: a variable, so that it holds inside a compiled loop
        # of steps, over replicas, in a checkpoint and in a SavedModel.
        self.step = self.add_weight(
            shape=(),
            dtype="int32",
            initializer="zeros",
            trainable=False,
            aggregation="only_first_replica",
            name="step",
        )
        if temperature == LEARNED:
            self.raw_temperature = self.add_weight(
                shape=(),
                dtype="float32",
                initializer=keras.initializers.Constant(SOFTPLUS_IS_1),
                name="raw_temperature",
            )

    @property
    def current_temperature(self):
        """The temperature at the training step that the layer has reached."""
        if self.temperature == LEARNED:
            return keras.ops.softplus(self.raw_temperature)
        if callable(self.temperature):
            return self.temperature(self.step)
        return self.temperature

    def call(self, inputs, training=False):
        temperature = self.current_temperature
        if training:
            self.step.assign_add(1)
        if self.noise == "always" or (self.noise == "training" and training):
            noise = ops.gumbel_noise(keras.ops.shape(inputs), seed=self.seed_generator)
        else:
            noise = 0.0
        return self.relax(inputs, temperature, noise)

    def relax(self, logits, temperature, noise):
        """The head's function of logits, a temperature and a given noise."""
        raise NotImplementedError

    def get_config(self):
        temperature = self.temperature
        if callable(temperature):
            temperature = keras.optimizers.schedules.serialize(temperature)
        return {
            **super().get_config(),
            "temperature": temperature,
            "noise": self.noise,
            "seed": self.seed,
        }


@register
class GumbelSoftmax(GumbelHead):
    """Gumbel-softmax layer, a differentiable sample of a categorical variable.

    Formula:

    ```python
    g = -log(-log(uniform(0, 1)))
    gumbel_softmax(x) = softmax((x + g) / temperature)
    ```

    As the temperature falls to 0, the output nears a one-hot sample of softmax(x).

    Args:
        temperature: Non-zero float, a
            `keras.optimizers.schedules.LearningRateSchedule` that is evaluated at the
            number of training steps that the layer has taken, or `"learned"`, the
            softplus of a weight that begins at temperature 1. A negative temperature
            reverses the order of the logits.
        noise: When noise is added: `"training"` (in training alone), `"always"` or
            `"never"`. Without it, the layer computes `softmax(x / temperature)`.
        hard: Boolean. If `True`, the output is one-hot, and its gradient is that of
            the relaxed sample (the straight-through estimator).
        seed: Integer, the seed of the noise. Drawn at random if `None`.
        axis: Integer, the axis of the classes.
        **kwargs: Base layer keyword arguments, such as `name` and `dtype`.

    Call arguments:
        inputs: Logits, of any floating dtype; -inf masks a class.
        training: Boolean, whether the layer is in training.

    Input shape:
        Arbitrary.

    Output shape:
        Same as the input, float32 probabilities.

    Raises:
        ValueError: If `temperature` is 0, not finite or of a wrong type, `noise` is
            none of the three, or `axis` is not an integer.

    Reference:
        [Jang et al., 2017](https://arxiv.org/abs/1611.01144), equation 2;
        [Maddison et al., 2017](https://arxiv.org/abs/1611.00712), section 3.

    Example:

    >>> decay = keras.optimizers.schedules.ExponentialDecay(3.0, 1000, 0.5)
    >>> layer = GumbelSoftmax(temperature=decay, seed=0)
    >>> sample = layer(np.zeros((2, 3)), training=True)
    >>> print(np.sum(sample, axis=-1).round(5), int(layer.step))
    [1. 1.] 1
    """

    def __init__(
        self,
        temperature: Temperature = 1.0,
        noise="training",
        hard=False,
        seed=None,
        axis=-1,
        **kwargs,
    ):
        super().__init__(
            temperature=temperature, noise=noise, seed=seed, axis=axis, **kwargs
        )
        self.hard = hard

    def relax(self, logits, temperature, noise):
        return ops.gumbel_softmax(
            logits, temperature, noise, hard=self.hard, axis=self.axis
        )

    def get_config(self):
        return {**super().get_config(), "hard": self.hard}


@register
class LogGumbelSoftmax(GumbelHead):
    """Log-Gumbel-softmax layer, the logarithm of a relaxed categorical sample.

    Formula:

    ```python
    g = -log(-log(uniform(0, 1)))
    log_gumbel_softmax(x) = log_softmax((x + g) / temperature)
    ```

    It is finite where the probabilities of Gumbel-softmax underflow, as they do at a
    low temperature.

    Args:
        temperature: Non-zero float, a
            `keras.optimizers.schedules.LearningRateSchedule` that is evaluated at the
            number of training steps that the layer has taken, or `"learned"`, the
            softplus of a weight that begins at temperature 1. A negative temperature
            reverses the order of the logits.
        noise: When noise is added: `"training"` (in training alone), `"always"` or
            `"never"`. Without it, the layer computes `log_softmax(x / temperature)`.
        seed: Integer, the seed of the noise. Drawn at random if `None`.
        axis: Integer, the axis of the classes.
        **kwargs: Base layer keyword arguments, such as `name` and `dtype`.

    Call arguments:
        inputs: Logits, of any floating dtype; -inf masks a class.
        training: Boolean, whether the layer is in training.

    Input shape:
        Arbitrary.

    Output shape:
        Same as the input, float32 log-probabilities.

    Raises:
        ValueError: If `temperature` is 0, not finite or of a wrong type, `noise` is
            none of the three, or `axis` is not an integer.

    Reference:
        [Maddison et al., 2017](https://arxiv.org/abs/1611.00712), appendix C
        (ExpConcrete).

    Example:

    >>> layer = LogGumbelSoftmax(temperature=0.1, seed=0)
    >>> log_sample = layer(np.zeros((2, 3)), training=True)
    >>> print(np.sum(np.exp(log_sample), axis=-1).round(5))
    [1. 1.]
    """

    outputs = "log_probabilities"

    def relax(self, logits, temperature, noise):
        return ops.log_gumbel_softmax(logits, temperature, noise, axis=self.axis)
