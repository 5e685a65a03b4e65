"""Output layers against the dense layer that they stand for."""

from typing import Any

import keras
import numpy as np
import pytest
from references import numpy
from scipy import special, stats

from kerasoft import heads, losses
from kerasoft.output_layers import ChunkedOutput, Classifier
from kerasoft.output_layers.crossentropy import crossentropy
from kerasoft.output_layers.loops import (
    gumbel_noise,
)

BACKEND = keras.backend.backend()
BATCH, DIM, CLASSES = 37, 8, 51
RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(BATCH, DIM)).astype("float32")
LABELS = RNG.integers(CLASSES, size=BATCH)
WEIGHTS = RNG.uniform(0, 2, size=BATCH).astype("float32")
KERNEL = RNG.normal(size=(CLASSES, DIM)).astype("float32")
BIAS = RNG.normal(size=CLASSES).astype("float32")
# Of these budgets of bytes, one holds a row, one several that divide nothing, one all.
BUDGETS = (1, 4 * CLASSES * 5, 2**28)
each_head = pytest.mark.parametrize("name", heads.HEADS)


def slopes(function, *arrays):
    """A scalar function's value, and its gradients, on the backend in use."""
    tensors = [keras.ops.convert_to_tensor(a) for a in arrays]
    if BACKEND == "jax":
        import jax

        order = tuple(range(len(arrays)))
        value, found = jax.jit(jax.value_and_grad(function, argnums=order))(*tensors)
    elif BACKEND == "torch":
        tensors = [t.detach().clone().requires_grad_() for t in tensors]
        value = function(*tensors)
        value.backward()
        found = [t.grad for t in tensors]
    else:
        import tensorflow as tf

        @tf.function
        def both(*tensors):
            with tf.GradientTape() as tape:
                tape.watch(tensors)
                value = function(*tensors)
            return value, tape.gradient(value, tensors)

        value, found = both(*tensors)
    return float(numpy(value)), [numpy(slope) for slope in found]


def dense(features, labels, share, allowed, noise: Any = 0.0):
    """Loss and gradients of a dense layer, by hand in float64."""
    h, w, b, v = (np.asarray(x, "float64") for x in (features, KERNEL, BIAS, WEIGHTS))
    logits = h @ w.T + b + noise
    logits[:, ~allowed] = -np.inf
    log_p = special.log_softmax(logits, axis=-1)
    target = np.eye(CLASSES)[labels] * (1 - share) + share * allowed / allowed.sum()
    rows = -np.sum(np.where(allowed, target * np.where(allowed, log_p, 0), 0), axis=-1)
    slope = v[:, None] * (np.exp(log_p) - target)
    return v @ rows, (slope @ w, slope.T @ h, slope.sum(axis=0), rows)


@pytest.mark.parametrize(
    ("chunk_bytes", "training"), [*((b, True) for b in BUDGETS), (BUDGETS[1], False)]
)
@pytest.mark.parametrize("share", [0.0, 0.1])
@pytest.mark.parametrize("masked", [False, True])
def test_loss_and_gradients_are_those_of_the_dense_layer(
    masked, share, chunk_bytes, training
):
    allowed = np.arange(CLASSES) % 4 != 3 if masked else np.ones(CLASSES, bool)
    labels = LABELS // 4 * 4 if masked else LABELS

    def total(features, kernel, bias, weights):
        return crossentropy(
            features,
            kernel,
            bias,
            keras.ops.convert_to_tensor(labels, "int32"),
            weights,
            share,
            allowed if masked else None,
            chunk_bytes=chunk_bytes,
            training=training,
        ).total

    value, found = slopes(total, FEATURES, KERNEL, BIAS, WEIGHTS)
    exact, expected = dense(FEATURES, labels, share, allowed)
    assert value == pytest.approx(exact, rel=1e-5)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_noise_enters_the_loss_and_its_gradients(share):
    rows = 5

    def noise(i, shape):
        i = keras.ops.cast(i, "float32")
        grid = keras.ops.arange(shape[0] * shape[1], dtype="float32")
        return keras.ops.reshape(keras.ops.sin(grid * (i + 1)), shape)

    def total(features, kernel, bias, weights):
        return crossentropy(
            features,
            kernel,
            bias,
            keras.ops.convert_to_tensor(LABELS, "int32"),
            weights,
            share,
            noise=noise,
            chunk_bytes=4 * CLASSES * rows,
        ).total

    edges = [CLASSES * k // 4 for k in range(5)]
    added = np.zeros((40, CLASSES))
    for i in range(8):
        for k in range(4):
            shape = (rows, edges[k + 1] - edges[k])
            added[i * rows : (i + 1) * rows, edges[k] : edges[k + 1]] = np.sin(
                np.arange(np.prod(shape)) * (4 * i + k + 1)
            ).reshape(shape)
    value, found = slopes(total, FEATURES, KERNEL, BIAS, WEIGHTS)
    every = np.ones(CLASSES, bool)
    exact, expected = dense(FEATURES, LABELS, share, every, added[:BATCH])
    assert value == pytest.approx(exact, rel=1e-4)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


def test_noise_of_a_chunk_is_gumbel_and_a_function_of_its_index():
    seed = keras.random.SeedGenerator(3).next()
    first, again, second = (numpy(gumbel_noise(seed, i, (200, 500))) for i in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.02
    assert stats.kstest(first.ravel(), stats.gumbel_r.cdf).pvalue > 0.01


# As a layer of a model


def weights_of(layer):
    weights = {"kernel": KERNEL, "bias": BIAS}
    if not layer.built:
        layer.build((None, DIM))
    for name, value in weights.items():
        getattr(layer, name).assign(value)


def identity():
    return keras.layers.Dense(DIM, kernel_initializer="identity")


def many(head, **kwargs):
    """A classifier with the weights above."""
    model = Classifier(identity(), ChunkedOutput(CLASSES, head, **kwargs))
    model(FEATURES)
    weights_of(model.output_layer)
    return model


def few(head):
    """The same model, as Keras has it."""
    logits = keras.layers.Dense(CLASSES)
    model = keras.Sequential([keras.Input((DIM,)), identity(), logits, head])
    logits.set_weights([KERNEL.T, BIAS])
    return model


def after_a_step(model, labels, weights, **kwargs):
    model.compile(optimizer=keras.optimizers.SGD(1.0), **kwargs)
    history = model.fit(
        FEATURES, labels, sample_weight=weights, batch_size=BATCH, verbose=0
    ).history
    return history["loss"][0], model.get_weights()


@pytest.mark.parametrize(
    ("name", "share"), [*((name, 0.1) for name in heads.HEADS), ("log_softmax", 0.0)]
)
def test_a_step_of_training_is_that_of_dense_head_and_loss(name, share):
    quiet = {"noise": "never", "temperature": 0.7} if "gumbel" in name else {}
    labels = np.where(np.arange(BATCH) % 9 == 4, -1, LABELS)
    model = many(
        heads.get(name, **quiet),
        label_smoothing=share,
        ignore_class=-1,
        chunk_bytes=4 * CLASSES * 20,
    )
    loss, found = after_a_step(model, labels, WEIGHTS)
    head = heads.get(name, **quiet)
    matched = losses.matched_loss(head, label_smoothing=share, ignore_class=-1)
    exact, expected = after_a_step(few(head), labels, WEIGHTS, loss=matched)
    assert loss == pytest.approx(exact, rel=1e-5)
    (w, b, kernel, bias), (w_, b_, kernel_, bias_) = found, expected
    for one, other in ((w, w_), (b, b_), (kernel, kernel_.T), (bias, bias_)):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=2e-5)
    assert np.abs(kernel - KERNEL).max() > 1e-4


@pytest.mark.parametrize(
    "name", ["softmax", "log_softmax2", "gumbel_softmax", "taylor_softmax", "sparsemax"]
)
def test_evaluate_and_predict_are_those_of_dense_and_head(name):
    model, head = many(name, top_k=3), heads.get(name)
    model.compile()
    log_p = numpy(head.log_probabilities(few(head)(FEATURES)))
    truth = log_p[np.arange(BATCH), LABELS]
    rank = np.sum(log_p >= truth[:, None], axis=-1) - 1
    found = model.evaluate(FEATURES, LABELS, batch_size=10, verbose=0, return_dict=True)
    assert found["nll"] == pytest.approx(-np.mean(truth), rel=1e-4)
    assert found["accuracy"] == pytest.approx(np.mean(rank < 1), abs=1e-6)
    assert found["top_5_accuracy"] == pytest.approx(np.mean(rank < 5), abs=1e-6)

    predicted = model.predict(FEATURES, batch_size=10, verbose=0)
    assert predicted["classes"].shape == (BATCH, 3)
    best = np.sort(log_p, axis=-1)[:, :-4:-1]
    np.testing.assert_allclose(
        predicted["log_probabilities"], best, rtol=1e-4, atol=1e-5
    )
    at = np.take_along_axis(log_p, predicted["classes"], axis=-1)
    np.testing.assert_allclose(at, best, rtol=1e-4, atol=1e-5)
    classes = np.stack([LABELS, np.zeros_like(LABELS)], axis=-1)
    found = model.output_layer.log_probabilities(FEATURES, classes)
    exact = np.take_along_axis(log_p, classes, axis=-1)
    np.testing.assert_allclose(numpy(found), exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("chunk_bytes", [1, 4 * BATCH * 7, 2**28])
def test_prediction_by_blocks_of_classes(chunk_bytes):
    allowed = np.arange(CLASSES) % 4 != 3
    layer = ChunkedOutput(CLASSES, allowed=allowed, chunk_bytes=chunk_bytes, top_k=7)
    weights_of(layer)
    logits = np.where(allowed, FEATURES @ KERNEL.T + BIAS, -np.inf)
    log_p = special.log_softmax(logits.astype("float64"), axis=-1)
    found = layer(FEATURES)
    order = np.argsort(-log_p, axis=-1)[:, :7]
    np.testing.assert_array_equal(numpy(found["classes"]), order)
    best = np.take_along_axis(log_p, order, axis=-1)
    np.testing.assert_allclose(numpy(found["log_probabilities"]), best, rtol=1e-5)


def test_a_masked_class_stays_masked_at_a_negative_temperature():
    allowed = np.arange(CLASSES) % 4 != 3
    head = heads.GumbelSoftmax(-1.5, noise="never")
    layer = ChunkedOutput(CLASSES, head, allowed=allowed)
    weights_of(layer)
    logits = np.where(allowed, (FEATURES @ KERNEL.T + BIAS) / -1.5, -np.inf)
    best = np.argsort(-logits, axis=-1)[:, :5]
    np.testing.assert_array_equal(numpy(layer(FEATURES)["classes"]), best)
    assert np.all(allowed[numpy(layer.sample(FEATURES, seed=0))])
    labels = LABELS // 4 * 4
    found, _ = layer.evaluate_rows(FEATURES, labels)
    log_p = special.log_softmax(logits.astype("float64"), axis=-1)
    exact = -log_p[np.arange(BATCH), labels]
    np.testing.assert_allclose(numpy(found.nll), exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("chunk_bytes", [1, 4 * 20_000 * 7, 2**28])
def test_samples_by_blocks_of_classes_are_of_the_softmax(chunk_bytes):
    allowed = np.arange(CLASSES) % 4 != 3
    head = heads.GumbelSoftmax(1.3)
    layer = ChunkedOutput(CLASSES, head, allowed=allowed, chunk_bytes=chunk_bytes)
    weights_of(layer)
    rows = 20_000
    features = np.repeat(FEATURES[:1] / 2, rows, axis=0)
    drawn = numpy(layer.sample(features, seed=1))
    np.testing.assert_array_equal(drawn, numpy(layer.sample(features, seed=1)))
    assert not np.array_equal(drawn, numpy(layer.sample(features, seed=2)))
    counts = np.bincount(drawn, minlength=CLASSES)
    assert np.all(counts[~allowed] == 0)
    logits = (features[0] @ KERNEL.T + BIAS)[allowed]
    p = special.softmax(logits.astype("float64") / 1.3)
    wrong = special.softmax(logits.astype("float64") / 1.2)
    # Classes too rare for a chi-square are counted with the most frequent one.
    rare, first = p * rows < 5, np.argmax(p)

    def pvalue(p):
        kept, share = counts[allowed] * ~rare, p * ~rare
        kept[first] += counts[allowed][rare].sum()
        share[first] += p[rare].sum()
        return stats.chisquare(kept[~rare], rows * share[~rare]).pvalue

    assert pvalue(p) > 0.001
    assert pvalue(wrong) < 1e-6


def test_no_samples_of_a_head_that_is_no_softmax():
    layer = ChunkedOutput(CLASSES, "sparsemax")
    weights_of(layer)
    with pytest.raises(ValueError, match=r"Only softmax heads.*Sparsemax"):
        layer.sample(FEATURES)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@each_head
def test_half_precision_features_give_finite_float32(name, dtype):
    layer = ChunkedOutput(CLASSES, name, dtype=f"mixed_{dtype}")
    weights_of(layer)
    features = keras.ops.cast(FEATURES * 100, dtype)
    found, _ = layer.evaluate_rows(features, LABELS, training=False)
    assert found.rank is not None
    for part in (found.total, found.nll, found.rank):
        assert keras.backend.standardize_dtype(part.dtype) == "float32"
        assert np.all(np.isfinite(numpy(part)))
    exact, _ = layer.evaluate_rows(keras.ops.cast(features, "float32"), LABELS)
    assert float(numpy(found.total)) == float(numpy(exact.total))


def learnable():
    x = np.random.default_rng(0).normal(size=(512, DIM)).astype("float32")
    return x, np.argmax(x @ KERNEL.T, axis=-1)


# One whose gradients are made by hand, one with noise and steps, one by autodiff.
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("log_softmax", marks=pytest.mark.slow),
        "gumbel_softmax",
        pytest.param("entmax15", marks=pytest.mark.slow),
    ],
)
def test_it_trains_saves_loads_and_goes_on(name, tmp_path):
    keras.utils.set_random_seed(0)
    backbone = keras.Sequential([keras.Input((DIM,)), keras.layers.Dense(16, "tanh")])
    model = Classifier(backbone, ChunkedOutput(CLASSES, name, chunk_bytes=4 * 51 * 9))
    model.compile(keras.optimizers.Adam(0.02))
    x, y = learnable()
    history = model.fit(x, y, epochs=5, validation_data=(x, y), verbose=0).history
    assert history["val_nll"][-1] < history["val_nll"][0]
    assert history["val_accuracy"][-1] > 3 / CLASSES
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.evaluate(x, y, verbose=0) == pytest.approx(
        model.evaluate(x, y, verbose=0), rel=1e-6
    )
    one, other = (m.predict(x[:20], verbose=0) for m in (model, again))
    np.testing.assert_array_equal(one["classes"], other["classes"])
    again.fit(x, y, verbose=0)
    model.fit(x, y, verbose=0)
    if "gumbel" in name:
        steps = [int(numpy(m.output_layer.head.step)) for m in (model, again)]
        assert steps == [6 * 16] * 2


def test_under_jit_and_mixed_precision():
    keras.utils.set_random_seed(0)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        backbone = keras.Sequential([keras.layers.Dense(16, "tanh")])
        model = Classifier(backbone, ChunkedOutput(CLASSES, chunk_bytes=4 * 51 * 9))
    finally:
        keras.config.set_dtype_policy(before)
    jit = BACKEND != "torch"  # there it asks for a compiler of its own
    model.compile(keras.optimizers.Adam(0.02), jit_compile=jit)
    x, y = learnable()
    history = model.fit(x, y, epochs=5, verbose=0).history
    assert history["nll"][-1] < history["nll"][0]
    assert model.output_layer.kernel.dtype == "float32"


def test_regularisers_of_the_backbone_are_part_of_the_loss():
    kernel = keras.layers.Dense(
        DIM, kernel_initializer="identity", kernel_regularizer=keras.regularizers.L2(1)
    )
    model = Classifier(kernel, ChunkedOutput(CLASSES))
    model.compile()
    by_name = model.evaluate(FEATURES, LABELS, verbose=0, return_dict=True)
    assert by_name["loss"] == pytest.approx(by_name["nll"] + DIM, rel=1e-5)


@pytest.mark.parametrize("label", [-1, CLASSES])
def test_a_label_that_is_no_class(label):
    layer = ChunkedOutput(CLASSES)
    weights_of(layer)
    labels = np.where(np.arange(BATCH) == 3, label, LABELS)
    with pytest.raises(Exception, match=rf"(?s)Labels must lie in 0..{CLASSES - 1}"):
        layer.evaluate_rows(FEATURES, labels)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: ChunkedOutput(0), r"`num_classes` must be a positive.*num_classes=0"),
        (lambda: ChunkedOutput(5, top_k=0), r"`top_k` must be a positive.*top_k=0"),
        (lambda: ChunkedOutput(5, chunk_bytes=-1), r"`chunk_bytes` must be.*=-1"),
        (lambda: ChunkedOutput(5, "sofmax"), r"did you mean softmax.*'sofmax'"),
        (lambda: ChunkedOutput(5, heads.Softmax(axis=1)), r"have axis=-1.*axis=1"),
        (lambda: ChunkedOutput(5, allowed=[True]), r"`allowed` must be of shape \(5,"),
        (
            lambda: ChunkedOutput(5, heads.GumbelSoftmax("learned")),
            r"learned temperature must have noise='never'.*'training'",
        ),
        (
            lambda: ChunkedOutput(5)(np.zeros((2, 3, 4))),
            r"Features must be of shape \(batch, dim\).*Received.*3, 4",
        ),
        (
            lambda: Classifier(identity(), keras.layers.Dense(3)),
            r"`output_layer` must be a layer of.*<Dense",
        ),
        (
            lambda: after_a_step(many("softmax"), LABELS, WEIGHTS, loss="mse"),
            r"Compile a `Classifier` without `loss`.*loss='mse'",
        ),
        (
            lambda: after_a_step(many("softmax"), LABELS, WEIGHTS, metrics=["mae"]),
            r"Compile a `Classifier` without `metrics`.*mae",
        ),
    ],
)
def test_bad_arguments(make, says):
    with pytest.raises(ValueError, match=says):
        make()
