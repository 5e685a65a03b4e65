"""The layer that trains any number of classes at one cost, beside the dense layer."""

import keras
import numpy as np
import pytest
from references import numpy

from kerasoft import heads
from kerasoft.output_layers import Classifier, FactoredOutput

BACKEND = keras.backend.backend()
BATCH, DIM, CLASSES = 24, 12, 300
HEADS = {
    "z_loss": heads.ZScore(a=0.3, b=4.0),
    # Near 0 the logarithm of a square has slopes of any size: with a small epsilon,
    # two computations that differ in their last bit part within a few hundred steps.
    "spherical_softmax": heads.SphericalSoftmax(epsilon=1.0),
    "taylor_softmax": heads.TaylorSoftmax(),
}
each_head = pytest.mark.parametrize("name", HEADS)


def dense_loss(name, logits, labels):
    """The losses of rows and their derivatives by the logits, in float64."""
    n, rows = logits.shape[1], np.arange(len(logits))
    if name == "z_loss":
        a, b = 0.3, 4.0
        deviation = logits - logits.mean(axis=1, keepdims=True)
        std = np.sqrt(np.mean(deviation**2, axis=1, keepdims=True))
        z = deviation / std
        loss = np.logaddexp(0, a * (b - z[rows, labels])) / a
        by_z = -1 / (1 + np.exp(-a * (b - z[rows, labels])))
        slope = (-1 / n - z * z[rows, labels][:, None] / n) / std
        slope[rows, labels] += 1 / std[:, 0]
        return loss, by_z[:, None] * slope
    if name == "spherical_softmax":
        weights, by_logit = logits**2 + 1.0, 2 * logits
    else:
        weights, by_logit = 1 + logits + logits**2 / 2, 1 + logits
    total = weights.sum(axis=1, keepdims=True)
    slope = by_logit / total
    slope[rows, labels] -= (by_logit / weights)[rows, labels]
    return np.log(total[:, 0] / weights[rows, labels]), slope


def dense_step(name, kernel, features, labels, weights, rate, decay=0.0):
    """Loss, gradient of the features, and weights after a step of SGD, in float64.

    The last column of `kernel`, of shape `(classes, dim + 1)`, are the biases.
    """
    h = np.concatenate([features, np.ones((len(features), 1))], axis=1)
    loss, slope = dense_loss(name, h @ kernel.T, labels)
    share = weights / len(labels)
    slope = slope * share[:, None]
    moved = kernel * (1 - rate * decay) - rate * slope.T @ h
    return np.sum(loss * share), (slope @ kernel)[:, :-1], moved


def model_of(layer):
    """A model that hands its inputs to the layer, with weights that stay as they are.

    (Keras warns of a model that has none to train.)
    """
    model = Classifier(keras.layers.Dense(DIM, kernel_initializer="identity"), layer)
    model.compile(keras.optimizers.SGD(0.0))
    return model


def kernel_of(layer):
    kernel, bias = layer.dense_weights()
    return np.concatenate([kernel.T, bias[:, None]], axis=1)


def off(found, exact):
    """The relative error of an array, by its norm."""
    return np.linalg.norm(found - exact) / np.linalg.norm(exact)


def data(draws, count=BATCH):
    """Labels of which many are met twice, that the features tell something of."""
    x = draws.normal(size=(count, DIM)).astype("float32")
    y = np.argmax(x @ np.random.default_rng(9).normal(size=(DIM, 20)), axis=-1)
    return x, y * 15, draws.uniform(0, 2, count).astype("float32")


class Probe(keras.layers.Layer):
    """Adds a weight to a batch of features, whose gradient is that of the features."""

    def build(self, shape):
        self.offset = self.add_weight(shape=(BATCH, DIM), initializer="zeros")

    def call(self, x):
        return x + self.offset[: keras.ops.shape(x)[0]]


@each_head
def test_the_reference_is_the_gradient_of_the_head(name):
    draws = np.random.default_rng(0)
    logits = draws.normal(size=(5, 8))
    labels = draws.integers(8, size=5)
    loss, slope = dense_loss(name, logits, labels)
    outputs = HEADS[name](logits.astype("float32"))
    found = HEADS[name].matched_loss(reduction=None)(labels, outputs)
    np.testing.assert_allclose(numpy(found), loss, rtol=1e-5)
    for j in range(8):
        step = np.zeros((5, 8))
        step[:, j] = 1e-6
        up, down = (dense_loss(name, logits + d, labels)[0] for d in (step, -step))
        np.testing.assert_allclose(
            slope[:, j], (up - down) / 2e-6, rtol=1e-3, atol=1e-7
        )


@pytest.mark.parametrize("steps", [100, pytest.param(1_000, marks=pytest.mark.slow)])
@each_head
def test_steps_are_those_of_the_dense_layer(name, steps):
    keras.utils.set_random_seed(0)
    start = 1.5 if name == "z_loss" else 0.2
    schedule = keras.optimizers.schedules.ExponentialDecay(start, 100, 0.8)
    layer = FactoredOutput(
        CLASSES, HEADS[name], schedule, weight_decay=0.01, refactor_every=70
    )
    probe = Probe()
    model = Classifier(probe, layer)
    model.compile(keras.optimizers.SGD(1.0))
    draws = np.random.default_rng(0)
    model(data(draws)[0])
    kernel = first = kernel_of(layer).astype("float64")
    for i in range(steps):
        # A batch that is smaller than the others, and one larger than the features.
        count = BATCH - 17 if i % 10 == 9 else BATCH
        x, y, v = data(draws, count)
        probe.offset.assign(np.zeros((BATCH, DIM)))
        model.reset_metrics()  # Keras 3.14 gives the mean of all batches
        found = model.train_on_batch(x, y, v, return_dict=True)
        loss, slope, kernel = dense_step(
            name, kernel, x, y, v, float(schedule(i)), decay=0.01
        )
        assert float(found["loss"]) == pytest.approx(loss, rel=1e-5)
        by_features = -numpy(probe.offset)[:count]
        assert off(by_features, slope) < 1e-5
    assert off(first, kernel) > 0.1
    assert off(kernel_of(layer), kernel) < 1e-5
    # What is kept beside the factors is what it should be.
    assert off(numpy(layer.squares), kernel.T @ kernel) < 1e-5
    np.testing.assert_allclose(numpy(layer.total), kernel.sum(axis=0), atol=1e-4)
    identity = np.eye(DIM + 1)
    assert off(numpy(layer.right) @ numpy(layer.inverse), identity) < 1e-5
    assert int(numpy(layer.step)) == steps
    assert int(numpy(layer.refactored)) == steps // 70 * 70


@pytest.mark.parametrize("name", ["spherical_softmax"])
def test_fit_makes_the_steps_and_evaluate_none(name):
    keras.utils.set_random_seed(0)
    layer = FactoredOutput(CLASSES, HEADS[name], 0.5)
    model = model_of(layer)
    draws = np.random.default_rng(1)
    x, y, v = data(draws, 100)
    model(x[:1])
    kernel = kernel_of(layer).astype("float64")
    model.fit(x, y, BATCH, sample_weight=v, shuffle=False, verbose=0)
    for i in range(0, 100, BATCH):
        part = slice(i, i + BATCH)
        _, _, kernel = dense_step(name, kernel, x[part], y[part], v[part], 0.5)
    assert off(kernel_of(layer), kernel) < 1e-5
    before = [numpy(w).copy() for w in layer.weights]
    model.evaluate(x, y, verbose=0)
    model.predict(x, verbose=0)
    for one, other in zip(before, layer.weights, strict=True):
        np.testing.assert_array_equal(one, numpy(other))


def test_frozen_it_keeps_its_weights_and_passes_the_gradient_on():
    layer = FactoredOutput(CLASSES, learning_rate=0.5)
    model = model_of(layer)
    x, y, _ = data(np.random.default_rng(1), 100)
    model(x[:1])
    layer.trainable = False
    model.compile("sgd")
    before = kernel_of(layer).copy()
    weights = [numpy(w).copy() for w in model.trainable_weights]
    model.fit(x, y, BATCH, verbose=0)
    np.testing.assert_array_equal(before, kernel_of(layer))
    for one, other in zip(weights, model.trainable_weights, strict=True):
        assert np.any(one != numpy(other))


@each_head
def test_evaluation_and_prediction_are_those_of_the_dense_layer(name):
    keras.utils.set_random_seed(0)
    layer = FactoredOutput(
        CLASSES, HEADS[name], 0.5, chunk_bytes=4 * 32 * 77, ignore_class=-1, top_k=7
    )
    model = model_of(layer)
    draws = np.random.default_rng(2)
    x, y, v = data(draws, 64)
    model.fit(x, y, 32, epochs=40, verbose=0)  # so that no factor is symmetric
    h = np.concatenate([x, np.ones((64, 1))], axis=1)
    logits = h @ kernel_of(layer).astype("float64").T
    y[::9] = -1
    kept = y >= 0
    every = np.stack(
        [dense_loss(name, logits, np.full(64, k))[0] for k in range(CLASSES)], 1
    )
    if name == "z_loss":
        scores = (logits - logits.mean(1, keepdims=True)) / logits.std(1, keepdims=True)
    else:
        scores = -every
    loss = every[kept, y[kept]]
    rank = np.sum(scores[kept] > scores[kept, y[kept]][:, None], axis=1)
    found = model.evaluate(x, y, 32, 0, v, return_dict=True)
    mean = lambda values: np.average(values, weights=v[kept])  # noqa: E731
    assert found["accuracy"] == pytest.approx(mean(rank < 1), abs=1e-6)
    assert found["top_5_accuracy"] == pytest.approx(mean(rank < 5), abs=1e-6)
    if name == "z_loss":
        assert "nll" not in found
        told = "scores"
    else:
        assert found["nll"] == pytest.approx(mean(loss), rel=1e-5)
        told = "log_probabilities"
    predicted = model.predict(x, 32, verbose=0)
    assert sorted(predicted) == ["classes", told]
    best = np.argsort(-scores, axis=1)[:, :7]
    np.testing.assert_array_equal(predicted["classes"], best)
    exact = np.take_along_axis(scores, best, axis=1)
    np.testing.assert_allclose(predicted[told], exact, rtol=1e-4, atol=1e-4)
    some = draws.integers(CLASSES, size=(64, 3))
    exact = np.take_along_axis(scores, some, axis=1)
    np.testing.assert_allclose(
        numpy(layer.scores(x, some)), exact, rtol=1e-4, atol=1e-4
    )
    if name == "taylor_softmax":
        p = np.exp(-every[0])
        layer.chunk_bytes = 2**24
        drawn = numpy(layer.sample(np.repeat(x[:1], 20_000, axis=0), seed=0))
        counts = np.bincount(drawn, minlength=CLASSES)
        errors = (counts - 20_000 * p) / np.sqrt(20_000 * p)
        assert np.mean(errors**2) == pytest.approx(1, abs=0.35)  # 300 squares: sd 0.08


def test_ignored_labels_and_weights_of_0_move_nothing():
    keras.utils.set_random_seed(0)
    x, y, _ = data(np.random.default_rng(0))
    found = []
    for labels, weights in (
        (np.where(np.arange(BATCH) < 9, -1, y), None),
        (y[9:], None),
    ):
        keras.utils.set_random_seed(0)
        layer = FactoredOutput(CLASSES, learning_rate=3.0, ignore_class=-1)
        model = model_of(layer)
        model.train_on_batch(x[-len(labels) :], labels, weights)
        found.append(kernel_of(layer))
    np.testing.assert_allclose(*found, rtol=0, atol=1e-6)


# Each takes seconds to compile, and the losses differ in a line that others test.
@pytest.mark.parametrize(
    "name",
    [
        "taylor_softmax",
        pytest.param("z_loss", marks=pytest.mark.slow),
        pytest.param("spherical_softmax", marks=pytest.mark.slow),
    ],
)
def test_saved_and_loaded_it_goes_on_to_the_bit(name, tmp_path):
    keras.utils.set_random_seed(0)
    schedule = keras.optimizers.schedules.ExponentialDecay(0.5, 3, 0.8)
    backbone = keras.Sequential([keras.Input((DIM,)), keras.layers.Dense(DIM, "tanh")])
    layer = FactoredOutput(CLASSES, HEADS[name], schedule, refactor_every=5)
    model = Classifier(backbone, layer)
    model.compile(keras.optimizers.Adam(0.01))
    x, y, _ = data(np.random.default_rng(3), 170)
    model.fit(x, y, BATCH, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    for one in (model, again):
        one.fit(x, y, BATCH, epochs=2, shuffle=False, verbose=0)
    for one, other in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(numpy(one), numpy(other))
    one, other = (m.predict(x, verbose=0) for m in (model, again))
    for key in one:
        np.testing.assert_array_equal(one[key], other[key])


class Killed(keras.callbacks.Callback):
    """Ends a run in the middle of its third epoch."""

    def on_train_batch_end(self, batch, logs=None):
        if int(numpy(self.model.output_layer.step)) == 20:
            raise KeyboardInterrupt


def test_killed_and_resumed_it_ends_with_the_same_bits(tmp_path):
    x, y, _ = data(np.random.default_rng(3), 170)

    def run(*callbacks):
        keras.utils.set_random_seed(0)
        schedule = keras.optimizers.schedules.ExponentialDecay(3.0, 10, 0.8)
        layer = FactoredOutput(CLASSES, "z_loss", schedule, refactor_every=6)
        model = Classifier(keras.layers.Dense(DIM, "tanh"), layer)
        model.compile(keras.optimizers.Adam(0.01))
        model(x[:1])  # `BackupAndRestore` wants it built
        model.fit(
            x, y, BATCH, epochs=4, shuffle=False, verbose=0, callbacks=[*callbacks]
        )
        return model

    backup = tmp_path / "backup"
    with pytest.raises(KeyboardInterrupt):
        run(keras.callbacks.BackupAndRestore(str(backup)), Killed())
    resumed = run(keras.callbacks.BackupAndRestore(str(backup)))
    assert int(numpy(resumed.output_layer.step)) == 32
    for one, other in zip(run().weights, resumed.weights, strict=True):
        np.testing.assert_array_equal(numpy(one), numpy(other))


@pytest.mark.parametrize(
    "name",
    [
        "z_loss",
        pytest.param("spherical_softmax", marks=pytest.mark.slow),
        pytest.param("taylor_softmax", marks=pytest.mark.slow),
    ],
)
def test_it_learns_and_drift_is_mended(name):
    keras.utils.set_random_seed(0)
    rate = 3.0 if name == "z_loss" else 2.0
    layer = FactoredOutput(CLASSES, HEADS[name], rate, refactor_every=100)
    backbone = keras.Sequential([keras.layers.Dense(16, "tanh")])
    model = Classifier(backbone, layer)
    model.compile(keras.optimizers.Adam(0.01))
    x, y, _ = data(np.random.default_rng(4), 600)
    model.fit(x, y, epochs=25, verbose=0)
    found = model.evaluate(x, y, verbose=0, return_dict=True)
    assert found["accuracy"] > 0.5
    before = kernel_of(layer)
    layer.refactor()
    np.testing.assert_allclose(kernel_of(layer), before, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(numpy(layer.right), np.eye(17))


def test_under_jit_and_mixed_precision():
    keras.utils.set_random_seed(0)
    layer = FactoredOutput(CLASSES, learning_rate=3.0, dtype="mixed_bfloat16")
    backbone = keras.layers.Dense(16, "tanh", dtype="mixed_bfloat16")
    model = Classifier(backbone, layer)
    jit = BACKEND != "torch"  # there it asks for a compiler of its own
    model.compile(keras.optimizers.Adam(0.01), jit_compile=jit)
    x, y, _ = data(np.random.default_rng(4), 480)
    history = model.fit(x, y, 32, epochs=6, verbose=0).history
    assert history["loss"][-1] < history["loss"][0] - 1
    assert np.isfinite(model.evaluate(x, y, verbose=0)).all()
    assert {w.dtype for w in layer.weights} == {"float32", "int32"}


def singular(rate):
    """A model and a batch of one row, whose step takes `right` to a singular one."""
    layer = FactoredOutput(CLASSES, "taylor_softmax", rate, use_bias=False)
    model = model_of(layer)
    model(np.zeros((1, DIM)))
    layer.factor.assign(np.zeros((CLASSES, DIM)))
    layer.refactor()
    # With logits of 0, the derivative by the sum of squares is 1 / (2 * CLASSES).
    x = np.zeros((1, DIM), "float32")
    x[:, :2] = np.sqrt(CLASSES / 2)
    return model, x, np.array([0])


def test_a_step_that_leaves_no_inverse_is_refused_and_changes_nothing():
    model, x, y = singular(1.0)  # 1 - 2 * 1 / (2 * CLASSES) * CLASSES = 0
    before = [numpy(w).copy() for w in model.output_layer.weights[:-2]]
    try:
        loss = model.train_on_batch(x, y, return_dict=True)["loss"]
    except Exception as error:
        says = str(error)
        assert "Lower it" in says
        assert "learning_rate=" in says
        assert "1" in says.split("learning_rate=")[1]
    else:
        assert BACKEND == "jax"  # compiled, it sees no value
        assert np.isnan(loss)
    for one, other in zip(before, model.output_layer.weights, strict=False):
        np.testing.assert_array_equal(one, numpy(other))
    model, x, y = singular(0.9)
    assert np.isfinite(model.train_on_batch(x, y, return_dict=True)["loss"])


@pytest.mark.parametrize("label", [-1, CLASSES])
def test_labels_outside_are_refused(label):
    layer = FactoredOutput(CLASSES)
    layer.build((None, DIM))
    x, y, _ = data(np.random.default_rng(0))
    y[3] = label
    with pytest.raises(Exception, match=rf"(?s)Labels must lie in 0..{CLASSES - 1}"):
        layer.evaluate_rows(x, y, training=True)


def test_more_features_than_classes_is_exact_and_warned_of():
    layer = FactoredOutput(5, learning_rate=3.0)
    with pytest.warns(UserWarning, match="13 features over 5 classes.*ChunkedOutput"):
        layer.build((None, DIM))
    x, y, v = data(np.random.default_rng(0))
    kernel = kernel_of(layer).astype("float64")
    layer.evaluate_rows(x, y % 5, v, training=True)
    exact = dense_of_default(kernel, x, y % 5, v)
    np.testing.assert_allclose(kernel_of(layer), exact, rtol=0, atol=1e-5)


def dense_of_default(kernel, x, y, v):
    """A step of the Z-loss with its default a and b at rate 3, by differences."""
    h = np.concatenate([x, np.ones((len(x), 1))], axis=1)

    def loss(kernel):
        o = h @ kernel.T
        z = (o - o.mean(1, keepdims=True)) / o.std(1, keepdims=True)
        own = z[np.arange(len(y)), y]
        return np.sum(v * np.logaddexp(0, 0.1 * (10 - own)) / 0.1) / len(y)

    slope = np.zeros_like(kernel)
    for place in np.ndindex(*kernel.shape):
        step = np.zeros_like(kernel)
        step[place] = 1e-5
        slope[place] = (loss(kernel + step) - loss(kernel - step)) / 2e-5
    return kernel - 3.0 * slope


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({"num_classes": 1}, "at least 2 classes.*num_classes=1"),
        ({"head": "log_softmax"}, "one of taylor_softmax, spherical_softmax, z_loss"),
        ({"head": heads.ZScore(axis=1)}, "with axis=-1"),
        ({"learning_rate": 0}, "`learning_rate` must be a positive number.*=0"),
        ({"learning_rate": float("nan")}, "`learning_rate` must be.*=nan"),
        ({"learning_rate": True}, "`learning_rate` must be.*=True"),
        ({"weight_decay": -0.1}, "`weight_decay` must be at least 0.*-0.1"),
        ({"refactor_every": 0}, "`refactor_every` must be a positive.*=0"),
    ],
)
def test_bad_arguments(kwargs, says):
    with pytest.raises(ValueError, match=rf"(?s){says}"):
        FactoredOutput(**{"num_classes": 3, **kwargs})


def test_scores_are_no_probabilities():
    layer = FactoredOutput(CLASSES)
    layer.build((None, DIM))
    x = np.zeros((2, DIM))
    for asked in (
        lambda: layer.log_probabilities(x, np.zeros((2, 1), int)),
        lambda: layer.sample(x, 0),
    ):
        with pytest.raises(ValueError, match="scores, which are not probabilities"):
            asked()


@pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.distribute is TensorFlow's")
def test_under_a_strategy_of_one_replica():
    import tensorflow as tf

    found = []
    for strategy in (tf.distribute.MirroredStrategy(["CPU:0"]), None):
        keras.utils.set_random_seed(0)
        with strategy.scope() if strategy else tf.init_scope():
            layer = FactoredOutput(CLASSES, learning_rate=3.0, refactor_every=4)
            model = model_of(layer)
        x, y, _ = data(np.random.default_rng(4), 200)
        model.fit(x, y, shuffle=False, verbose=0)
        found.append(kernel_of(layer))
    np.testing.assert_allclose(*found, rtol=0, atol=1e-5)
