"""What all output layers have in common, and each one's formula in float64."""

import keras
import numpy as np
import pytest
from references import needed, numpy
from scipy import special, stats

from kerasoft import heads
from kerasoft.output_layers import (
    AdaptiveOutput,
    AllClasses,
    ChunkedOutput,
    Classifier,
    FactoredOutput,
    SampledOutput,
    TwoLevelOutput,
)

BACKEND = keras.backend.backend()
BATCH, DIM, CLASSES = 75, 16, 51
RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(BATCH, DIM)).astype("float32")
COUNTS = RNG.permutation(1000 / np.arange(1, CLASSES + 1))
LABELS = RNG.choice(CLASSES, BATCH, p=COUNTS / COUNTS.sum())
WEIGHTS = RNG.uniform(0, 2, size=BATCH).astype("float32")
GROUPS = RNG.permutation([*range(7), *RNG.integers(7, size=CLASSES - 7)])

LAYERS = {
    "chunked": lambda **kw: ChunkedOutput(CLASSES, chunk_bytes=4 * CLASSES * 9, **kw),
    "adaptive": lambda **kw: AdaptiveOutput(CLASSES, COUNTS, [6, 20], 2, **kw),
    "adaptive, by rank": lambda **kw: AdaptiveOutput(CLASSES, cutoffs=[9], **kw),
    "sampled": lambda **kw: SampledOutput(CLASSES, 40, COUNTS, seed=0, **kw),
    "two-level": lambda **kw: TwoLevelOutput(CLASSES, GROUPS, **kw),
    "two-level, by number": lambda **kw: TwoLevelOutput(CLASSES, **kw),
}
each_layer = pytest.mark.parametrize("name", LAYERS)
# Where a test takes seconds, one of each class; test_output_layers has the chunked one.
each_class = pytest.mark.parametrize("name", ["adaptive", "sampled", "two-level"])


def reference(name, features, weights):
    """The log-probabilities of all classes, in float64."""
    h = np.asarray(features, "float64")
    w = [np.asarray(x, "float64") for x in weights]
    if name in ("chunked", "sampled"):
        return special.log_softmax(h @ w[0].T + w[1], axis=-1)
    if name.startswith("adaptive"):
        cutoffs = [6, 20] if name == "adaptive" else [9]
        order = np.argsort(-COUNTS) if name == "adaptive" else np.arange(CLASSES)
        head = special.log_softmax(h @ w[0].T + w[1], axis=-1)
        parts = [head[:, : cutoffs[0]]]
        for i in range(len(cutoffs)):
            projection, kernel, bias = w[2 + 3 * i : 5 + 3 * i]
            inside = special.log_softmax(h @ projection @ kernel.T + bias, axis=-1)
            parts.append(inside + head[:, cutoffs[0] + i, None])
        found = np.concatenate(parts, axis=-1)
        return found[:, np.argsort(order)]
    groups = GROUPS if name == "two-level" else np.arange(CLASSES) // 7
    found = np.zeros((len(h), CLASSES))
    of_group = special.log_softmax(h @ w[0].T + w[1], axis=-1)
    first = 0
    for group in range(groups.max() + 1):
        members = np.flatnonzero(groups == group)
        rows = slice(first, first + len(members))
        inside = special.log_softmax(h @ w[2][rows].T + w[3][rows], axis=-1)
        found[:, members] = inside + of_group[:, group, None]
        first += len(members)
    return found


def filled(layer):
    """The layer with weights that are worth a test."""
    if not layer.built:
        layer.build((None, DIM))
    draws = np.random.default_rng(1)
    for weight in layer.trainable_weights:
        weight.assign(draws.normal(size=weight.shape) * 0.7)
    return layer


def model_of(layer):
    backbone = keras.layers.Dense(DIM, kernel_initializer="identity")
    model = Classifier(backbone, layer)
    model(FEATURES[:1])
    filled(layer)
    return model


@each_layer
def test_log_probabilities_are_those_of_the_formula_and_sum_to_one(name):
    layer = filled(LAYERS[name]())
    exact = reference(name, FEATURES, [numpy(w) for w in layer.trainable_weights])
    np.testing.assert_allclose(np.exp(exact).sum(axis=-1), 1)
    every = np.tile(np.arange(CLASSES), (BATCH, 1))
    found = numpy(layer.log_probabilities(FEATURES, every))
    np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-5)
    found = numpy(layer.all_log_probabilities(FEATURES))
    np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-5)


def test_all_classes_of_a_masked_layer():
    allowed = np.arange(CLASSES) % 3 > 0
    layer = filled(ChunkedOutput(CLASSES, allowed=allowed))
    kernel, bias = (numpy(w).astype("float64") for w in layer.trainable_weights)
    logits = np.where(allowed, FEATURES @ kernel.T + bias, -np.inf)
    p = np.exp(numpy(layer.all_log_probabilities(FEATURES)))
    np.testing.assert_allclose(p, special.softmax(logits, axis=-1), atol=1e-6)


@each_class
def test_a_model_that_answers_for_all_classes(name, tmp_path):
    layer = filled(LAYERS[name]())
    inputs = keras.Input((DIM,))
    model = keras.Model(inputs, AllClasses(layer)(inputs))
    exact = reference(name, FEATURES, [numpy(w) for w in layer.trainable_weights])
    found = model.predict(FEATURES, verbose=0)
    np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-5)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again.predict(FEATURES, verbose=0), found, rtol=1e-6)
    with pytest.raises(ValueError, match="predicts log-probabilities"):
        AllClasses(keras.layers.Dense(3))  # pyright: ignore
    with pytest.raises(ValueError, match="predicts log-probabilities"):
        AllClasses(FactoredOutput(30, "z_loss"))


@each_layer
def test_evaluate_and_predict_are_those_of_the_formula(name):
    layer = LAYERS[name](ignore_class=-1, top_k=3)
    model = model_of(layer)
    model.compile()
    exact = reference(name, FEATURES, [numpy(w) for w in layer.trainable_weights])
    labels = np.where(np.arange(BATCH) % 10 == 3, -1, LABELS)
    kept = labels >= 0
    truth = exact[kept, labels[kept]]
    rank = np.sum(exact[kept] >= truth[:, None], axis=-1) - 1
    found = model.evaluate(FEATURES, labels, 32, 0, WEIGHTS, return_dict=True)
    mean = lambda x: np.average(x, weights=WEIGHTS[kept])  # noqa: E731
    assert found["nll"] == pytest.approx(-mean(truth), rel=1e-5)
    assert found["accuracy"] == pytest.approx(mean(rank < 1), abs=1e-6)
    assert found["top_5_accuracy"] == pytest.approx(mean(rank < 5), abs=1e-6)
    predicted = model.predict(FEATURES, batch_size=32, verbose=0)
    best = np.argsort(-exact, axis=-1)[:, :3]
    np.testing.assert_array_equal(predicted["classes"], best)
    np.testing.assert_allclose(
        predicted["log_probabilities"],
        np.take_along_axis(exact, best, axis=-1),
        rtol=1e-5,
        atol=1e-5,
    )


@each_layer
def test_a_step_of_training_goes_down_the_gradient_of_the_formula(name):
    layer = LAYERS[name]()
    if name == "sampled":  # all classes, so as to be exact
        layer = SampledOutput(CLASSES, CLASSES, COUNTS)
    model = model_of(layer)
    model.compile(keras.optimizers.SGD(1.0))
    before = [numpy(w).astype("float64") for w in model.trainable_weights]
    model.train_on_batch(FEATURES, LABELS, WEIGHTS)
    moved = [b - numpy(w) for b, w in zip(before, model.trainable_weights, strict=True)]

    def loss(weights):
        features = FEATURES @ weights[0] + weights[1]
        log_p = reference(name, features, weights[2:])
        return -np.sum(WEIGHTS * log_p[np.arange(BATCH), LABELS]) / BATCH

    draws = np.random.default_rng(2)
    for i in range(len(before)):
        for _ in range(20):
            step = np.zeros_like(before[i])
            place = tuple(draws.integers(size) for size in step.shape)
            step[place] = 1e-5
            up, down = (
                [w + sign * step if j == i else w for j, w in enumerate(before)]
                for sign in (1, -1)
            )
            slope = (loss(up) - loss(down)) / 2e-5
            assert moved[i][place] == pytest.approx(slope, rel=1e-4, abs=2e-6)


@pytest.mark.parametrize("name", ["chunked", "adaptive", "two-level"])
def test_samples_are_of_the_formula(name):
    layer = filled(LAYERS[name]())
    rows = 20_000
    features = np.repeat(FEATURES[:1] / 3, rows, axis=0)
    drawn = numpy(layer.sample(features, seed=1))
    np.testing.assert_array_equal(drawn, numpy(layer.sample(features, seed=1)))
    weights = [numpy(w) for w in layer.trainable_weights]
    p = np.exp(reference(name, features[:1], weights)[0])
    counts = np.bincount(drawn, minlength=CLASSES)

    def pvalue(p):
        """Of a chi-square test, where rare classes are counted as one."""
        common = p * rows >= 5
        found = np.append(counts[common], counts[~common].sum())
        expected = np.append(p[common], p[~common].sum()) * rows
        some = expected > 0
        return stats.chisquare(found[some], expected[some]).pvalue

    assert pvalue(p) > 0.001
    assert pvalue(p**0.9 / np.sum(p**0.9)) < 1e-6


def learnable():
    draws = np.random.default_rng(0)
    x = draws.normal(size=(500, DIM)).astype("float32")
    return x, np.argmax(x @ draws.normal(size=(DIM, CLASSES)), axis=-1)


@pytest.mark.parametrize(
    "name",
    ["adaptive", "sampled", pytest.param("two-level", marks=pytest.mark.slow)],
)
def test_it_trains_saves_loads_and_goes_on(name, tmp_path):
    keras.utils.set_random_seed(0)
    backbone = keras.Sequential([keras.Input((DIM,)), keras.layers.Dense(16, "tanh")])
    model = Classifier(backbone, LAYERS[name]())
    model.compile(keras.optimizers.Adam(0.03))
    x, y = learnable()
    history = model.fit(x, y, epochs=4, validation_data=(x, y), verbose=0).history
    assert history["val_nll"][-1] < history["val_nll"][0] - 0.1
    assert history["val_accuracy"][-1] > 2 / CLASSES
    assert "accuracy" not in history
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.evaluate(x, y, verbose=0) == pytest.approx(
        model.evaluate(x, y, verbose=0), rel=1e-6
    )
    one, other = (m.predict(x[:20], verbose=0) for m in (model, again))
    np.testing.assert_array_equal(one["classes"], other["classes"])
    if name != "sampled":  # goes on, but draws anew
        losses = [m.fit(x, y, shuffle=False, verbose=0) for m in (model, again)]
        one, other = (found.history["loss"] for found in losses)
        assert one == pytest.approx(other, rel=1e-5)
    else:
        again.fit(x, y, verbose=0)


def test_a_batch_of_unknown_size_is_not_filled_up_to_the_budget():
    # TensorFlow's `fit` does not tell how large a batch is, and here the budget would
    # hold millions of rows, each with 16 KiB of features.
    features = np.zeros((20, 4096), "float32")
    for layer in (ChunkedOutput(10), AdaptiveOutput(10, cutoffs=[4])):
        model = Classifier(keras.layers.Identity(), layer)
        model.compile("sgd")
        model.fit(features, np.arange(20) % 10, batch_size=16, verbose=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adaptive", "sampled", "two-level"])
def test_under_jit_and_mixed_precision(name):
    keras.utils.set_random_seed(0)
    layer = LAYERS[name](dtype="mixed_bfloat16")
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        backbone = keras.Sequential([keras.layers.Dense(16, "tanh")])
    finally:
        keras.config.set_dtype_policy(before)
    model = Classifier(backbone, layer)
    jit = BACKEND != "torch"  # there it asks for a compiler of its own
    model.compile(keras.optimizers.Adam(0.03), jit_compile=jit)
    x, y = learnable()
    history = model.fit(x[:480], y[:480], epochs=3, verbose=0).history
    assert history["nll"][-1] < history["nll"][0]
    assert np.isfinite(model.evaluate(x[:480], y[:480], verbose=0)).all()
    assert model.predict(x[:32], verbose=0)["classes"].shape == (32, 5)
    assert {w.dtype for w in layer.trainable_weights} == {"float32"}


@each_layer
def test_half_precision_features_are_computed_in_float32(name):
    layer = filled(LAYERS[name]())
    for dtype in ("float16", "bfloat16"):
        features = keras.ops.cast(FEATURES * 100, dtype)
        found, _ = layer.evaluate_rows(features, LABELS)
        exact, _ = layer.evaluate_rows(keras.ops.cast(features, "float32"), LABELS)
        np.testing.assert_array_equal(numpy(found.nll), numpy(exact.nll))
        assert np.all(np.isfinite(numpy(found.nll)))


@each_layer
def test_no_biases(name):
    layer = filled(LAYERS[name](use_bias=False))
    assert all("bias" not in weight.name for weight in layer.weights)
    every = np.tile(np.arange(CLASSES), (BATCH, 1))
    found = numpy(layer.log_probabilities(FEATURES, every))
    np.testing.assert_allclose(np.exp(found).sum(axis=-1), 1, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.distribute is TensorFlow's")
@each_class
def test_under_a_strategy_of_tensorflow(name):
    import tensorflow as tf

    x, y = learnable()
    found = []
    for strategy in (tf.distribute.MirroredStrategy(["CPU:0"]), None):
        keras.utils.set_random_seed(0)
        with strategy.scope() if strategy else tf.init_scope():
            model = model_of(LAYERS[name]())
            model.compile(keras.optimizers.SGD(0.1))
        model.fit(x, y, epochs=1, shuffle=False, verbose=0)
        found.append(model.evaluate(x, y, verbose=0))
    assert found[0] == pytest.approx(found[1], rel=1e-4)


# Adaptive


def test_adaptive_is_that_of_pytorch():
    torch = needed("torch")
    cutoffs, div = [6, 20, 35], 1.7
    theirs = torch.nn.AdaptiveLogSoftmaxWithLoss(
        DIM, CLASSES, cutoffs, div, head_bias=True
    )
    layer = AdaptiveOutput(CLASSES, cutoffs=cutoffs, div_value=div)
    layer.build((None, DIM))
    layer.kernel.assign(theirs.head.weight.detach().numpy())
    layer.bias.assign(theirs.head.bias.detach().numpy())
    for (projection, kernel, _), tail in zip(layer.clusters, theirs.tail, strict=True):
        projection.assign(tail[0].weight.detach().numpy().T)
        kernel.assign(tail[1].weight.detach().numpy())
    with torch.no_grad():
        exact = theirs.log_prob(torch.from_numpy(FEATURES)).numpy()
        likeliest = theirs.predict(torch.from_numpy(FEATURES)).numpy()
    every = np.tile(np.arange(CLASSES), (BATCH, 1))
    found = numpy(layer.log_probabilities(FEATURES, every))
    np.testing.assert_allclose(found, exact, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(numpy(layer(FEATURES)["classes"])[:, 0], likeliest)
    found, _ = layer.evaluate_rows(FEATURES, LABELS, training=True)
    truth = exact[np.arange(BATCH), LABELS]
    np.testing.assert_allclose(numpy(found.nll), -truth, rtol=1e-5, atol=1e-5)


def test_adaptive_where_no_label_is_of_a_cluster():
    layer = filled(AdaptiveOutput(CLASSES, cutoffs=[6, 20, 35]))
    labels = np.where(LABELS < 20, 3, 40)  # none in the first and second cluster
    every = numpy(layer.log_probabilities(FEATURES, labels[:, None]))[:, 0]
    for training in (False, True):
        found, _ = layer.evaluate_rows(FEATURES, labels, training=training)
        np.testing.assert_allclose(numpy(found.nll), -every, rtol=1e-5, atol=1e-5)


# Sampled


def sampled_loss(drawn, expected, expected_labels):
    """The loss of given draws, of weights that are fixed."""
    from kerasoft.output_layers.sampled import sampled_crossentropy

    draws = np.random.default_rng(3)
    kernel = draws.normal(size=(CLASSES, DIM)).astype("float32")
    bias = draws.normal(size=CLASSES).astype("float32")
    classes = np.concatenate([drawn, LABELS]).astype("int32")
    log_expected = np.log(np.concatenate([expected, expected_labels]))
    found = sampled_crossentropy(
        *map(
            keras.ops.convert_to_tensor,
            (
                FEATURES,
                kernel[classes],
                (bias[classes] - log_expected).astype("float32"),
                LABELS[:, None] == drawn,
                np.ones(BATCH, "float32"),
            ),
        )
    )
    return numpy(found.nll), kernel, bias


def test_sampled_is_that_of_tensorflow_on_given_draws():
    tf = pytest.importorskip("tensorflow")
    draws = np.random.default_rng(4)
    drawn = draws.choice(CLASSES, 20, replace=False)
    expected, of_labels = draws.uniform(0.1, 3, 20), draws.uniform(0.1, 3, BATCH)
    found, kernel, bias = sampled_loss(drawn, expected, of_labels)
    theirs = tf.nn.sampled_softmax_loss(
        kernel,
        bias,
        LABELS[:, None],
        FEATURES,
        num_sampled=20,
        num_classes=CLASSES,
        sampled_values=(
            drawn.astype("int64"),
            of_labels[:, None].astype("float32"),
            expected.astype("float32"),
        ),
    )
    np.testing.assert_allclose(found, np.asarray(theirs), rtol=1e-5, atol=1e-5)


def test_sampled_is_the_whole_softmax_where_every_class_is_drawn_once():
    drawn = np.random.default_rng(5).permutation(CLASSES)
    found, kernel, bias = sampled_loss(drawn, np.ones(CLASSES), np.ones(BATCH))
    log_p = special.log_softmax(FEATURES @ kernel.T.astype("float64") + bias, axis=-1)
    exact = -log_p[np.arange(BATCH), LABELS]
    np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("counts", ["log_uniform", "uniform", "given"])
def test_classes_are_drawn_as_often_as_told(counts):
    ranks = np.arange(CLASSES)
    q = {
        "log_uniform": np.log((ranks + 2) / (ranks + 1)),
        "uniform": np.ones(CLASSES),
        "given": COUNTS,
    }[counts]
    layer = SampledOutput(CLASSES, 12, COUNTS if counts == "given" else counts, seed=0)
    every = keras.ops.convert_to_tensor(ranks, "int32")
    expected = np.exp(numpy(layer.log_expected(every)))
    assert expected.sum() == pytest.approx(12, rel=1e-5)
    assert expected.max() <= 1
    below = expected < 1
    assert below.all() == (counts == "uniform")
    scale = expected[below] / q[below]
    np.testing.assert_allclose(scale, scale[0], rtol=1e-4)
    assert np.all(q[~below] * scale[0] >= 1 - 1e-4)

    steps = 400
    drawn = np.array([numpy(layer.drawn()) for _ in range(steps)])
    assert len({tuple(np.sort(row)) for row in drawn}) > steps / 2
    found = np.bincount(drawn.ravel(), minlength=CLASSES)
    assert np.all(found[~below] == steps)
    off = (found - steps * expected) / np.sqrt(steps * expected)
    assert np.abs(off).max() < 4.5


@pytest.mark.parametrize("counts", ["log_uniform", "uniform", COUNTS])
def test_where_all_are_drawn_the_loss_is_that_of_the_whole_softmax(counts):
    layer = filled(SampledOutput(CLASSES, CLASSES, counts, seed=0))
    np.testing.assert_array_equal(np.sort(numpy(layer.drawn())), np.arange(CLASSES))
    found, _ = layer.evaluate_rows(FEATURES, LABELS, training=True)
    exact, _ = layer.evaluate_rows(FEATURES, LABELS, training=False)
    np.testing.assert_allclose(numpy(found.nll), numpy(exact.nll), rtol=1e-4, atol=1e-5)


def test_the_more_are_drawn_the_nearer_the_loss():
    off = []
    for count in (5, 20, 45):
        layer = filled(SampledOutput(CLASSES, count, COUNTS, seed=0))
        exact, _ = layer.evaluate_rows(FEATURES, LABELS, training=False)
        totals = [
            float(numpy(layer.evaluate_rows(FEATURES, LABELS, training=True)[0].total))
            for _ in range(20)
        ]
        off.append(abs(np.mean(totals) / float(numpy(exact.total)) - 1))
    assert off[0] > off[1] > off[2]


def test_a_class_without_counts_may_be_drawn():
    layer = SampledOutput(3, 2, [0, 5, 0], seed=0)
    expected = layer.log_expected(keras.ops.convert_to_tensor([0, 1, 2], "int32"))
    assert np.all(np.isfinite(numpy(expected)))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="rows stay rows on TensorFlow")
def test_the_gradient_is_of_the_rows_drawn_alone():
    import tensorflow as tf

    layer = filled(SampledOutput(CLASSES, 4, seed=0))
    with tf.GradientTape() as tape:
        found, _ = layer.evaluate_rows(FEATURES, LABELS, training=True)
    slope = tape.gradient(found.total, layer.kernel.value)
    assert isinstance(slope, tf.IndexedSlices)
    assert slope.values.shape == (4 + BATCH, DIM)


# Arguments


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: AdaptiveOutput(9), r"Pass `counts`.*or the `cutoffs`"),
        (lambda: AdaptiveOutput(9, cutoffs=[]), r"`cutoffs` must be whole.*\[\]"),
        (lambda: AdaptiveOutput(9, cutoffs=[9]), r"between 0 and num_classes=9.*\[9\]"),
        (lambda: AdaptiveOutput(9, cutoffs=[4, 4]), r"that increase.*\[4, 4\]"),
        (lambda: AdaptiveOutput(9, cutoffs=np.array([2.5])), r"whole numbers.*2.5"),
        (lambda: AdaptiveOutput(9, [1, 2]), r"one number for each class, 9.*\(2,\)"),
        (lambda: AdaptiveOutput(2, [1, -2]), r"finite numbers of at least 0.*-2"),
        (lambda: AdaptiveOutput(2, [0, 0]), r"one of them positive.*only zeros"),
        (
            lambda: AdaptiveOutput(9, cutoffs=[4], div_value=0.5),
            r"`div_value` must be at least 1.*0.5",
        ),
        (lambda: SampledOutput(9, 0), r"`num_sampled` must be an integer in 1..9.*=0"),
        (lambda: SampledOutput(9, 10), r"`num_sampled` must be.*in 1..9.*=10"),
        (lambda: SampledOutput(9, 4, "zipf"), r"'log_uniform', 'uniform'.*'zipf'"),
        (lambda: SampledOutput(9, 4, [1.0]), r"one number for each class, 9.*\(1,\)"),
        (lambda: TwoLevelOutput(3, [0, 1]), r"`groups` must be 3 integers.*\(2,\)"),
        (
            lambda: TwoLevelOutput(2, np.array([0.5, 1])),
            r"`groups` must be 2 integers.*float64",
        ),
        (lambda: TwoLevelOutput(2, [0, 2]), r"each with a class.*no class in group 1"),
        (lambda: TwoLevelOutput(2, [-1, 0]), r"numbered from 0 on.*group -1"),
    ],
)
def test_bad_arguments(make, says):
    with pytest.raises(ValueError, match=rf"(?s){says}"):
        make()


def test_a_layer_may_have_fewer_classes_than_a_prediction_names():
    for layer in (
        AdaptiveOutput(3, cutoffs=[1]),
        SampledOutput(3, 2),
        TwoLevelOutput(3, [0, 0, 1]),
    ):
        found = filled(layer)(FEATURES)
        assert np.all(np.sort(numpy(found["classes"]), axis=-1) == [0, 1, 2])
        total = np.exp(numpy(found["log_probabilities"])).sum(axis=-1)
        np.testing.assert_allclose(total, 1, rtol=1e-5)


def test_labels_in_which_the_number_of_classes_does_not_fit():
    labels = np.array([0, 43, 100], "uint8")
    for classes in (256, 300):
        layer = ChunkedOutput(classes)
        layer.build((None, DIM))
        exact, _ = layer.evaluate_rows(FEATURES[:3], labels.astype("int32"))
        found, _ = layer.evaluate_rows(FEATURES[:3], labels)
        assert float(numpy(found.total)) == float(numpy(exact.total))


ANY = {
    **LAYERS,
    "of a sparse head": lambda **kw: ChunkedOutput(CLASSES, "sparsemax", **kw),
    "factored": lambda **kw: FactoredOutput(CLASSES, "z_loss", 0.1, **kw),
}
any_layer = pytest.mark.parametrize("name", ANY)


@any_layer
def test_a_row_of_nan_counts_as_wrong_and_its_classes_exist(name):
    layer = filled(ANY[name]())
    features = FEATURES.copy()
    features[1] = np.nan
    found, _ = layer.evaluate_rows(features, LABELS)
    assert np.isnan(numpy(found.total))
    assert numpy(found.rank)[1] >= 5
    exact, _ = layer.evaluate_rows(FEATURES, LABELS)
    others = np.arange(BATCH) != 1
    np.testing.assert_array_equal(numpy(found.rank)[others], numpy(exact.rank)[others])
    classes = numpy(layer(features)["classes"])
    assert classes.min() >= 0
    assert classes.max() < CLASSES


@any_layer
def test_no_rows(name):
    layer = filled(ANY[name]())
    none = FEATURES[:0], LABELS[:0]
    assert float(numpy(layer.evaluate_rows(*none)[0].total)) == 0
    if name != "of a sparse head":  # Keras's maximum of no values is an error
        assert layer(none[0])["classes"].shape == (0, 5)


@any_layer
def test_labels_of_another_shape_are_refused(name):
    layer = filled(ANY[name]())
    with pytest.raises(ValueError, match=r"argmax.*Received: labels.shape=\(75, 51\)"):
        layer.evaluate_rows(FEATURES, np.eye(CLASSES)[LABELS])


@pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.function is TensorFlow's")
@pytest.mark.parametrize("name", ["chunked", "two-level, by number"])
def test_in_a_function_of_tensorflow(name, capfd):
    import tensorflow as tf

    layer = filled(LAYERS[name]())

    @tf.function
    def drawn(features):
        return layer.sample(features, seed=3)

    @tf.function
    def judged(features, labels):
        return layer.evaluate_rows(features, labels)[0].total

    np.testing.assert_array_equal(drawn(FEATURES), layer.sample(FEATURES, seed=3))
    assert drawn(FEATURES).shape == (BATCH,)
    exact, _ = layer.evaluate_rows(FEATURES, LABELS)
    assert float(judged(FEATURES, LABELS)) == pytest.approx(float(exact.total))
    assert "AutoGraph" not in capfd.readouterr().err


def test_a_sampled_layer_has_no_arguments_of_the_chunked_one():
    refused: dict = {"head": "sparsemax", "label_smoothing": 0.1, "allowed": None}
    for name, value in refused.items():
        with pytest.raises(ValueError, match=f"no argument `{name}`"):
            SampledOutput(CLASSES, 10, **{name: value})


def test_cutoffs_may_be_an_array_and_one_class_is_refused():
    layer = AdaptiveOutput(CLASSES, cutoffs=np.array([6, 20]))
    assert layer.cutoffs == [6, 20]
    with pytest.raises(ValueError, match="at least 2 classes"):
        AdaptiveOutput(1, counts=[5])


def test_a_chunked_layer_refuses_what_it_cannot_do():
    hard = heads.GumbelSoftmax(hard=True)
    with pytest.raises(ValueError, match="hard=True returns one-hot samples"):
        ChunkedOutput(CLASSES, hard)
    with pytest.raises(ValueError, match="must allow a class"):
        ChunkedOutput(CLASSES, allowed=np.zeros(CLASSES))
    layer = filled(ChunkedOutput(CLASSES, allowed=np.arange(CLASSES) < 2))
    assert set(numpy(layer(FEATURES)["classes"]).ravel()) == {0, 1}


def test_weights_do_not_begin_with_the_same_numbers():
    for layer in (
        AdaptiveOutput(30, cutoffs=[10, 20], div_value=1.0),
        TwoLevelOutput(16),
    ):
        layer.build((None, DIM))
        firsts = [numpy(w).ravel()[:4] for w in layer.weights if len(w.shape) == 2]
        assert len(firsts) > 1
        shapes = np.array([first / np.linalg.norm(first) for first in firsts])
        alike = np.abs(shapes @ shapes.T)[np.triu_indices(len(shapes), 1)]
        assert np.all(alike < 1 - 1e-5)
    seeded = TwoLevelOutput(16, kernel_initializer=keras.initializers.Zeros())
    seeded.build((None, DIM))
    assert all(np.all(numpy(w) == 0) for w in seeded.weights)


@pytest.mark.parametrize("name", ["log_gumbel_softmax", "gumbel_softmax"])
def test_a_schedule_may_end_at_0(name):
    cold = keras.optimizers.schedules.PolynomialDecay(1.0, 2, 0.0)
    layer = filled(ChunkedOutput(CLASSES, heads.get(name, temperature=cold, seed=0)))
    for _ in range(4):
        total = layer.evaluate_rows(FEATURES, LABELS, training=True)[0].total
        assert np.isfinite(float(numpy(total)))
    predicted = layer(FEATURES)
    assert np.isfinite(numpy(predicted["log_probabilities"])).all()
    every = numpy(layer.all_log_probabilities(FEATURES))
    np.testing.assert_array_equal(predicted["classes"][:, 0], every.argmax(axis=1))


@each_layer
def test_no_rows_are_sampled(name):
    layer = filled(LAYERS[name]())
    assert numpy(layer.sample(FEATURES[:0], seed=0)).shape == (0,)


@pytest.mark.skipif(BACKEND != "jax", reason="its 64-bit mode is JAX's")
@each_layer
def test_samples_in_64_bits(name):
    import jax

    layer = filled(LAYERS[name]())
    jax.config.update("jax_enable_x64", True)
    try:
        drawn = numpy(layer.sample(FEATURES, seed=0))
    finally:
        jax.config.update("jax_enable_x64", False)
    assert drawn.shape == (BATCH,)


@pytest.mark.skipif(BACKEND == "jax", reason="JAX differentiates the forward pass")
def test_second_derivatives_are_refused():
    layer = filled(ChunkedOutput(CLASSES))
    features = keras.ops.convert_to_tensor(FEATURES)

    def loss(x):
        return layer.evaluate_rows(x, LABELS, training=True)[0].total

    if BACKEND == "torch":
        import torch

        features.requires_grad_()
        (slope,) = torch.autograd.grad(loss(features), features, create_graph=True)
        with pytest.raises(NotImplementedError, match="no second derivatives"):
            (slope**2).sum().backward()
        return
    import tensorflow as tf

    with tf.GradientTape() as outer:
        outer.watch(features)
        with tf.GradientTape() as inner:
            inner.watch(features)
            value = loss(features)
        squares = tf.reduce_sum(inner.gradient(value, features) ** 2)
    with pytest.raises(NotImplementedError, match="no second derivatives"):
        outer.gradient(squares, features)
