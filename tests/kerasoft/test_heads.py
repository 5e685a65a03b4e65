import functools

import keras
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from references import EXAMPLES, expected, gradient, numpy
from scipy import optimize

from kerasoft import heads, ops

each_head = pytest.mark.parametrize("name", heads.HEADS)
each_dtype = pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
each_random_head = pytest.mark.parametrize(
    "name", ["gumbel_softmax", "log_gumbel_softmax"]
)
each_variant = pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        *((name, {}) for name in heads.HEADS),
        ("gumbel_softmax", {"temperature": 0.01, "noise": "always"}),
        ("gumbel_softmax", {"temperature": -1.5, "noise": "always"}),
        ("gumbel_softmax", {"temperature": 3, "noise": "always", "hard": True}),
        ("log_gumbel_softmax", {"temperature": 0.01, "noise": "always"}),
        ("log_gumbel_softmax", {"temperature": -1.5, "noise": "always"}),
    ],
)

SHAPE = (8, 6)


def logits(limit=1e4):
    """Rows over all of [-limit, limit], and rows of near ones around large numbers."""
    near = arrays("float32", SHAPE, elements=st.floats(-8, 8, width=32))
    centres = st.sampled_from([0.0, 1000.0, limit - 8, 8 - limit]).map(np.float32)
    return st.one_of(
        arrays("float32", SHAPE, elements=st.floats(-limit, limit, width=32)),
        st.builds(np.add, near, centres),
    )


def finite_logits(dtype):
    """Any finite logits of a dtype, its extremes above all."""
    limits = ml_dtypes.finfo(dtype)
    limit, tiny = float(limits.max), float(limits.tiny)
    width = 16 if dtype == "float16" else 32
    elements = st.sampled_from([-limit, limit, 0.0, tiny]) | st.floats(
        -limit, limit, width=width
    )
    return arrays(f"float{width}", SHAPE, elements=elements).map(
        lambda x: x.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    )


# One class of each row is never masked.
masks = arrays("bool", SHAPE).map(
    lambda mask: mask & (np.arange(8)[:, None] % 6 != np.arange(6))
)


@functools.cache
def make(name, **kwargs):
    return heads.get(name, **kwargs)


def distributions(head, outputs):
    """A head's output as probabilities, once it is seen to be finite float32."""
    assert keras.backend.standardize_dtype(outputs.dtype) == "float32"
    assert np.all(np.isfinite(keras.ops.convert_to_numpy(outputs)))
    p = keras.ops.convert_to_numpy(head.probabilities(outputs))
    assert np.all(p >= 0)
    np.testing.assert_allclose(p.sum(axis=-1), 1, atol=1e-5)
    return p


@each_head
@given(x=logits())
def test_heads_agree_with_float64(name, x):
    # The logits are exact in float32. A log-probability can be as large as -2e4, where
    # neighbouring float32 lie 2e-3 apart, so that 1e-6 can only be relative there; it
    # is absolute for values up to 1, probabilities among them.
    outputs = make(name)(x)
    np.testing.assert_allclose(outputs, expected(name, x), rtol=1e-6, atol=1e-6)


@each_random_head
@given(x=logits(), temperature=st.sampled_from([0.25, 0.5, 3.0, -1.5]))
def test_without_noise_a_temperature_divides_the_logits(name, x, temperature):
    outputs = make(name, temperature=temperature, noise="never")(x)
    np.testing.assert_allclose(
        outputs, expected(name, x, temperature), rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4)])
@each_head
def test_any_shape_and_any_axis(name, shape):
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    for axis in range(-len(shape), len(shape)):
        outputs = keras.ops.convert_to_numpy(heads.get(name, axis=axis)(x))
        over_last = expected(name, np.moveaxis(x, axis, -1))
        np.testing.assert_allclose(
            outputs, np.moveaxis(over_last, -1, axis), rtol=1e-6, atol=1e-6
        )


FIXED_ORIGIN = ("taylor", "spherical", "sin")


# Exactly nothing, because float32 holds all eighths up to 1e4.
@pytest.mark.parametrize(
    "name",
    [name for name in heads.HEADS if name.split("_")[0] not in FIXED_ORIGIN],
)
@given(
    x=arrays("int16", SHAPE, elements=st.integers(-64, 64)),
    shift=st.integers(-10_000, 10_000),
)
def test_a_constant_added_to_the_logits_changes_nothing(name, x, shift):
    x = (x / 8).astype("float32")
    np.testing.assert_array_equal(make(name)(x), make(name)(x + np.float32(shift)))


@given(x=logits())
def test_base_2_is_a_temperature(x):
    for two, gumbel in (
        ("softmax2", "gumbel_softmax"),
        ("log_softmax2", "log_gumbel_softmax"),
    ):
        tempered = make(gumbel, temperature=1 / np.log(2), noise="never")
        np.testing.assert_allclose(make(two)(x), tempered(x), rtol=1e-6, atol=1e-6)


def test_sparsemax_is_the_nearest_distribution():
    x = np.array([0.9, 0.5, 0.1, -1.0])
    nearest = optimize.minimize(
        lambda p: np.sum((p - x) ** 2),
        np.full(4, 0.25),
        bounds=[(0, 1)] * 4,
        constraints={"type": "eq", "fun": lambda p: np.sum(p) - 1},
        tol=1e-12,
    )
    np.testing.assert_allclose(heads.Sparsemax()(x), nearest.x, atol=1e-6)


def test_log_softmax_survives_a_second_one():
    x = np.random.default_rng(0).normal(size=(4, 5)).astype("float32")
    once = heads.LogSoftmax()(x)
    np.testing.assert_allclose(heads.LogSoftmax()(once), once, atol=1e-6)


def test_log_sum_exp_of_the_write_up():
    log_sum_exp = 13 - heads.LogSoftmax()(np.array([13.0, 8.0, 2.0]))[0]
    assert float(log_sum_exp) == pytest.approx(13.0067, abs=1e-4)


@each_dtype
@each_variant
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_finite_and_masked_logits_give_finite_distributions(name, kwargs, dtype, data):
    x, mask = data.draw(finite_logits(dtype)), data.draw(masks)
    x[mask] = -np.inf
    head = make(name, **kwargs)
    assert np.all(distributions(head, head(x))[mask] == 0)
    weights = np.random.default_rng(0).normal(size=SHAPE).astype("float32")
    slope = gradient(lambda x: keras.ops.sum(keras.ops.multiply(weights, head(x))), x)
    if name == "z_loss":  # one over the spread of a row is no float16 where that is 0
        kept = np.ma.masked_array(x.astype("float64"), mask)
        slope = slope[np.asarray(np.ma.ptp(kept, axis=-1)) > 1e-3]
        mask = mask[np.asarray(np.ma.ptp(kept, axis=-1)) > 1e-3]
    assert np.all(np.isfinite(slope))
    assert np.all(slope[mask] == 0)


@each_head
@settings(max_examples=EXAMPLES)
@given(x=logits(20), mask=masks)
def test_masked_classes_are_as_good_as_absent(name, x, mask):
    x = np.where(mask, -np.inf, x)
    outputs = keras.ops.convert_to_numpy(make(name)(x))
    for row, logits, hidden in zip(outputs, x, mask, strict=True):
        np.testing.assert_allclose(
            row[~hidden], expected(name, logits[~hidden]), rtol=1e-6, atol=1e-6
        )


@each_head
def test_a_name_makes_a_layer_with_arguments(name):
    head = heads.get(name, axis=1, name="head")
    assert isinstance(head, keras.layers.Layer)
    assert (head.name, head.axis) == ("head", 1)
    assert heads.get(name) is not heads.get(name)


@each_head
def test_outputs_are_what_the_name_says(name):
    kind = {"log": "log_probabilities", "z": "scores"} | dict.fromkeys(
        ("sparsemax", "entmax15"), "sparse_probabilities"
    )
    assert heads.get(name).outputs == kind.get(name.split("_")[0], "probabilities")


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("softmax3", "softmax or softmax2"),
        ("log-softmax", "log_softmax"),
        ("gumbel", "gumbel_softmax"),
        ("relu", "softmax or log_softmax or softmax2 or"),
        (None, "softmax or log_softmax or softmax2 or"),
    ],
)
def test_an_unknown_name_is_answered_with_near_ones(name, near):
    with pytest.raises(ValueError, match=f"did you mean {near}.*Received: {name!r}"):
        heads.get(name)


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({"temperature": 0}, r"finite and not 0.*Received: temperature=0"),
        ({"temperature": -0.0}, r"finite and not 0.*Received: temperature=-0.0"),
        ({"temperature": np.nan}, r"finite and not 0.*Received: temperature=nan"),
        ({"temperature": np.inf}, r"finite and not 0.*Received: temperature=inf"),
        ({"temperature": "x"}, r"must be a float, a .*Schedule.*temperature='x'"),
        ({"temperature": True}, r"must be a float, a .*Schedule.*temperature=True"),
        ({"temperature": None}, r"must be a float, a .*Schedule.*temperature=None"),
        ({"noise": "sometimes"}, r"'training', 'always' or 'never'.*'sometimes'"),
        ({"noise": True}, r"'training', 'always' or 'never'.*noise=True"),
        ({"seed": 1.5}, r"`seed` must be an integer. Received: seed=1.5"),
    ],
)
@each_random_head
def test_bad_arguments_of_a_random_head(name, kwargs, says):
    with pytest.raises(ValueError, match=says):
        heads.get(name, **kwargs)


@pytest.mark.parametrize("axis", [1.5, "last", None, (0, 1)])
@each_head
def test_an_axis_that_is_no_integer(name, axis):
    with pytest.raises(ValueError, match=r"`axis` must be an integer. Received: axis="):
        heads.get(name, axis=axis)


@pytest.mark.parametrize("epsilon", [0, -1e-3, np.nan])
def test_epsilon_of_the_spherical_softmax_is_positive(epsilon):
    with pytest.raises(ValueError, match=r"`epsilon` must be positive.*Received"):
        heads.SphericalSoftmax(epsilon=epsilon)


def test_epsilon_is_what_a_logit_of_0_weighs():
    p = heads.SphericalSoftmax(epsilon=1.0)(np.array([0.0, 1.0]))
    np.testing.assert_allclose(p, [1 / 3, 2 / 3], rtol=1e-6)


@each_head
def test_a_batch_may_have_no_rows(name):
    assert make(name)(np.zeros((0, 3), "float32")).shape == (0, 3)


@pytest.mark.parametrize("axis", [-3, -2, -1, 0, 1, 2])
def test_a_hard_sample_is_one_hot_along_its_axis(axis):
    x = np.random.default_rng(0).normal(size=(3, 3, 3)).astype("float32")
    hard = heads.GumbelSoftmax(hard=True, axis=axis, seed=0)(x)
    expected = np.arange(3).reshape([3 if i == axis % 3 else 1 for i in range(3)])
    expected = np.argmax(x, axis=axis, keepdims=True) == expected
    np.testing.assert_array_equal(numpy(hard), expected)


@pytest.mark.parametrize("x", [[1.0, 0.0], [2.0, 1.0, 1.0], [1.0, 1.0, 0.0]])
def test_at_a_tie_with_its_threshold_sparsemax_still_sums_to_one(x):
    x = np.array(x, "float32")
    rows = [gradient(lambda z, i=i: ops.sparsemax(z)[i], x) for i in range(len(x))]
    jacobian = np.stack([numpy(row) for row in rows])
    np.testing.assert_allclose(jacobian.sum(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(jacobian.sum(axis=1), 0, atol=1e-6)
