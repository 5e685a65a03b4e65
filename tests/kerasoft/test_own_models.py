"""The library in a user's own model: masks, labels, axes, metrics, views, files."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
from references import expected, gradient, needed, numpy
from scipy import special

import kerasoft
from kerasoft import heads, losses

each_head = pytest.mark.parametrize("name", heads.HEADS)
BACKEND = keras.backend.backend()
LABELS_RAISE = (ValueError, IndexError)
if BACKEND == "tensorflow":
    import tensorflow as tf

    LABELS_RAISE = tf.errors.InvalidArgumentError


def value(loss, y_true, y_pred):
    return float(numpy(loss(y_true, y_pred)))


# Masks


def sequences():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 6, 3)).astype("float32")
    x[1, 4:], x[2, 1:], x[3, 3:] = 0, 0, 0
    return x, rng.integers(5, size=(4, 6))


def masked_model(head):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 3))
    features = keras.layers.Masking()(inputs)
    model = keras.Model(inputs, head(keras.layers.Dense(5)(features)))
    model.compile(keras.optimizers.SGD(0.0), losses.matched_loss(head))
    return model


@pytest.mark.parametrize(
    ("name", "padding"), [*((name, -1) for name in heads.HEADS), ("log_softmax", 4)]
)
def test_the_labels_of_padded_steps_change_nothing(name, padding):
    x, labels = sequences()
    model = masked_model(heads.get(name))
    before = model.evaluate(x, labels, verbose=0)
    hidden = np.all(x == 0, axis=-1)
    rows = model.predict(x, verbose=0)[~hidden]
    if heads.get(name).outputs in ("probabilities", "log_probabilities"):
        log_p = rows if name.startswith("log") else np.log(rows)
        by_hand = -np.mean(log_p[np.arange(len(rows)), labels[~hidden]])
        assert before == pytest.approx(by_hand, rel=1e-5)
    labels[hidden] = padding
    assert model.evaluate(x, labels, verbose=0) == pytest.approx(before, rel=1e-6)
    fitted = model.fit(x, labels, verbose=0).history["loss"]
    if "gumbel" not in name:
        assert fitted == [pytest.approx(before, rel=1e-6)]
    assert np.isfinite(fitted[0])


@each_head
def test_a_mask_of_classes_is_minus_infinity(name):
    x = np.random.default_rng(0).normal(size=(3, 4, 5)).astype("float32")
    mask = np.array([True, False, True, True, False])[None, None]
    head = heads.get(name)
    hidden = np.where(mask, x, -np.inf)
    np.testing.assert_array_equal(numpy(head(x, mask=mask)), numpy(head(hidden)))
    full = np.broadcast_to(mask, x.shape)
    np.testing.assert_array_equal(numpy(head(x, mask=full)), numpy(head(hidden)))
    same = keras.layers.Softmax()(x, mask=full)
    if name == "softmax":
        np.testing.assert_allclose(numpy(head(x, mask=full)), numpy(same), atol=1e-6)


@pytest.mark.parametrize("shape", [(5,), (3,), (1, 2, 4, 5), (3, 4, 4), (4, 3)])
def test_a_mask_that_fits_nothing(shape):
    x = np.zeros((2, 4, 5), "float32")
    with pytest.raises(ValueError, match=r"as many dimensions as the logits.*Received"):
        heads.Softmax()(x, mask=np.ones(shape, "bool"))


@pytest.mark.parametrize("shape", [(None, None), (None, 10), (None, None, 5)])
def test_sizes_that_are_not_known_fit(shape):
    x = keras.KerasTensor((None, 10, 5))
    mask = keras.KerasTensor(shape, "bool")
    assert heads.Softmax()(x, mask=mask).shape == (None, 10, 5)


def test_a_mask_of_classes_leaves_that_of_steps_alone():
    x, labels = sequences()
    allowed = np.array([True, True, True, True, False])[None, None]

    def loss(labels):
        head = heads.LogSoftmax()
        features = keras.layers.Masking()(x)
        dense = keras.layers.Dense(5, kernel_initializer="ones")
        return value(
            losses.matched_loss(head), labels, head(dense(features), mask=allowed)
        )

    labels = np.minimum(labels, 3)
    other = np.where(np.all(x == 0, axis=-1), 3 - labels, labels)
    assert loss(labels) == pytest.approx(loss(other), rel=1e-6)


@each_head
def test_a_row_that_is_masked_whole_has_no_probability(name):
    x = np.array([[-np.inf] * 3, [1.0, -np.inf, 2.0]], "float32")
    head = heads.get(name)
    p = numpy(head.probabilities(head(x)))
    np.testing.assert_array_equal(p[0], 0)
    np.testing.assert_allclose(p[1].sum(), 1, rtol=1e-6)
    assert np.all(np.isfinite(numpy(head(x))))
    slope = gradient(lambda x: keras.ops.sum(keras.ops.tanh(head(x))), x)
    np.testing.assert_array_equal(slope[0], 0)
    assert np.all(np.isfinite(slope))


def test_a_hard_sample_of_a_row_that_is_masked_whole():
    x = np.full((2, 3), -np.inf, "float32")
    sample = heads.GumbelSoftmax(hard=True, seed=0)(x, training=True)
    np.testing.assert_array_equal(numpy(sample), 0)


# Labels


@pytest.mark.parametrize("label", [-1, 5, 7])
@each_head
def test_a_label_that_is_no_class_never_costs_nothing(name, label):
    head = heads.get(name)
    loss = losses.matched_loss(head)
    outputs = head(np.zeros((3, 5), "float32"))
    with pytest.raises(LABELS_RAISE):
        loss(np.array([0, label, 1]), outputs)


@pytest.mark.parametrize("label", [-1, 7])
def test_in_fit_it_raises_or_the_loss_is_not_a_number(label):
    head = heads.LogSoftmax()
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(5), head])
    model.compile("sgd", losses.matched_loss(head))
    data = np.zeros((4, 3), "float32"), np.array([0, label, 1, 2])
    if BACKEND == "jax":
        assert np.isnan(model.fit(*data, verbose=0).history["loss"][0])
    else:
        with pytest.raises(LABELS_RAISE, match=r"(?s)Labels must lie in 0..4"):
            model.fit(*data, verbose=0)


@pytest.mark.parametrize("ignored", [-1, 255, 2])
@each_head
def test_ignored_labels_are_as_good_as_absent(name, ignored):
    head = heads.get(name)
    x = np.random.default_rng(0).normal(size=(6, 5)).astype("float32")
    labels = np.array([0, ignored, 3, ignored, 4, 1])
    loss = losses.matched_loss(head, ignore_class=ignored)
    kept = labels != ignored
    alone = value(losses.matched_loss(head), labels[kept], head(x[kept]))
    assert value(loss, labels, head(x)) == pytest.approx(alone, rel=1e-6)
    slope = gradient(lambda x: loss(labels, head(x)), x)
    np.testing.assert_array_equal(slope[~kept], 0)
    assert np.abs(slope[kept]).max() > 0


def test_ignored_labels_are_ignored_as_in_keras():
    x = np.random.default_rng(0).normal(size=(2, 3, 5)).astype("float32")
    labels = np.array([[0, -1, 3], [-1, -1, 1]])
    theirs = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, ignore_class=-1
    )
    ours = losses.matched_loss("log_softmax", ignore_class=-1)
    found = value(ours, labels, heads.LogSoftmax()(x))
    assert found == pytest.approx(value(theirs, labels, x), rel=1e-5)


# Axes


@pytest.mark.parametrize("share", [0.0, 0.1])
@pytest.mark.parametrize("make", [losses.matched_loss, losses.as_logits_loss])
@each_head
def test_the_loss_follows_the_axis_of_its_head(name, make, share):
    x = np.random.default_rng(0).normal(size=(2, 4, 3, 3)).astype("float32")
    labels = np.random.default_rng(1).integers(4, size=(2, 3, 3))
    first, last = heads.get(name, axis=1), heads.get(name)
    moved = np.moveaxis(x, 1, -1)
    loss = value(make(last, label_smoothing=share), labels, last(moved))
    found = make(first, label_smoothing=share)
    assert value(found, labels, first(x)) == pytest.approx(loss, rel=1e-5)
    assert value(found, labels[:, None], first(x)) == pytest.approx(loss, rel=1e-5)
    targets = np.moveaxis(np.eye(4, dtype="float32")[labels], -1, 1)
    assert value(found, targets, first(x)) == pytest.approx(loss, rel=1e-5)


# What is given to `matched_loss`


def ending_in(head):
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(5), head])


class Subclassed(keras.Model):
    def __init__(self, *heads):
        super().__init__()
        self.dense, self.heads = keras.layers.Dense(5), list(heads)

    def call(self, inputs, training=None):
        return self.heads[0](self.dense(inputs), training=training)


@each_head
def test_a_head_is_found_by_name_in_wrappers_and_in_models(name):
    head = heads.get(name)
    inputs = keras.Input((3,))
    functional = keras.Model(inputs, ending_in(head)(inputs))
    for where in (
        head,
        ending_in(head),
        keras.Sequential([keras.layers.Dense(5), head]),
        functional,
        Subclassed(head),
        keras.layers.TimeDistributed(head),
    ):
        assert heads.find(where) is head
        assert repr(losses.matched_loss(where)) == repr(losses.matched_loss(name))
    assert type(heads.find(name)) is type(head)


@pytest.mark.parametrize(
    ("where", "says"),
    [
        (keras.layers.Dense(3), r"Expected a head, the name.*Received: <Dense"),
        (ending_in(keras.layers.Softmax()), r"Expected a head.*Received: <Softmax"),
        (Subclassed(heads.Softmax(), heads.LogSoftmax()), r"one head; .*which has 2"),
        (Subclassed(), r"one head; pass the head.*which has 0"),
        (None, r"Expected a head, the name.*Received: None"),
        ("sofmax", r"did you mean softmax.*Received: 'sofmax'"),
    ],
)
def test_where_there_is_no_head(where, says):
    with pytest.raises(ValueError, match=says):
        losses.matched_loss(where)


# Sparse heads


def oracle(name, x, labels=None):
    """The package `entmax`: probabilities, losses by row, and their gradients."""
    entmax = needed("entmax")
    torch = needed("torch")

    x = torch.tensor(np.asarray(x, "float64"), requires_grad=True)
    if labels is None:
        outputs = getattr(entmax, name)(x, dim=-1)
        weights = torch.arange(x.shape[-1], dtype=x.dtype).sin()
        (outputs * weights).sum().backward()
    else:
        outputs = getattr(entmax, f"{name}_loss")(x, torch.tensor(labels))
        outputs.sum().backward()
    assert x.grad is not None
    return outputs.detach().numpy(), x.grad.numpy()


def logits_of(kind):
    x = np.random.default_rng(0).normal(size=(200, 40)) * 2
    if kind == "tied":
        x = np.round(x)
    if kind == "large":
        x *= 1000
    if kind == "float16":
        x = x.astype("float16")
    if kind == "masked":
        hidden = np.random.default_rng(1).random(x.shape) < 0.5
        hidden[:, 0] = False
        x[hidden] = -np.inf
    return x if kind == "float16" else x.astype("float32")


@pytest.mark.parametrize("kind", ["random", "tied", "large", "float16", "masked"])
@pytest.mark.parametrize("name", ["sparsemax", "entmax15"])
def test_sparse_heads_and_their_losses_are_those_of_entmax(name, kind):
    x = logits_of(kind)
    shown = np.where(np.isinf(x), -1e4, x)  # a mask, in a package that has none
    head = heads.get(name)
    p, slope = oracle(name, shown)
    np.testing.assert_allclose(numpy(head(x)), p, atol=1e-5)
    weights = np.sin(np.arange(x.shape[-1])).astype("float32")
    ours = gradient(lambda x: keras.ops.sum(keras.ops.multiply(weights, head(x))), x)
    # On a tie at the threshold the derivative is any of several.
    if kind not in ("tied", "float16"):
        np.testing.assert_allclose(ours, slope, atol=1e-5, rtol=1e-5)

    labels = np.argmax(x, axis=-1)
    labels[::2] = 0
    paid, slope = oracle(name, shown, labels)
    loss = losses.matched_loss(head)
    rows = type(loss)(loss.alpha, reads=loss.reads, reduction=None)
    np.testing.assert_allclose(numpy(rows(labels, head(x))), paid, rtol=1e-5, atol=1e-5)
    ours = gradient(lambda x: keras.ops.sum(rows(labels, head(x))), x)
    np.testing.assert_allclose(ours, slope, atol=1e-5 if kind != "float16" else 1e-3)


@pytest.mark.parametrize("name", ["sparsemax", "entmax15"])
def test_the_loss_of_a_sparse_head_wants_the_logits_behind_its_output(name):
    head = heads.get(name)
    outputs = head(np.zeros((2, 3), "float32"))
    with pytest.raises(ValueError, match=r"needs the logits behind.*last layer"):
        losses.matched_loss(head)(np.array([0, 1]), outputs * 1)


# Each trains for two seconds, and those of a kind alike.
ALIKE = [name for name in heads.HEADS if name not in ("softmax", "log_gumbel_softmax")]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in ALIKE else ())
        for name in heads.HEADS
    ],
)
def test_each_head_trains_saves_and_loads(name, tmp_path):
    keras.utils.set_random_seed(0)
    head = heads.get(name, name="head")
    hidden = keras.layers.Dense(32, "tanh")
    model = keras.Sequential([keras.Input((4,)), hidden, keras.layers.Dense(4), head])
    model.compile(
        keras.optimizers.Adam(0.02), losses.matched_loss(model), metrics=["accuracy"]
    )
    x = np.random.default_rng(0).normal(size=(256, 4)).astype("float32")
    y = np.argmax(x, axis=-1)
    model.fit(x, y, batch_size=32, epochs=20, verbose=0)
    loss, accuracy = model.evaluate(x, y, verbose=0)
    # Spherical softmax ignores the sign of a logit, and from some starts gets stuck.
    assert accuracy > (0.5 if name == "spherical_softmax" else 0.9)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.evaluate(x, y, verbose=0) == pytest.approx([loss, accuracy], rel=1e-6)


# Losses and metrics that misread an output


def told(head, loss, metrics=(), fit=True):
    """What is said when a model is compiled so and trained."""
    model = ending_in(head)
    model.compile("sgd", loss, metrics=list(metrics))
    labels = np.arange(8) % 5
    if "sparse" not in str(getattr(loss, "name", loss)).lower():
        labels = np.eye(5, dtype="float32")[labels]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(2):
            model.fit(np.zeros((8, 3), "float32"), labels, verbose=0)
    return [str(w.message) for w in said if "kerasoft." in str(w.message)]


@pytest.mark.parametrize(
    "loss",
    [
        "sparse_categorical_crossentropy",
        "categorical_crossentropy",
        keras.losses.SparseCategoricalCrossentropy(),
        keras.losses.sparse_categorical_crossentropy,
        "kl_divergence",
    ],
)
def test_a_loss_that_reads_probabilities_on_a_log_head_is_told_of_once(loss):
    said = told(heads.LogSoftmax(), loss)
    assert len(said) == 1
    assert "reads probabilities" in said[0]
    assert "matched_loss(model)" in said[0]


def test_a_loss_that_reads_logits_after_a_softmax_is_told_of():
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    (said,) = told(heads.Softmax(), loss)
    assert "softmax would be applied twice" in said


@pytest.mark.parametrize(
    "metric",
    [
        "AUC",
        "auc",
        "bce",
        "categorical_crossentropy",
        keras.metrics.Precision(),
        keras.metrics.CategoricalCrossentropy(),
    ],
)
def test_a_metric_that_reads_probabilities_on_a_log_head_is_told_of(metric):
    (said,) = told(heads.LogSoftmax(), losses.matched_loss("log_softmax"), [metric])
    assert "kerasoft.probabilities(model)" in said


@pytest.mark.parametrize(
    ("head", "loss", "metrics"),
    [
        ("log_softmax", losses.matched_loss("log_softmax"), ["accuracy"]),
        (
            "log_softmax",
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            [keras.metrics.SparseCategoricalCrossentropy(from_logits=True)],
        ),
        ("softmax", "sparse_categorical_crossentropy", ["accuracy"]),
        ("softmax", "categorical_crossentropy", ["AUC", keras.metrics.Recall()]),
        ("log_softmax", lambda y, x: keras.ops.mean(x, axis=-1), ["accuracy"]),
        ("log_softmax", "mse", ["mae"]),
    ],
)
def test_what_reads_an_output_for_what_it_is_is_not_told_of(head, loss, metrics):
    assert told(heads.get(head), loss, metrics) == []


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="of TensorFlow")
def test_looking_for_misreadings_does_not_make_a_training_step_be_traced_twice():
    traced = []

    class Counting(heads.LogSoftmax):
        def activate(self, logits):
            traced.append(1)
            return super().activate(logits)

    model = ending_in(Counting())
    accuracy = keras.metrics.CategoricalAccuracy()
    model.compile("sgd", losses.matched_loss("log_softmax"), metrics=["mae", accuracy])
    x, y = np.zeros((8, 3), "float32"), np.eye(5, dtype="float32")[np.arange(8) % 5]
    # Keras itself makes the variables of its metrics and optimiser when it first can.
    model.optimizer.build(model.trainable_variables)
    model.compute_metrics(x, y, y)
    traced.clear()
    model.fit(x, y, verbose=0)
    assert len(traced) == 1


def test_a_log_head_inside_a_network_is_not_told_of():
    inner = heads.LogSoftmax()
    inputs = keras.Input((3,))
    outputs = heads.Softmax()(keras.layers.Dense(5)(inner(inputs)))
    model = keras.Model(inputs, outputs)
    model.compile("sgd", "sparse_categorical_crossentropy")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.fit(np.zeros((8, 3), "float32"), np.arange(8) % 5, verbose=0)


def test_a_head_inside_a_subclassed_model_is_not_told_of():
    class Sampling(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = heads.GumbelSoftmax()
            self.logits = keras.layers.Dense(5)

        def call(self, inputs, training=None):
            return self.logits(self.inner(inputs, training=training))

    model = Sampling()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.fit(np.zeros((8, 3), "float32"), np.arange(8) % 5, verbose=0)


def test_in_time_distributed_the_axis_is_counted_from_the_end():
    steps = keras.layers.TimeDistributed(heads.Softmax(axis=1))
    with pytest.raises(ValueError, match=r"from the end. Received: axis=1"):
        losses.matched_loss(steps)
    outer = keras.layers.TimeDistributed(heads.Softmax(axis=-1))
    assert losses.matched_loss(outer).axis == -1


# The view


@each_head
def test_the_view_of_a_model_puts_out_probabilities(name):
    head = heads.get(name)
    x = np.random.default_rng(0).normal(size=(6, 3)).astype("float32")
    for model in (
        ending_in(head),
        keras.Sequential([keras.layers.Dense(5), head]),
        Subclassed(head),
    ):
        view = kerasoft.probabilities(model)
        p = view.predict(x, verbose=0)
        np.testing.assert_allclose(p.sum(axis=-1), 1, atol=1e-5)
        np.testing.assert_allclose(p, numpy(head.probabilities(model(x))), atol=1e-6)
    # It shares its weights with the model.
    model.set_weights([w * 2 for w in model.get_weights()])
    np.testing.assert_allclose(
        view.predict(x, verbose=0), numpy(head.probabilities(model(x))), atol=1e-6
    )


def test_metrics_of_the_view_are_those_of_the_probabilities():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 5)).astype("float32")
    y = np.eye(5, dtype="float32")[np.argmax(x + rng.normal(size=x.shape), axis=-1)]
    model = keras.Sequential([keras.Input((5,)), heads.LogSoftmax()])
    view = kerasoft.probabilities(model)
    view.compile(
        loss="categorical_crossentropy",
        metrics=[keras.metrics.AUC(), keras.metrics.Precision(), "accuracy"],
    )
    _, *found = view.evaluate(x, y, verbose=0)
    auc, precision = keras.metrics.AUC(), keras.metrics.Precision()
    p = special.softmax(x, axis=-1)
    auc.update_state(y, p)
    precision.update_state(y, p)
    accuracy = np.mean(np.argmax(x, axis=-1) == np.argmax(y, axis=-1))
    exact = [float(numpy(auc.result())), float(numpy(precision.result())), accuracy]
    assert found == pytest.approx(exact, rel=1e-4)
    assert exact[0] > 0.6


def test_a_view_of_what_ends_in_no_head():
    with pytest.raises(ValueError, match=r"Expected a head"):
        kerasoft.probabilities(ending_in(keras.layers.ReLU()))
    layer = kerasoft.output_layers.ChunkedOutput(5)
    classifier = kerasoft.output_layers.Classifier(keras.layers.Identity(), layer)
    with pytest.raises(ValueError, match=r"AllClasses\(layer\)"):
        kerasoft.probabilities(classifier)


# Dtypes and files


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "mixed_float16", "float64"])
@each_head
def test_float32_whatever_the_dtype(name, dtype):
    head = heads.get(name, dtype=dtype)
    x = np.array([[9.0, 1.0, -2.0]], "float16")
    outputs = head(x)
    assert keras.backend.standardize_dtype(outputs.dtype) == "float32"
    np.testing.assert_allclose(numpy(outputs), expected(name, x), rtol=1e-5, atol=1e-6)


def test_a_file_is_loaded_once_kerasoft_is_imported(tmp_path):
    """The one import that README and `Head` ask for is enough."""
    model = ending_in(heads.GumbelSoftmax(2.0))
    model.compile("sgd", losses.matched_loss(model))
    model.save(tmp_path / "model.keras")
    code = (
        "import keras, kerasoft, numpy as np\n"
        f"model = keras.saving.load_model({str(tmp_path / 'model.keras')!r})\n"
        "model.fit(np.zeros((4, 3)), np.zeros(4, int), verbose=0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(kerasoft.__file__).parents[1])},
    )
    assert done.returncode == 0, done.stderr
