import itertools

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from references import EXAMPLES, gradient, numpy
from scipy import integrate, special, stats

from kerasoft import heads, ops

LOGITS = np.array([2.0, 1.0, 0.0, -1.0, 0.5])

each_random_head = pytest.mark.parametrize(
    "make", [heads.GumbelSoftmax, heads.LogGumbelSoftmax]
)


def test_noise_is_gumbel():
    noise = np.ravel(numpy(ops.gumbel_noise((1000, 100), seed=0)))
    assert stats.kstest(noise, stats.gumbel_r.cdf).pvalue > 0.01
    assert stats.kstest(noise + 0.05, stats.gumbel_r.cdf).pvalue < 1e-6
    # Three standard errors of a mean and a variance of 100,000 (excess kurtosis: 2.4).
    assert np.mean(noise) == pytest.approx(np.euler_gamma, abs=0.0122)
    assert np.var(noise) == pytest.approx(np.pi**2 / 6, abs=0.0328)


@pytest.mark.parametrize("temperature", [0.1, 1.0, 3.0])
@each_random_head
def test_argmax_is_a_sample_of_softmax(make, temperature):
    n = 100_000
    head = make(temperature=temperature, seed=1)
    sample = head(np.tile(LOGITS, (n, 1)), training=True)
    counts = np.bincount(np.argmax(numpy(sample), axis=-1), minlength=LOGITS.size)
    assert stats.chisquare(counts, n * special.softmax(LOGITS)).pvalue > 0.01
    assert stats.chisquare(counts, n * special.softmax(LOGITS / 1.05)).pvalue < 1e-6


@pytest.mark.parametrize("temperature", [0.1, 1.0, -1.5])
@each_random_head
def test_10000_steps_in_float16_stay_finite(make, temperature):
    head = make(temperature=temperature, seed=0, dtype="mixed_float16")
    limit = np.finfo("float16").max
    rows = np.array([[0, 1, -1, 8], [limit, limit, 0, -limit]], "float16")
    steps = 10_000
    x = np.tile(rows, (steps // 50, 1, 1))
    for _ in range(50):
        assert np.all(np.isfinite(numpy(head(x, training=True))))
    assert int(head.step) == 50


@pytest.mark.parametrize(
    ("noise", "in_training", "in_inference"),
    [("training", True, False), ("always", True, True), ("never", False, False)],
)
@each_random_head
def test_when_noise_is_added(make, noise, in_training, in_inference):
    head = make(temperature=2.0, noise=noise, seed=0)
    plain = numpy(make(temperature=2.0, noise="never")(LOGITS))
    for training, noisy in ((True, in_training), (False, in_inference)):
        outputs = numpy(head(LOGITS, training=training))
        assert np.allclose(outputs, plain) != noisy


@each_random_head
def test_the_seed_decides_the_noise(make):
    def draws(seed):
        head = make(seed=seed)
        return [numpy(head(LOGITS, training=True)) for _ in range(2)]

    first, second = draws(7)
    np.testing.assert_array_equal(draws(7), [first, second])
    assert not np.allclose(first, second)
    assert not np.allclose(draws(8)[0], first)


@each_random_head
def test_without_a_seed_one_is_drawn_and_kept_in_the_config(make):
    head, other = make(), make()
    config = head.get_config()
    assert isinstance(config["seed"], int)
    assert config["seed"] != other.get_config()["seed"]
    np.testing.assert_array_equal(
        head(LOGITS, training=True), make.from_config(config)(LOGITS, training=True)
    )


def test_each_row_has_noise_of_its_own():
    sample = numpy(heads.GumbelSoftmax(seed=0)(np.zeros((50, 4)), training=True))
    assert len(np.unique(sample, axis=0)) == 50


def test_log_gumbel_softmax_is_the_logarithm():
    p, log_p = (
        make(temperature=0.7, seed=3)(LOGITS, training=True)
        for make in (heads.GumbelSoftmax, heads.LogGumbelSoftmax)
    )
    np.testing.assert_allclose(np.exp(numpy(log_p)), p, rtol=1e-6)


@pytest.mark.parametrize("axis", [0, 1])
def test_hard_is_one_hot_with_the_soft_gradient(axis):
    x = np.random.default_rng(0).normal(size=(6, 5)).astype("float32")
    weights = np.random.default_rng(1).normal(size=x.shape).astype("float32")

    def sampled(hard):
        head = heads.GumbelSoftmax(0.7, hard=hard, seed=0, axis=axis)
        outputs = numpy(head(x, training=True))
        head = heads.GumbelSoftmax(0.7, hard=hard, seed=0, axis=axis)
        slope = gradient(
            lambda x: keras.ops.sum(
                keras.ops.multiply(weights, head(x, training=True))
            ),
            x,
        )
        return outputs, slope

    (soft, soft_slope), (hard, hard_slope) = sampled(False), sampled(True)
    one_hot = soft == soft.max(axis=axis, keepdims=True)
    np.testing.assert_array_equal(hard, one_hot.astype("float32"))
    np.testing.assert_allclose(hard_slope, soft_slope, atol=1e-7)
    assert np.abs(soft_slope).max() > 0.01


def test_a_low_temperature_is_near_one_hot_and_a_high_one_near_uniform():
    x = np.tile(LOGITS, (1000, 1))
    cold = heads.GumbelSoftmax(0.01, seed=0)(x, training=True)
    hot = heads.GumbelSoftmax(1000.0, seed=0)(x, training=True)
    assert np.median(np.max(numpy(cold), axis=-1)) > 0.999
    np.testing.assert_allclose(hot, 0.2, atol=0.01)


def test_straight_through_has_one_tensors_value_and_the_others_gradient():
    soft = special.softmax(LOGITS)
    hard = np.eye(5)[0]
    assert np.array_equal(numpy(ops.straight_through(hard, soft)), hard)
    weights = np.arange(5.0)
    slope = gradient(
        lambda x: keras.ops.dot(weights, ops.straight_through(hard, x)), soft
    )
    np.testing.assert_allclose(slope, weights)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_top_k_draws_without_replacement(k):
    """Plackett and Luce: each draw is of softmax over the classes that are left."""
    n = 100_000
    drawn = numpy(ops.gumbel_top_k(np.tile(LOGITS, (n, 1)), k, seed=2))
    assert drawn.shape == (n, k)
    orders = list(itertools.permutations(range(5), k))
    p = special.softmax(LOGITS)
    expected = []
    for order in orders:
        left, chance = 1.0, 1.0
        for drawn_class in order:
            chance *= p[drawn_class] / left
            left -= p[drawn_class]
        expected.append(n * chance)
    places = (drawn * 5 ** np.arange(k)).sum(axis=-1)
    counts = [
        np.sum(places == np.dot(order, 5 ** np.arange(k)), dtype=int)
        for order in orders
    ]
    assert sum(counts) == n
    assert stats.chisquare(counts, expected).pvalue > 0.01


def test_top_k_draws_masked_classes_last():
    drawn = numpy(ops.gumbel_top_k([[-np.inf, 0.0, -np.inf, 1.0]] * 20, 2, seed=0))
    assert {*np.ravel(drawn)} == {1, 3}


@pytest.mark.parametrize("k", [0, 6])
def test_top_k_says_how_many_can_be_drawn(k):
    with pytest.raises(ValueError, match=f"between 1 and .* 5. Received: k={k}"):
        ops.gumbel_top_k(LOGITS, k)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
def test_the_density_of_two_classes_integrates_to_1(temperature):
    """Over the log-odds u: log-samples are (log s(u), log s(-u))."""
    u = np.linspace(-200, 200, 400_001)
    sample = np.stack([special.log_expit(u), special.log_expit(-u)], axis=-1)
    logits = np.array([0.7, -0.4])
    # A log-sample is a point of a curve; Maddison et al. measure it by its u.
    density = np.exp(
        numpy(ops.log_gumbel_softmax_log_density(sample, logits, temperature))
    )
    assert integrate.trapezoid(density, u) == pytest.approx(1, abs=1e-3)
    # The difference of two Gumbel variables is logistic.
    logistic = stats.logistic.pdf(u, loc=1.1 / temperature, scale=1 / temperature)
    np.testing.assert_allclose(density, logistic, rtol=2e-3, atol=1e-6)


def test_a_masked_class_has_no_part_in_the_density():
    logits = np.array([0.3, -np.inf, -1.0, 0.8])
    sample = numpy(ops.log_gumbel_softmax(logits, 0.4, np.array([0.1, 0.2, 0.3, 0.4])))
    kept = [0, 2, 3]
    found = numpy(ops.log_gumbel_softmax_log_density(sample, logits, 0.4))
    without = ops.log_gumbel_softmax_log_density(sample[kept], logits[kept], 0.4)
    assert found == pytest.approx(float(numpy(without)), rel=1e-5)


def test_the_density_at_a_low_temperature_is_finite():
    logits = np.tile(LOGITS, (1000, 1))
    noise = ops.gumbel_noise(logits.shape, seed=0)
    sample = ops.log_gumbel_softmax(logits, 0.01, noise)
    density = numpy(ops.log_gumbel_softmax_log_density(sample, logits, 0.01))
    assert np.all(np.isfinite(density))


@given(
    arrays("float64", (3, 4), elements=st.floats(-50, 50)),
    arrays("float64", (3, 4), elements=st.floats(-50, 50)),
)
@settings(max_examples=EXAMPLES, deadline=None)
def test_kl_divergence_is_that_of_scipy(logits, prior):
    found = numpy(ops.categorical_kl_divergence(logits, prior))
    p, q = special.softmax(logits, axis=-1), special.softmax(prior, axis=-1)
    np.testing.assert_allclose(found, special.rel_entr(p, q).sum(-1), 1e-4, 1e-5)
    uniform = numpy(ops.categorical_kl_divergence(logits.T, axis=0))
    entropy = stats.entropy(p, axis=-1)
    np.testing.assert_allclose(uniform, np.log(4) - entropy, 1e-4, 1e-5)


def test_kl_divergence_of_a_masked_class():
    found = ops.categorical_kl_divergence([[0.0, -np.inf, 0.0], [-np.inf] * 3])
    np.testing.assert_allclose(numpy(found), 0, atol=1e-6)
    sure = numpy(ops.categorical_kl_divergence([3e38, 0.0, -3e38]))
    assert sure == pytest.approx(np.log(3))


def test_kl_divergence_has_a_finite_gradient_where_the_noise_is_gone():
    slope = gradient(
        lambda x: keras.ops.sum(ops.categorical_kl_divergence(x)),
        np.array([[100.0, 0.0, -100.0], [0.0, 0.0, 0.0]]),
    )
    np.testing.assert_allclose(slope, 0, atol=1e-6)


@each_random_head
@pytest.mark.parametrize("temperature", [0.0, 1e-45, 1e-38, -1e-30])
def test_a_schedule_may_end_at_0(make, temperature):
    steps = keras.optimizers.schedules.PolynomialDecay(1.0, 10, temperature)
    head = make(steps, noise="never")
    head(LOGITS[None])
    head.step.assign(20)
    for logits in ([2.0, 1.0, 0.0], [2.0, -np.inf, -3e38], [1.0, 1.0, -1.0]):
        x = np.array([logits], "float32")
        found = numpy(head(x))
        p = np.exp(found) if make is heads.LogGumbelSoftmax else found
        best = np.min(x[np.isfinite(x)]) if temperature < 0 else np.max(x)
        np.testing.assert_allclose(p, (x == best) / np.sum(x == best), atol=1e-6)
        assert np.all(np.isfinite(found))
