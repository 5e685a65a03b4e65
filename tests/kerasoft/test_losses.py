import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from references import EXAMPLES, expected, gradient, log_expected
from scipy.special import softmax

from kerasoft import heads, losses, ops

NUM_CLASSES = 5
LABELS = np.array([0, 3, 3, 4])
LOGITS = np.random.default_rng(0).normal(size=(4, NUM_CLASSES)).astype("float32")
# What the softmax of 100 classes pays for a perfect answer that is taken for logits.
FLOOR = np.log(1 + 99 / np.e)

ALPHAS = {"sparsemax": 2.0, "entmax15": 1.5}

each_head = pytest.mark.parametrize("name", heads.HEADS)
each_crossentropy = pytest.mark.parametrize(
    "name", [name for name in heads.HEADS if name not in ALPHAS]
)
each_loss = pytest.mark.parametrize(
    "make", [losses.matched_loss, losses.as_logits_loss]
)


def value(loss, y_true, y_pred):
    return float(keras.ops.convert_to_numpy(loss(y_true, y_pred)))


def one_hot(labels, num_classes=NUM_CLASSES):
    return np.eye(num_classes)[labels]


@each_crossentropy
@given(
    x=arrays("float32", (4, NUM_CLASSES), elements=st.floats(-10, 10, width=32)),
    labels=arrays("int32", (4,), elements=st.integers(0, NUM_CLASSES - 1)),
)
def test_matched_is_minus_the_log_probability(name, x, labels):
    head = heads.get(name)
    log_p = log_expected(name, x)[np.arange(4), labels]
    assert value(losses.matched_loss(head), labels, head(x)) == pytest.approx(
        -np.mean(log_p), rel=1e-5, abs=1e-6
    )


@pytest.mark.parametrize("name", ALPHAS)
@given(
    x=arrays("float32", (4, NUM_CLASSES), elements=st.floats(-3, 3, width=32)),
    labels=arrays("int32", (4,), elements=st.integers(0, NUM_CLASSES - 1)),
)
def test_matched_of_a_sparse_head_is_its_fenchel_young_loss(name, x, labels):
    """Blondel et al. (2020): the conjugate, by its definition, and p - target."""
    head, alpha = heads.get(name), ALPHAS[name]
    loss = losses.matched_loss(head)
    p, target = expected(name, x), one_hot(labels)
    # entropy(target) is 0, and p maximises entropy(p) + sum(p * x).
    conjugate = np.sum(p * x + (p - p**alpha) / (alpha * (alpha - 1)), axis=-1)
    assert value(loss, labels, head(x)) == pytest.approx(
        np.mean(conjugate - np.sum(target * x, axis=-1)), rel=1e-5, abs=1e-6
    )
    slope = gradient(lambda x: loss(labels, head(x)), x)
    np.testing.assert_allclose(slope, (p - target) / len(x), atol=1e-6)
    from_logits = losses.EntmaxLoss(alpha)
    assert value(from_logits, labels, x) == value(loss, labels, head(x))
    np.testing.assert_allclose(
        gradient(lambda x: from_logits(labels, x), x), slope, atol=1e-7
    )


def test_sparsemax_loss_is_huber_like_for_two_classes():
    """Martins and Astudillo (2016), section 3.2, for logits t and 0."""
    for t in (-3.0, -1.0, -0.4, 0.0, 0.6, 1.0, 5.0):
        closed = 0.0 if t >= 1 else -t if t <= -1 else (t - 1) ** 2 / 4
        loss = losses.EntmaxLoss(2.0)
        found = value(loss, np.array([0]), np.array([[t, 0.0]], "float32"))
        assert found == pytest.approx(closed, abs=1e-6)


@pytest.mark.parametrize("share", [0.1, 0.5])
@each_loss
@each_head
def test_smoothed_labels_are_the_smoothed_distribution(name, make, share):
    head = heads.get(name)
    outputs = head(LOGITS)
    distribution = one_hot(LABELS) * (1 - share) + share / NUM_CLASSES
    smoothed = value(make(head, label_smoothing=share), LABELS, outputs)
    assert smoothed == pytest.approx(value(make(head), distribution, outputs), rel=1e-5)
    assert smoothed == pytest.approx(
        value(make(head, label_smoothing=share), one_hot(LABELS), outputs), rel=1e-5
    )
    assert smoothed != pytest.approx(value(make(head), LABELS, outputs), rel=1e-3)


@pytest.mark.parametrize("share", [0.0, 0.2])
@each_crossentropy
def test_the_cross_entropy_of_a_distribution(name, share):
    head = heads.get(name)
    target = np.random.default_rng(1).dirichlet(np.ones(NUM_CLASSES), size=4)
    smoothed = target * (1 - share) + share / NUM_CLASSES
    pays = -np.mean(np.sum(smoothed * log_expected(name, LOGITS), axis=-1))
    loss = losses.matched_loss(head, label_smoothing=share)
    assert value(loss, target, head(LOGITS)) == pytest.approx(pays, rel=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.1])
@each_loss
@each_head
def test_labels_are_looked_up_and_never_made_one_hot(name, make, share, monkeypatch):
    head = heads.get(name)
    outputs, loss = head(LOGITS), make(head, label_smoothing=share)
    exact = value(loss, LABELS, outputs)

    def one_hot(*args, **kwargs):
        raise AssertionError("a target as wide as the classes")

    monkeypatch.setattr(keras.ops, "one_hot", one_hot)
    assert value(loss, LABELS, outputs) == exact


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "float32"])
@each_loss
@each_head
def test_labels_of_any_type_and_either_shape(name, make, dtype):
    head = heads.get(name)
    loss, outputs = make(head), head(LOGITS)
    for labels in (LABELS, LABELS[:, None], one_hot(LABELS)):
        assert value(loss, labels.astype(dtype), outputs) == pytest.approx(
            value(loss, LABELS, outputs), rel=1e-6
        )


@each_head
def test_labels_of_a_sequence(name):
    head = heads.get(name)
    x, labels = LOGITS.reshape(2, 2, NUM_CLASSES), LABELS.reshape(2, 2)
    loss = losses.matched_loss(head)
    alone = value(loss, LABELS, head(LOGITS))
    assert value(loss, labels, head(x)) == pytest.approx(alone, rel=1e-6)
    assert value(loss, labels[..., None], head(x)) == pytest.approx(alone, rel=1e-6)


@settings(max_examples=EXAMPLES)
@each_loss
@each_head
@given(
    x=arrays("float16", (4, NUM_CLASSES), elements=st.floats(-65504, 65504, width=16))
)
def test_losses_and_their_gradients_are_finite(name, make, x):
    head = heads.get(name)
    loss = make(head, label_smoothing=0.1)
    assert np.isfinite(value(loss, LABELS, head(x)))
    assert np.all(np.isfinite(gradient(lambda x: loss(LABELS, head(x)), x)))


def small_model(head, inputs=8, classes=10, **kwargs):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((inputs,)),
            keras.layers.Dense(16, "relu"),
            keras.layers.Dense(classes),
            head,
        ]
    )


def gradients_in_fit(name, make):
    """The gradients that `fit` follows: what a step of SGD at rate 1 takes away."""
    head = heads.get(name)
    model = small_model(head)
    model.compile(keras.optimizers.SGD(1.0), make(head))
    x = np.random.default_rng(0).normal(size=(32, 8)).astype("float32")
    before = model.get_weights()
    model.fit(x, np.arange(32) % 10, batch_size=32, verbose=0)
    return [a - b for a, b in zip(before, model.get_weights(), strict=True)]


def test_matched_softmax_is_matched_log_softmax():
    softmax = gradients_in_fit("softmax", losses.matched_loss)
    log_softmax = gradients_in_fit("log_softmax", losses.matched_loss)
    for one, other in zip(softmax, log_softmax, strict=True):
        assert np.abs(one).max() > 1e-3
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_taking_probabilities_for_logits_squashes_the_gradient():
    matched = gradients_in_fit("softmax", losses.matched_loss)
    mistaken = gradients_in_fit("softmax", losses.as_logits_loss)
    for one, other in zip(matched, mistaken, strict=True):
        assert np.linalg.norm(other) < np.linalg.norm(one) / 5


@pytest.mark.parametrize("name", ["log_softmax", "log_softmax2", "log_gumbel_softmax"])
def test_log_probabilities_may_be_taken_for_logits(name):
    head = heads.get(name)
    outputs = head(LOGITS)
    assert value(losses.as_logits_loss(head), LABELS, outputs) == pytest.approx(
        value(losses.matched_loss(head), LABELS, outputs), rel=1e-6
    )


def test_the_floor_of_the_mistake_is_reached_by_the_perfect_answer():
    head = heads.get("softmax")
    perfect = head(1e4 * one_hot([7], 100))
    matched, mistaken = losses.matched_loss(head), losses.as_logits_loss(head)
    assert value(matched, np.array([7]), perfect) == pytest.approx(0, abs=1e-6)
    assert value(mistaken, np.array([7]), perfect) == pytest.approx(FLOOR, rel=1e-6)
    assert pytest.approx(3.62, abs=0.005) == FLOOR


@pytest.mark.parametrize(
    "name", [name for name in heads.HEADS if name[:4] not in ("log_", "z_lo")]
)
@given(
    x=arrays("float32", (1, 100), elements=st.floats(-1e4, 1e4, width=32)),
    label=st.integers(0, 99),
    share=st.sampled_from([0.0, 0.1]),
)
def test_the_mistake_never_pays_less_than_its_floor(name, x, label, share):
    head = heads.get(name)
    loss = losses.as_logits_loss(head, label_smoothing=share)
    assert value(loss, np.array([label]), head(x)) >= FLOOR - 1e-6


@pytest.mark.slow
def test_no_training_leads_the_mistake_below_its_floor():
    """100 classes, each with an input of its own: nothing is easier to learn."""
    x, y = np.eye(100), np.arange(100)

    def lowest_loss(make):
        head = heads.get("softmax")
        model = small_model(head, 100, 100)
        model.compile(keras.optimizers.Adam(0.02), make(head), metrics=["accuracy"])
        history = model.fit(x, y, batch_size=100, epochs=100, verbose=0).history
        return min(history["loss"]), max(history["accuracy"])

    loss, accuracy = lowest_loss(losses.as_logits_loss)
    assert loss >= 3.62
    loss, accuracy = lowest_loss(losses.matched_loss)
    assert loss < 0.1
    assert accuracy == 1


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="Only on TensorFlow does Keras look behind a softmax",
)
def test_keras_hides_the_mistake_on_tensorflow():
    """Why kerasoft brings its own loss: Keras's would have spared us the mistake."""
    keras_loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    our_loss = losses.as_logits_loss(heads.get("softmax"))
    perfect = keras.ops.cast(1e4 * one_hot([7], 100), "float32")
    label = np.array([7])

    with pytest.warns(UserWarning, match="produced by a Softmax"):
        assert value(keras_loss, label, keras.ops.softmax(perfect)) < 1e-6
    assert value(our_loss, label, keras.ops.softmax(perfect)) > 3.62
    # The same numbers, without their history.
    p = np.asarray(keras.ops.softmax(perfect))
    assert value(keras_loss, label, p) == pytest.approx(FLOOR, rel=1e-6)
    assert value(our_loss, label, p) == pytest.approx(FLOOR, rel=1e-6)


@pytest.mark.parametrize(
    "loss",
    [
        losses.Crossentropy("probabilities", 0.1, reduction="sum"),
        losses.Crossentropy("logits", name="mistake"),
        losses.Crossentropy("log_probabilities", ignore_class=3, axis=1),
        losses.EntmaxLoss(2.0, label_smoothing=0.2),
        losses.GeneralizedCrossentropy(0.3, "probabilities", ignore_class=2),
    ],
)
def test_round_trip(loss):
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(again) is type(loss)
    assert again.get_config() == loss.get_config()
    outputs = heads.get("softmax")(LOGITS[:, :4])
    assert value(again, LABELS[:3], outputs[:3]) == value(loss, LABELS[:3], outputs[:3])
    assert repr(again) == repr(loss)
    assert repr(loss).startswith(f"{type(loss).__name__}(")


def test_reductions_and_weights_are_keras_own():
    outputs = heads.get("softmax")(LOGITS)
    rows = keras.ops.convert_to_numpy(
        losses.Crossentropy("probabilities", reduction=None)(LABELS, outputs)
    )
    assert rows.shape == (4,)
    weights = np.array([1.0, 0.0, 2.0, 0.0], "float32")
    weighted = losses.Crossentropy("probabilities")(LABELS, outputs, weights)
    assert float(weighted) == pytest.approx(np.mean(weights * rows), rel=1e-6)


@pytest.mark.parametrize("share", [-0.1, 1, 1.5, np.nan])
@pytest.mark.parametrize(
    "make", [losses.Crossentropy, losses.EntmaxLoss, losses.GeneralizedCrossentropy]
)
def test_label_smoothing_is_a_share(make, share):
    with pytest.raises(ValueError, match=r"`label_smoothing` must be.*Received"):
        make(label_smoothing=share)


def test_what_a_loss_reads():
    with pytest.raises(ValueError, match=r"one of probabilities,.*reads='odds'"):
        losses.Crossentropy("odds")
    with pytest.raises(ValueError, match=r"one of logits,.*reads='probabilities'"):
        losses.EntmaxLoss(2.0, reads="probabilities")
    with pytest.raises(ValueError, match=r"1.5 .*or 2.0.*alpha=1.2"):
        losses.EntmaxLoss(1.2)
    with pytest.raises(ValueError, match=r"`axis` must be.*axis='last'"):
        losses.EntmaxLoss(axis="last")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"`ignore_class` must be.*ignore_class=0.5"):
        losses.Crossentropy(ignore_class=0.5)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("q", [0, -1, 1.1, np.nan])
def test_the_power_of_generalised_crossentropy(q):
    with pytest.raises(ValueError, match=r"`q` must be above 0 and at most 1.*q="):
        losses.GeneralizedCrossentropy(q)


@given(
    x=arrays("float32", (4, NUM_CLASSES), elements=st.floats(-10, 10, width=32)),
    labels=arrays("int32", (4,), elements=st.integers(0, NUM_CLASSES - 1)),
    q=st.floats(0.01, 1),
    smoothing=st.floats(0, 0.5),
)
def test_generalised_crossentropy_is_its_formula(x, labels, q, smoothing):
    """Zhang and Sabuncu (2018), equation 6, from each kind of output."""
    p = softmax(x.astype("float64"), axis=-1)
    target = (1 - smoothing) * one_hot(labels) + smoothing / NUM_CLASSES
    formula = np.mean(np.sum(target * (1 - p**q) / q, axis=-1))
    for name, reads in (
        ("softmax", "probabilities"),
        ("log_softmax", "log_probabilities"),
        (None, "logits"),
    ):
        y = heads.get(name)(x) if name else x
        loss = losses.GeneralizedCrossentropy(q, reads, smoothing)
        assert value(loss, labels, y) == pytest.approx(formula, rel=1e-4, abs=1e-5)
        assert value(loss, one_hot(labels), y) == pytest.approx(
            formula, rel=1e-4, abs=1e-5
        )


@pytest.mark.parametrize("q", [1e-6, 0.3, 1.0])
def test_the_gradient_of_generalised_crossentropy(q):
    """That of the cross-entropy times the label's probability to the power of q."""
    x = 3 * LOGITS
    p = softmax(x.astype("float64"), axis=-1)
    weight = p[np.arange(4), LABELS] ** q
    expected = weight[:, None] * (p - one_hot(LABELS)) / 4
    loss = losses.GeneralizedCrossentropy(q, "logits")
    np.testing.assert_allclose(
        gradient(lambda x: loss(LABELS, x), x), expected, rtol=1e-3, atol=1e-6
    )


def test_softmax_as_logits_is_nearly_the_mean_absolute_error():
    """For p on the simplex, log(sum(exp(p))) hardly varies over many classes."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(200, 100)) * generator.uniform(0, 20, size=(200, 1))
    p, labels = softmax(x, axis=-1), generator.integers(100, size=200)
    as_logits = losses.as_logits_loss("softmax")
    error = losses.GeneralizedCrossentropy(1.0, "probabilities")
    for i in range(200):
        row, label = p[i : i + 1], labels[i : i + 1]
        difference = value(as_logits, label, row) - value(error, label, row)
        assert 4.615 - 1 - 1e-4 <= difference <= 4.623 - 1


@each_loss
def test_only_heads_have_a_loss(make):
    with pytest.raises(ValueError, match=r"Expected a head.*Received: <Flatten"):
        make(keras.layers.Flatten())
    with pytest.raises(ValueError, match=r"did you mean softmax.*'sofmax'"):
        make("sofmax")


@pytest.mark.parametrize(
    ("dtype", "classes"), [("uint8", 256), ("uint8", 300), ("int8", 200)]
)
def test_labels_of_a_dtype_that_the_number_of_classes_does_not_fit_in(dtype, classes):
    labels = np.array([0, 43, 100], dtype)
    x = np.random.default_rng(0).normal(size=(3, classes)).astype("float32")
    found, valid, _ = losses.checked_labels(labels, classes)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(found), labels)
    assert keras.ops.convert_to_numpy(valid).all()
    exact = value(losses.matched_loss(heads.LogSoftmax()), labels.astype("int32"), x)
    assert value(losses.matched_loss(heads.LogSoftmax()), labels, x) == exact


@each_head
def test_labels_are_not_broadcast(name):
    head = heads.get(name)
    loss = losses.matched_loss(head)
    outputs = head(np.zeros((8, 7, NUM_CLASSES), "float32"))
    for shape in ((8, 1), (8,), (7, 8)):
        with pytest.raises(ValueError, match=r"Labels must have the shape"):
            loss(np.zeros(shape, "int32"), outputs)


@pytest.mark.parametrize(
    "name",
    [name for name in heads.HEADS if heads.HEADS[name].outputs != "probabilities"],
)
def test_smoothing_leaves_masked_classes_out(name):
    head = heads.get(name)
    loss = losses.matched_loss(head, label_smoothing=0.1)
    shown = np.array([[1.0, 2.0, 0.0]], "float32")
    masked = np.array([[1.0, -np.inf, 2.0, 0.0]], "float32")
    few = value(loss, np.array([2]), head(shown, training=False))
    many = value(loss, np.array([3]), head(masked, training=False))
    assert many == pytest.approx(few, rel=1e-5)
    dense = 0.9 * np.eye(4)[[3]] + 0.1 * np.array([[1, 0, 1, 1]]) / 3
    plain = losses.matched_loss(head)
    target = value(plain, dense.astype("float32"), head(masked, training=False))
    assert many == pytest.approx(target, rel=1e-5)


@pytest.fixture
def floatx(request):
    ambient = keras.config.floatx()
    keras.config.set_floatx(request.param)
    yield request.param
    keras.config.set_floatx(ambient)


@pytest.mark.parametrize("floatx", ["float16", "bfloat16", "float64"], indirect=True)
@each_head
def test_losses_are_float32_whatever_floatx_is(name, floatx):
    x = np.random.default_rng(0).normal(size=(4, 1000)).astype("float32")
    labels = np.array([301, 257, 999, 3])
    head = heads.get(name, dtype="float32")
    outputs = head(keras.ops.convert_to_tensor(x))
    found = value(losses.matched_loss(head), labels, outputs)
    keras.config.set_floatx("float32")
    outputs = head(keras.ops.convert_to_tensor(x))
    assert found == pytest.approx(value(losses.matched_loss(head), labels, outputs))


@pytest.mark.parametrize("q", [0.3, 1.0])
@pytest.mark.parametrize("as_distribution", [False, True])
def test_a_masked_class_takes_no_part_in_smoothing(q, as_distribution):
    loss = losses.GeneralizedCrossentropy(q, label_smoothing=0.1)
    two = np.log([[0.25, 0.75]]).astype("float32")
    three = np.concatenate([two, [[ops.LOWEST]]], axis=1).astype("float32")
    found = []
    for log_p in (two, three):
        labels = np.array([0])
        target = one_hot(labels, log_p.shape[1]) if as_distribution else labels
        found.append(value(loss, target, log_p))
    assert found[0] == pytest.approx(found[1])
