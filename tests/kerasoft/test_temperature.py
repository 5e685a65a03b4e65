import inspect
import subprocess
import sys

import keras
import numpy as np
import pytest
from references import expected, numpy

from kerasoft import heads, losses
from kerasoft.callbacks import TemperatureLogger
from kerasoft.schedules import FlooredExponentialDecay

schedules = keras.optimizers.schedules

# A schedule, and its value after k steps by the formula of its documentation.
SCHEDULES = {
    "exponential": (
        lambda: schedules.ExponentialDecay(3.0, 10, 0.5),
        lambda k: 3 * 0.5 ** (k / 10),
    ),
    "cosine": (
        lambda: schedules.CosineDecay(3.0, 20, alpha=0.1),
        lambda k: 3 * (0.9 * (1 + np.cos(np.pi * min(k, 20) / 20)) / 2 + 0.1),
    ),
    "polynomial": (
        lambda: schedules.PolynomialDecay(3.0, 20, 0.5, power=2.0),
        lambda k: 2.5 * (1 - min(k, 20) / 20) ** 2 + 0.5,
    ),
    "floored": (
        lambda: FlooredExponentialDecay(3.0, rate=0.1, update_every=4, minimum=1.0),
        lambda k: max(1, 3 * np.exp(-0.1 * (k // 4 * 4))),
    ),
}
each_schedule = pytest.mark.parametrize(
    ("make", "value"), SCHEDULES.values(), ids=SCHEDULES
)
each_random_head = pytest.mark.parametrize(
    "head", [heads.GumbelSoftmax, heads.LogGumbelSoftmax]
)


def step_of(head):
    return int(keras.ops.convert_to_numpy(head.step))


def temperature_of(head):
    return float(keras.ops.convert_to_numpy(head.current_temperature))


def small_model(head, **kwargs):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), head])
    model.compile("sgd", losses.matched_loss(head), **kwargs)
    return model


def data(n):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, 3)).astype("float32"), rng.integers(4, size=n)


@each_schedule
@each_random_head
def test_each_step_is_taken_at_its_own_temperature(head, make, value):
    x = np.array([2.0, 1.0, -1.0])
    name = "log_gumbel_softmax" if head is heads.LogGumbelSoftmax else "gumbel_softmax"
    layer = head(make(), noise="never")
    for k in range(25):
        assert step_of(layer) == k
        assert temperature_of(layer) == pytest.approx(value(k), rel=1e-6)
        np.testing.assert_allclose(
            layer(x, training=True), expected(name, x, value(k)), rtol=1e-5
        )
    # Inference stays at the temperature that training has reached.
    for _ in range(2):
        np.testing.assert_allclose(layer(x), expected(name, x, value(25)), rtol=1e-5)
    assert step_of(layer) == 25


several_steps_a_call = pytest.mark.skipif(
    keras.backend.backend() == "torch",
    reason="on PyTorch, Keras's `fit` takes one step in a call",
)


@each_schedule
def test_fit_takes_one_step_a_batch(make, value):
    head = heads.GumbelSoftmax(make(), seed=0)
    torch = keras.backend.backend() == "torch"
    model = small_model(head, steps_per_execution=1 if torch else 16)
    x, y = data(128)
    model.fit(x, y, batch_size=4, validation_data=(x, y), verbose=0)
    assert step_of(head) == 32
    model.evaluate(x, y, batch_size=4, verbose=0)
    model.predict(x, batch_size=4, verbose=0)
    assert step_of(head) == 32
    assert temperature_of(head) == pytest.approx(value(32), rel=1e-6)
    model.fit(x[:20], y[:20], batch_size=4, epochs=2, verbose=0)
    assert step_of(head) == 42


@several_steps_a_call
def test_steps_per_execution_change_nothing():
    def trained(steps_per_execution):
        keras.utils.set_random_seed(0)
        head = heads.GumbelSoftmax(schedules.ExponentialDecay(3.0, 10, 0.5), seed=0)
        model = small_model(head, steps_per_execution=steps_per_execution)
        model.fit(*data(128), batch_size=4, shuffle=False, verbose=0)
        return model.get_weights()

    for one, many in zip(trained(1), trained(16), strict=True):
        np.testing.assert_allclose(one, many, rtol=1e-5, atol=1e-6)


def test_a_number_is_a_temperature_that_stays():
    head = heads.GumbelSoftmax(-1.5, seed=0)
    small_model(head).fit(*data(16), batch_size=4, verbose=0)
    assert (step_of(head), head.current_temperature) == (4, -1.5)


@each_random_head
def test_a_learned_temperature_begins_at_1_and_takes_its_gradient(head):
    layer = head("learned", noise="never")
    assert temperature_of(layer) == pytest.approx(1.0)
    assert layer.compute_dtype == layer.raw_temperature.dtype == "float32"
    x = np.array([2.0, 1.0, -1.0])
    name = "log_gumbel_softmax" if head is heads.LogGumbelSoftmax else "gumbel_softmax"
    np.testing.assert_allclose(numpy(layer(x)), expected(name, x, 1.0), rtol=1e-5)

    # One step of gradient descent on -log p_0 = logsumexp(x / t) - x_0 / t, with
    # t = softplus(raw): its derivative at t = 1 is (x_0 - E[x]) dt/draw.
    model = keras.Sequential([keras.Input((3,)), layer])
    model.compile(keras.optimizers.SGD(0.1), losses.matched_loss(layer))
    raw = float(keras.ops.convert_to_numpy(layer.raw_temperature))
    model.fit(x[None], np.array([0]), verbose=0)
    p = np.exp(x) / np.exp(x).sum()
    slope = (x[0] - p @ x) / (1 + np.exp(-raw))
    after = float(keras.ops.convert_to_numpy(layer.raw_temperature))
    assert after == pytest.approx(raw - 0.1 * slope, rel=1e-4)


def test_a_learned_temperature_stays_above_0_and_is_kept(tmp_path):
    head = heads.GumbelSoftmax("learned", seed=0)
    model = small_model(head)
    model.optimizer.learning_rate = 10.0
    history = model.fit(
        *data(64), batch_size=4, epochs=4, verbose=0, callbacks=[TemperatureLogger()]
    )
    assert min(history.history["temperature"]) > 0
    assert len(set(history.history["temperature"])) == 4
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras").layers[-1]
    assert loaded.get_config() == head.get_config()
    assert temperature_of(loaded) == temperature_of(head)


def test_the_history_shows_the_temperature():
    head = heads.GumbelSoftmax(schedules.ExponentialDecay(3.0, 10, 0.5), seed=0)
    x, y = data(20)
    history = small_model(head).fit(
        x, y, batch_size=4, epochs=3, verbose=0, callbacks=[TemperatureLogger()]
    )
    reached = [3 * 0.5 ** (k / 10) for k in (5, 10, 15)]
    assert history.history["temperature"] == pytest.approx(reached, rel=1e-6)


def test_the_history_shows_each_of_several_heads_at_any_depth():
    def branch(name):
        return keras.Sequential(
            [
                keras.Input((3,)),
                keras.layers.Dense(4),
                heads.GumbelSoftmax(schedules.ExponentialDecay(3.0, 10, 0.5), name="g"),
            ],
            name=name,
        )

    inputs = keras.Input((3,))
    cold = heads.LogGumbelSoftmax(0.5, name="cold")
    outputs = cold(keras.layers.Dense(4)(branch("one")(inputs) + branch("two")(inputs)))
    model = keras.Model(inputs, outputs)
    model.compile("sgd", losses.matched_loss(cold))
    logger = TemperatureLogger()
    x, y = data(20)
    logs = model.fit(x, y, batch_size=4, verbose=0, callbacks=[logger]).history
    warm = {k: v for k, v in logs.items() if k.startswith("temperature_") and "g" in k}
    assert logs["temperature_cold"] == [0.5]
    assert len(warm) == 2
    for reached in warm.values():
        assert reached == pytest.approx([3 * 0.5**0.5], rel=1e-6)


def test_a_head_within_a_sub_model_is_logged_by_the_plain_key():
    head = heads.GumbelSoftmax(2.0)
    inner = keras.Sequential([keras.Input((4,)), head])
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), inner])
    model.compile("sgd", losses.matched_loss(model))
    logs = model.fit(*data(4), verbose=0, callbacks=[TemperatureLogger()]).history
    assert logs["temperature"] == [2.0]


def over_time(head):
    return keras.layers.TimeDistributed(head)


def shared(head):
    inputs = keras.Input((7, 4))
    return keras.Model(inputs, head(inputs) + head(inputs) + head(inputs))


@pytest.mark.parametrize("wrap", [over_time, shared])
def test_a_step_is_counted_once_however_often_the_head_is_called_in_it(wrap):
    head = heads.GumbelSoftmax(schedules.ExponentialDecay(3.0, 10, 0.5), noise="never")
    identity = keras.layers.Dense(4, kernel_initializer="identity")
    model = keras.Sequential([keras.Input((7, 4)), identity, wrap(head)])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    x = np.random.default_rng(0).normal(size=(8, 7, 4)).astype("float32")
    model.fit(x, x, batch_size=4, epochs=3, verbose=0)
    assert step_of(head) == 6
    # All the calls of a step are at one temperature: that of the step.
    outputs = numpy(model(x, training=True))
    one = expected("gumbel_softmax", x, 3 * 0.5**0.6)
    np.testing.assert_allclose(outputs, one * (3 if wrap is shared else 1), rtol=1e-5)
    assert step_of(head) == 7


def test_call_by_itself_counts_too():
    head = heads.GumbelSoftmax(schedules.ExponentialDecay(3.0, 10, 0.5), noise="never")
    x = np.array([[2.0, 1.0, -1.0]], "float32")
    for k in range(3):
        outputs = head.call(keras.ops.convert_to_tensor(x), training=True)
        now = expected("gumbel_softmax", x, 3 * 0.5 ** (k / 10))
        np.testing.assert_allclose(numpy(outputs), now, rtol=1e-5)
    assert step_of(head) == 3


def test_a_temperature_can_be_assigned_before_the_first_call_and_not_after():
    head = heads.GumbelSoftmax(2.0, noise="never")
    x = np.array([[2.0, 1.0, -1.0]], "float32")
    head.temperature = 0.5
    np.testing.assert_allclose(head(x), expected("gumbel_softmax", x, 0.5), rtol=1e-5)
    with pytest.raises(AttributeError, match=r"once the head has been called.*=0.1"):
        head.temperature = 0.1
    assert head.temperature == 0.5
    with pytest.raises(ValueError, match=r"finite and not 0.*temperature=0"):
        heads.GumbelSoftmax().temperature = 0
    with pytest.raises(AttributeError, match=r"where it is learned.*=0.1"):
        heads.GumbelSoftmax("learned").temperature = 0.1


@pytest.mark.parametrize("number", [np.float32(0.5), np.float64(0.5), np.int64(2), 2])
def test_a_number_of_numpy_is_a_number(number):
    head = heads.GumbelSoftmax(number, noise="never")
    assert head.get_config()["temperature"] == float(number)
    assert type(head.get_config()["temperature"]) is float
    x = np.array([[2.0, 1.0, -1.0]], "float32")
    now = expected("gumbel_softmax", x, float(number))
    np.testing.assert_allclose(head(x), now, rtol=1e-5)


def test_weights_of_a_model_without_a_step_fit(tmp_path):
    def model(head):
        layers = [keras.Input((3,)), keras.layers.Dense(4, name="logits"), head]
        return keras.Sequential(layers)

    plain = model(heads.Softmax(name="head"))
    gumbel = model(heads.GumbelSoftmax(schedules.ExponentialDecay(3.0, 10, 0.5)))
    gumbel.compile("sgd", losses.matched_loss(gumbel))
    gumbel.fit(*data(8), batch_size=4, verbose=0)
    gumbel.set_weights(plain.get_weights())
    assert step_of(gumbel.layers[-1]) == 2
    plain.save_weights(tmp_path / "plain.weights.h5")
    other = model(heads.GumbelSoftmax(1.0, noise="never", name="head"))
    other.load_weights(tmp_path / "plain.weights.h5")
    x, _ = data(8)
    np.testing.assert_allclose(numpy(other(x)), numpy(plain(x)), rtol=1e-6)
    assert step_of(other.layers[-1]) == 0
    # Its own step comes back from its own file, and from a layer's.
    gumbel.save_weights(tmp_path / "gumbel.weights.h5")
    again = model(heads.GumbelSoftmax(schedules.ExponentialDecay(3.0, 10, 0.5)))
    again.load_weights(tmp_path / "gumbel.weights.h5")
    assert step_of(again.layers[-1]) == 2


def test_no_temperature_without_a_head_that_has_one():
    history = small_model(heads.LogSoftmax()).fit(
        *data(4), verbose=0, callbacks=[TemperatureLogger()]
    )
    assert "temperature" not in history.history


def on_two_replicas():
    """Runs in a process of its own, which splits the CPU before TensorFlow starts."""
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * 2
    )
    import keras
    import numpy as np

    from kerasoft import heads, losses
    from kerasoft.callbacks import TemperatureLogger

    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    assert strategy.num_replicas_in_sync == 2
    with strategy.scope():
        decay = keras.optimizers.schedules.ExponentialDecay(3.0, 10, 0.5)
        head = heads.GumbelSoftmax(decay, seed=0)
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), head])
        model.compile("sgd", losses.matched_loss(head))
    history = model.fit(
        np.zeros((32, 3), "float32"),
        np.zeros(32, "int32"),
        batch_size=8,
        epochs=2,
        verbose=0,
        callbacks=[TemperatureLogger()],
    )
    assert int(keras.ops.convert_to_numpy(head.step)) == 8
    np.testing.assert_allclose(
        history.history["temperature"], [3 * 0.5**0.4, 3 * 0.5**0.8], rtol=1e-6
    )

    @tf.function
    def sample():
        return strategy.run(lambda: head(tf.zeros((5, 4)), training=True))

    one, other = strategy.experimental_local_results(sample())
    assert not np.any(np.isclose(one, other))
    again = strategy.experimental_local_results(sample())[0]
    assert not np.any(np.isclose(one, again))


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="MirroredStrategy is TensorFlow's"
)
def test_replicas_count_together_and_draw_apart():
    code = f"{inspect.getsource(on_two_replicas)}\n\non_two_replicas()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
