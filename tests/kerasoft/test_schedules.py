import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerasoft.schedules import FlooredExponentialDecay, WarmUp


@given(
    initial_value=st.floats(0.5, 10),
    rate=st.floats(0, 1e-2),
    update_every=st.integers(1, 1000),
    minimum=st.floats(0, 0.5),
    step=st.integers(0, 100_000),
)
def test_formula(initial_value, rate, update_every, minimum, step):
    schedule = FlooredExponentialDecay(initial_value, rate, update_every, minimum)
    t = step - step % update_every
    value = max(minimum, initial_value * np.exp(-rate * t))
    # A float32 exponent of -rate * t is off by 6e-8 of itself, and exp by as much as
    # that in relative terms.
    assert float(schedule(step)) == pytest.approx(value, rel=1e-6 + 2e-7 * rate * t)


def test_jang_et_al():
    """tau = max(0.5, exp(-r t)), r = 1e-4, updated every 1000 steps (section 4)."""
    schedule = FlooredExponentialDecay(1.0, rate=1e-4, update_every=1000)
    steps = [0, 999, 1000, 1999, 2000, 6000, 7000, 50_000]
    values = [1, 1, np.exp(-0.1), np.exp(-0.1), np.exp(-0.2), np.exp(-0.6), 0.5, 0.5]
    assert [float(schedule(k)) for k in steps] == pytest.approx(values, rel=1e-6)


def test_the_step_alone_decides():
    """A value that was decayed is not decayed again: neither order nor calls count."""
    schedule = FlooredExponentialDecay(1.0, rate=0.01, minimum=0.0)
    late = float(schedule(100))
    for k in range(100):
        schedule(k)
    assert float(schedule(100)) == late == pytest.approx(np.exp(-1), rel=1e-6)


@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_steps_may_be_tensors(dtype):
    schedule = FlooredExponentialDecay(1.0, rate=0.1, update_every=2, minimum=0.1)
    value = schedule(keras.ops.cast(5, dtype))
    assert float(value) == pytest.approx(np.exp(-0.4), rel=1e-6)


def test_round_trip():
    schedule = FlooredExponentialDecay(2.0, rate=0.1, update_every=3, minimum=0.2)
    again = keras.optimizers.schedules.deserialize(
        keras.optimizers.schedules.serialize(schedule)
    )
    assert isinstance(again, FlooredExponentialDecay)
    assert again.get_config() == schedule.get_config()


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({"rate": -1e-3}, r"`rate` must not be negative.*Received: rate=-0.001"),
        ({"rate": 0.1, "update_every": 0}, r"at least 1.*Received: update_every=0"),
        ({"rate": 0.1, "minimum": 2.0}, r"must not be above.*minimum=2.0, initial.*=1"),
    ],
)
def test_bad_arguments(kwargs, says):
    with pytest.raises(ValueError, match=says):
        FlooredExponentialDecay(1.0, **kwargs)


@given(
    warmup=st.integers(1, 50),
    left=st.integers(1, 200),
    step=st.integers(0, 300),
    peak=st.floats(1e-4, 10),
)
def test_warm_up_rises_in_a_line_and_then_falls(warmup, left, step, peak):
    falling = keras.optimizers.schedules.PolynomialDecay(peak, left, 0.0)
    corners = [0, warmup, warmup + left]
    value = np.interp(step, corners, [0, peak, 0])
    schedule = WarmUp(falling, warmup)
    assert float(schedule(step)) == pytest.approx(value, rel=1e-4, abs=1e-6 * peak)


def test_warm_up_before_a_cosine_is_keras_s_own():
    schedules = keras.optimizers.schedules
    ours = WarmUp(schedules.CosineDecay(0.3, 40), 10)
    theirs = schedules.CosineDecay(0.0, 40, warmup_target=0.3, warmup_steps=10)
    for step in range(60):
        assert float(ours(step)) == pytest.approx(float(theirs(step)), abs=1e-6)


def test_warm_up_comes_back_from_its_config():
    falling = keras.optimizers.schedules.PolynomialDecay(0.1, 8, 0.0)
    optimizer = keras.optimizers.SGD(WarmUp(falling, 2))
    again = keras.optimizers.SGD.from_config(optimizer.get_config())
    assert again.get_config() == optimizer.get_config()
    keras.ops.convert_to_numpy(again.learning_rate)


@pytest.mark.parametrize(
    ("warmup_steps", "rate", "says"),
    [
        (0, None, r"at least 1. Received: warmup_steps=0"),
        (2.5, None, r"at least 1. Received: warmup_steps=2.5"),
        (2, 0.1, r"must be a `keras.*Received: schedule=0.1"),
    ],
)
def test_bad_arguments_of_warm_up(warmup_steps, rate, says):
    falling = keras.optimizers.schedules.PolynomialDecay(0.1, 8, 0.0)
    with pytest.raises(ValueError, match=says):
        WarmUp(rate or falling, warmup_steps)
