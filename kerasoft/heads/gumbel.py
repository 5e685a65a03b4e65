"""The heads with Gumbel noise and a temperature."""

import math
import numbers
import random
from typing import Any, Literal, TypeAlias

import keras

from kerasoft import _keras, ops
from kerasoft.heads.base import Head, hide_classes, register
from kerasoft.ops import Tensor
from kerasoft.ops.common import away_from_0
from kerasoft.seed_generator import SeedGenerator

LearningRateSchedule = keras.optimizers.schedules.LearningRateSchedule
Temperature: TypeAlias = (
    "float | Literal['learned'] | keras.optimizers.schedules.LearningRateSchedule"
)
LEARNED = "learned"
LEAST = 1e-6  # the magnitude of a temperature by which features can be divided
SOFTPLUS_IS_1 = math.log(math.e - 1)


class GumbelHead(Head):
    """Base of the heads with Gumbel noise and a temperature.

    Args:
        temperature: Non-zero number; a schedule of `keras.optimizers.schedules`, which
            is evaluated at the layer's number of training steps; or `"learned"`, the
            softplus of a weight, initially 1. A negative temperature reverses the order
            of the logits.
        noise: When noise is added: `"training"` (only in training), `"always"` or
            `"never"`.
        seed: Integer, the seed of the noise. Drawn at random if `None`.
        **kwargs: Keyword arguments of `Head`, such as `axis` and `dtype`.

    Attributes:
        step: The number of training steps. A call of the model with `training=True` is
            one step, even if it calls the layer several times (because the layer is
            shared, or wrapped in `TimeDistributed`). It is in `variables` and in saved
            `.keras` files, but not in `weights`: so `set_weights` accepts the weights
            of a model without it, and does not change it. (Keras's old format `.h5`
            keeps only `weights`, and so loses it. Keras does not save the state of the
            noise's seed generator: a loaded model draws the noise from the beginning.)

    Call arguments:
        inputs: Logits.
        mask: Boolean tensor, see `Head`.
        training: Boolean, whether the layer is in training.

    Raises:
        ValueError: If `temperature` is 0, not finite or of a wrong type, or `noise` is
            not one of the three strings.
    """

    def __init__(
        self,
        temperature: Temperature = 1.0,
        noise: str = "training",
        seed: int | None = None,
        axis: int = -1,
        **kwargs: Any,
    ):
        super().__init__(axis=axis, **kwargs)
        self._temperature = _checked(temperature)
        if noise not in ("training", "always", "never"):
            raise ValueError(
                "`noise` must be 'training', 'always' or 'never'. "
                f"Received: noise={noise!r}"
            )
        self.noise = noise
        self.seed = random.randint(0, 2**31 - 1) if seed is None else seed
        self.seed_generator = SeedGenerator(self.seed)
        # A variable, so that it works in a compiled loop of steps, with several
        # replicas, in a checkpoint and in a SavedModel.
        self.step = self.add_weight(
            shape=(),
            dtype="int32",
            initializer="zeros",
            trainable=False,
            aggregation="only_first_replica",
            name="step",
        )
        if self._temperature == LEARNED:
            self.raw_temperature = self.add_weight(
                shape=(),
                dtype="float32",
                initializer=keras.initializers.Constant(SOFTPLUS_IS_1),
                name="raw_temperature",
            )

    @property
    def temperature(self) -> Temperature:
        """The temperature that was passed: a number, a schedule or `"learned"`.

        It can be assigned before the first call of the layer. After that, a compiled
        function may contain its value, and assigning it raises an `AttributeError`.
        """
        return self._temperature

    @temperature.setter
    def temperature(self, value: Temperature) -> None:
        if self.built or LEARNED in (self._temperature, value):
            raise AttributeError(
                "`temperature` cannot be assigned once the head has been called, nor "
                "where it is learned. Use a schedule to change it during training, or "
                "build a model with a head of another temperature and copy the weights "
                "with `set_weights`. "
                f"Received: temperature={value!r}"
            )
        self._temperature = _checked(value)

    @property
    def current_temperature(self) -> Tensor | float:
        """The temperature at the current training step."""
        return self._temperature_at(self.step)

    def _temperature_at(self, step: Tensor) -> Tensor | float:
        if self._temperature == LEARNED:
            return keras.ops.softplus(self.raw_temperature)
        if isinstance(self._temperature, LearningRateSchedule):
            return self._temperature(step)  # pyright: ignore[reportCallIssue]
        return self._temperature

    def call(
        self, inputs: Tensor, mask: Tensor | None = None, training: bool | None = False
    ) -> Tensor:
        self._warn_of_misreading()
        temperature = self._take_step(training)
        if self.is_noisy(training):
            noise = ops.gumbel_noise(keras.ops.shape(inputs), seed=self.seed_generator)
        else:
            noise = 0.0
        logits = hide_classes(inputs, mask)
        return self.relax(logits, temperature, noise)

    def is_noisy(self, training: bool | None) -> bool:
        """Whether noise is added."""
        return self.noise == "always" or (self.noise == "training" and bool(training))

    def _take_step(self, training: bool | None) -> Tensor | float:
        """The temperature for this call, which counts a step if it is the first."""
        if training and not _keras.is_first_call(self):
            return self._temperature_at(self.step - 1)
        temperature = self.current_temperature
        if training:
            self.step.assign_add(1)
        return temperature

    def logit_scale(self, training: bool) -> Tensor | float:
        temperature = self._take_step(training)
        if isinstance(temperature, float | int):
            return 1 / math.copysign(max(abs(temperature), LEAST), temperature)
        return 1 / away_from_0(temperature, LEAST)

    def activate(self, logits: Tensor) -> Tensor:
        """The output without noise, at the current temperature."""
        return self.relax(logits, self.current_temperature, 0.0)

    def relax(
        self, logits: Tensor, temperature: Tensor | float, noise: Tensor | float
    ) -> Tensor:
        """The output for logits, a temperature and noise."""
        raise NotImplementedError

    @property
    def weights(self) -> list[Any]:
        return [w for w in super().weights if w is not self.step]

    @property
    def non_trainable_weights(self) -> list[Any]:
        return [w for w in super().non_trainable_weights if w is not self.step]

    def load_own_variables(self, store: Any) -> None:
        if store.keys():  # empty if the file's model has a head without state
            super().load_own_variables(store)

    def get_config(self) -> dict[str, Any]:
        temperature = self.temperature
        if isinstance(temperature, LearningRateSchedule):
            temperature = keras.optimizers.schedules.serialize(temperature)
        return {
            **super().get_config(),
            "temperature": temperature,
            "noise": self.noise,
            "seed": self.seed,
        }


def _checked(temperature: Any) -> Temperature:
    """Checks a temperature that was passed or read from a config, and returns it."""
    if isinstance(temperature, dict):
        temperature = keras.optimizers.schedules.deserialize(temperature)
    if isinstance(temperature, LearningRateSchedule) or temperature == LEARNED:
        return temperature
    if isinstance(temperature, bool) or not isinstance(temperature, numbers.Real):
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
    return float(temperature)


@register
class GumbelSoftmax(GumbelHead):
    """Gumbel-softmax layer, a differentiable sample of a categorical variable.

    Formula:

    ```python
    g = -log(-log(uniform(0, 1)))
    gumbel_softmax(x) = softmax((x + g) / temperature)
    ```

    As the temperature approaches 0, the output approaches a one-hot sample of
    softmax(x).

    Args:
        temperature: See `GumbelHead`.
        noise: See `GumbelHead`. Without noise, the layer computes
            `softmax(x / temperature)`.
        hard: Boolean. If `True`, the output is one-hot, and its gradient is that of
            the relaxed sample (the straight-through estimator).
        seed: Integer, the seed of the noise. Drawn at random if `None`.
        **kwargs: Keyword arguments of `Head`, such as `axis` and `dtype`.

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
        noise: str = "training",
        hard: bool = False,
        seed: int | None = None,
        axis: int = -1,
        **kwargs: Any,
    ):
        super().__init__(
            temperature=temperature, noise=noise, seed=seed, axis=axis, **kwargs
        )
        self.hard = hard

    def relax(
        self, logits: Tensor, temperature: Tensor | float, noise: Tensor | float
    ) -> Tensor:
        return ops.gumbel_softmax(
            logits, temperature, noise, hard=self.hard, axis=self.axis
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "hard": self.hard}


@register
class LogGumbelSoftmax(GumbelHead):
    """Log-Gumbel-softmax layer, the logarithm of a relaxed categorical sample.

    Formula:

    ```python
    g = -log(-log(uniform(0, 1)))
    log_gumbel_softmax(x) = log_softmax((x + g) / temperature)
    ```

    It is finite where the probabilities of Gumbel-softmax underflow, which happens at
    low temperatures.

    Args:
        temperature: See `GumbelHead`.
        noise: See `GumbelHead`. Without noise, the layer computes
            `log_softmax(x / temperature)`.
        seed: Integer, the seed of the noise. Drawn at random if `None`.
        **kwargs: Keyword arguments of `Head`, such as `axis` and `dtype`.

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

    def relax(
        self, logits: Tensor, temperature: Tensor | float, noise: Tensor | float
    ) -> Tensor:
        return ops.log_gumbel_softmax(logits, temperature, noise, axis=self.axis)
