"""The softmax family as Keras layers, and the registry of their names.

A head turns logits into probabilities or log-probabilities, and says which in its
attribute `outputs`. It computes in float32 and returns float32 whatever its dtype
policy, so that it is safe at the end of a mixed-precision model.
"""

import difflib
import functools
import random

import keras
from keras import ops

from kerasoft import ops as family

register = keras.saving.register_keras_serializable(package="kerasoft")


class Head(keras.layers.Layer):
    """Base of the heads: float32 inside and out, reduced over one axis.

    Args:
        axis: Integer, the axis of the classes.
        **kwargs: Base layer keyword arguments, such as `name` and `dtype`.

    Raises:
        ValueError: If `axis` is not an integer.
    """

    outputs = "probabilities"

    def __init__(self, axis=-1, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(axis, int):
            raise ValueError(f"`axis` must be an integer. Received: axis={axis!r}")
        self.axis = axis

    @property
    def compute_dtype(self):
        return "float32"

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "axis": self.axis}


@register
class LogSoftmax(Head):
    """Log-softmax layer, the logarithm of softmax.

    Formula:

    ```python
    log_softmax(x)[i] = x[i] - log(sum(exp(x)))
    ```

    Applied to its own output it changes nothing, which is why a log-softmax head
    survives a loss that applies softmax again.

    Args:
        axis: Integer, the axis of the classes.
        **kwargs: Base layer keyword arguments, such as `name` and `dtype`.

    Call arguments:
        inputs: Logits, of any floating dtype; -inf masks a class.

    Input shape:
        Arbitrary.

    Output shape:
        Same as the input, float32 log-probabilities.

    Raises:
        ValueError: If `axis` is not an integer.

    Example:

    >>> layer = LogSoftmax()
    >>> print(np.round(layer(np.array([[13.0, 8.0, 2.0]])), 4))
    [[-6.70000e-03 -5.00670e+00 -1.10067e+01]]
    """

    outputs = "log_probabilities"

    def call(self, inputs):
        return family.log_softmax(inputs, axis=self.axis)


@register
class Softmax2(Head):
    """Base-2 softmax layer.

    Formula:

    ```python
    softmax2(x)[i] = 2**x[i] / sum(2**x)
    ```

    It is softmax at the temperature `1 / ln(2)`, about 1.44.

    Args:
        axis: Integer, the axis of the classes.
        **kwargs: Base layer keyword arguments, such as `name` and `dtype`.

    Call arguments:
        inputs: Logits, of any floating dtype; -inf masks a class.

    Input shape:
        Arbitrary.

    Output shape:
        Same as the input, float32 probabilities.

    Raises:
        ValueError: If `axis` is not an integer.

    Reference:
        [Stevens et al., 2021](https://arxiv.org/abs/2103.09301), section III.

    Example:

    >>> print(np.round(Softmax2()(np.array([2.0, 1.0, 0.0])) * 7))
    [4. 2. 1.]
    """

    def call(self, inputs):
        return family.softmax2(inputs, axis=self.axis)


@register
class LogSoftmax2(Head):
    """Natural logarithm of the base-2 softmax.

    Formula:

    ```python
    log_softmax2(x)[i] = ln(2) * (x[i] - log2(sum(2**x)))
    ```

    Args:
        axis: Integer, the axis of the classes.
        **kwargs: Base layer keyword arguments, such as `name` and `dtype`.

    Call arguments:
        inputs: Logits, of any floating dtype; -inf masks a class.

    Input shape:
        Arbitrary.

    Output shape:
        Same as the input, float32 log-probabilities.

    Raises:
        ValueError: If `axis` is not an integer.

    Reference:
        [Stevens et al., 2021](https://arxiv.org/abs/2103.09301), section III.

    Example:

    >>> print(np.round(np.exp(LogSoftmax2()(np.array([2.0, 1.0, 0.0]))) * 7))
    [4. 2. 1.]
    """

    outputs = "log_probabilities"

    def call(self, inputs):
        return family.log_softmax2(inputs, axis=self.axis)


class GumbelHead(Head):
    """Base of the heads with Gumbel noise and a temperature.

    Args:
        temperature: Non-zero float, or a `LearningRateSchedule` of the training step.
        noise: `"training"`, `"always"` or `"never"`, when noise is added.
        seed: Integer, the seed of the noise. Drawn at random if `None`.
        axis: Integer, the axis of the classes.
        **kwargs: Base layer keyword arguments, such as `name` and `dtype`.
    """

    def __init__(self, temperature=1.0, noise="training", seed=None, axis=-1, **kwargs):
        super().__init__(axis=axis, **kwargs)
        if isinstance(temperature, dict):
            temperature = keras.optimizers.schedules.deserialize(temperature)
        if not isinstance(temperature, keras.optimizers.schedules.LearningRateSchedule):
            if isinstance(temperature, bool) or not isinstance(
                temperature, int | float
            ):
                raise ValueError(
                    "`temperature` must be a float or a "
                    "`keras.optimizers.schedules.LearningRateSchedule`. "
                    f"Received: temperature={temperature!r}"
                )
            if not abs(temperature) > 0 or abs(temperature) == float("inf"):
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
        self.seed_generator = keras.random.SeedGenerator(self.seed)
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

    @property
    def current_temperature(self):
        """The temperature at the training step that the layer has reached."""
        if isinstance(
            self.temperature, keras.optimizers.schedules.LearningRateSchedule
        ):
            return self.temperature(self.step)
        return self.temperature

    def call(self, inputs, training=False):
        temperature = self.current_temperature
        if training:
            self.step.assign_add(1)
        if self.noise == "always" or (self.noise == "training" and training):
            noise = family.gumbel_noise(ops.shape(inputs), seed=self.seed_generator)
        else:
            noise = 0.0
        return self.relax(inputs, temperature, noise)

    def relax(self, logits, temperature, noise):
        """The head's function of logits, a temperature and a given noise."""
        raise NotImplementedError

    def get_config(self):
        temperature = self.temperature
        if isinstance(temperature, keras.optimizers.schedules.LearningRateSchedule):
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
        temperature: Non-zero float, or a
            `keras.optimizers.schedules.LearningRateSchedule` that is evaluated at the
            number of training steps that the layer has taken. A negative temperature
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
        [Maddison et al., 2017](https://arxiv.org/abs/1611.00712), equation 10.

    Example:

    >>> decay = keras.optimizers.schedules.ExponentialDecay(3.0, 1000, 0.5)
    >>> layer = GumbelSoftmax(temperature=decay, seed=0)
    >>> sample = layer(np.zeros((2, 3)), training=True)
    >>> print(np.sum(sample, axis=-1).round(5), int(layer.step))
    [1. 1.] 1
    """

    def __init__(
        self,
        temperature=1.0,
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
        return family.gumbel_softmax(
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
        temperature: Non-zero float, or a
            `keras.optimizers.schedules.LearningRateSchedule` that is evaluated at the
            number of training steps that the layer has taken. A negative temperature
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
        return family.log_gumbel_softmax(logits, temperature, noise, axis=self.axis)


@register
class TaylorSoftmax(Head):
    """Taylor softmax layer: the exponential's second-order Taylor series, normalised.

    Formula:

    ```python
    weight = 1 + x + x**2 / 2
    taylor_softmax(x)[i] = weight[i] / sum(weight)
    ```

    Args:
        axis: Integer, the axis of the classes.
        **kwargs: Base layer keyword arguments, such as `name` and `dtype`.

    Call arguments:
        inputs: Logits, of any floating dtype; -inf masks a class.

    Input shape:
        Arbitrary.

    Output shape:
        Same as the input, float32 probabilities.

    Raises:
        ValueError: If `axis` is not an integer.

    Reference:
        [de Brébisson and Vincent, 2016](https://arxiv.org/abs/1511.05042),
        section 3.2.

    Example:

    >>> print(np.round(TaylorSoftmax()(np.array([0.0, 2.0])) * 6))
    [1. 5.]
    """

    def call(self, inputs):
        return family.taylor_softmax(inputs, axis=self.axis)


@register
class SphericalSoftmax(Head):
    """Spherical softmax layer: the squared logits, normalised.

    Formula:

    ```python
    weight = x**2 + epsilon
    spherical_softmax(x)[i] = weight[i] / sum(weight)
    ```

    It ignores the sign of a logit.

    Args:
        epsilon: Positive float, which keeps the gradient of the logarithm bounded
            where a logit crosses 0.
        axis: Integer, the axis of the classes.
        **kwargs: Base layer keyword arguments, such as `name` and `dtype`.

    Call arguments:
        inputs: Logits, of any floating dtype; -inf masks a class.

    Input shape:
        Arbitrary.

    Output shape:
        Same as the input, float32 probabilities.

    Raises:
        ValueError: If `epsilon` is not positive or `axis` is not an integer.

    Reference:
        [de Brébisson and Vincent, 2016](https://arxiv.org/abs/1511.05042),
        section 3.1.

    Example:

    >>> print(np.round(SphericalSoftmax()(np.array([1.0, -2.0])) * 5))
    [1. 4.]
    """

    def __init__(self, epsilon=1e-3, axis=-1, **kwargs):
        super().__init__(axis=axis, **kwargs)
        if not epsilon > 0:
            raise ValueError(
                "`epsilon` must be positive, or logits of 0 have no distribution. "
                f"Received: epsilon={epsilon}"
            )
        self.epsilon = epsilon

    def call(self, inputs):
        return family.spherical_softmax(inputs, epsilon=self.epsilon, axis=self.axis)

    def get_config(self):
        return {**super().get_config(), "epsilon": self.epsilon}


@register
class SinSoftmax(Head):
    """Sine softmax layer: softmax of the sine of the logits.

    Formula:

    ```python
    sin_softmax(x) = softmax(sin(x))
    ```

    No probability is above `e**2 / (e**2 + N - 1)` (0.07 for 100 classes), because a
    sine has bounds.

    Args:
        axis: Integer, the axis of the classes.
        **kwargs: Base layer keyword arguments, such as `name` and `dtype`.

    Call arguments:
        inputs: Logits, of any floating dtype; -inf masks a class.

    Input shape:
        Arbitrary.

    Output shape:
        Same as the input, float32 probabilities.

    Raises:
        ValueError: If `axis` is not an integer.

    Reference:
        [Banerjee et al., 2021](https://arxiv.org/abs/2108.07153), the periodic
        alternatives to softmax.

    Example:

    >>> print(np.round(SinSoftmax()(np.array([np.pi / 2, -np.pi / 2])), 3))
    [0.881 0.119]
    """

    def call(self, inputs):
        return family.sin_softmax(inputs, axis=self.axis)


@register
class Sparsemax(Head):
    """Sparsemax layer: the Euclidean projection of the logits on the simplex.

    Formula:

    ```python
    sparsemax(x) = argmin over distributions p of sum((p - x)**2)
    ```

    Its probabilities can be exactly 0.

    Args:
        axis: Integer, the axis of the classes.
        **kwargs: Base layer keyword arguments, such as `name` and `dtype`.

    Call arguments:
        inputs: Logits, of any floating dtype; -inf masks a class.

    Input shape:
        Arbitrary.

    Output shape:
        Same as the input, float32 probabilities.

    Raises:
        ValueError: If `axis` is not an integer.

    Reference:
        [Martins and Astudillo, 2016](https://arxiv.org/abs/1602.02068), equation 1.

    Example:

    >>> print(Sparsemax()(np.array([1.0, 0.5, -2.0])))
    [0.75 0.25 0.  ]
    """

    def call(self, inputs):
        return family.sparsemax(inputs, axis=self.axis)


HEADS = {
    "softmax": functools.partial(keras.layers.Softmax, dtype="float32"),
    "log_softmax": LogSoftmax,
    "softmax2": Softmax2,
    "log_softmax2": LogSoftmax2,
    "gumbel_softmax": GumbelSoftmax,
    "log_gumbel_softmax": LogGumbelSoftmax,
    "taylor_softmax": TaylorSoftmax,
    "spherical_softmax": SphericalSoftmax,
    "sin_softmax": SinSoftmax,
    "sparsemax": Sparsemax,
}


def get(name, /, **kwargs):
    """Makes the head of a name.

    Args:
        name: String, a key of `HEADS`.
        **kwargs: The arguments of the head's layer.

    Returns:
        A new layer.

    Raises:
        ValueError: If no head has that name.

    Example:

    >>> get("gumbel_softmax", temperature=0.5).temperature
    0.5
    """
    if name not in HEADS:
        near = difflib.get_close_matches(str(name), HEADS) or HEADS
        raise ValueError(
            f"There is no head of that name; did you mean {' or '.join(near)}? "
            f"Received: {name!r}"
        )
    return HEADS[name](**kwargs)


def outputs_of(head):
    """Tells what a head puts out.

    Args:
        head: A layer of this module, or `keras.layers.Softmax`.

    Returns:
        `"probabilities"` or `"log_probabilities"`.

    Raises:
        ValueError: If the layer is no head.

    Example:

    >>> outputs_of(LogSoftmax())
    'log_probabilities'
    """
    if isinstance(head, keras.layers.Softmax):
        return "probabilities"
    if not isinstance(head, Head):
        raise ValueError(
            "Expected a head, a layer of `kerasoft.heads` or `keras.layers.Softmax`. "
            f"Received: {head!r}"
        )
    return head.outputs
