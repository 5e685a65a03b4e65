"""The embedding that trains itself, beside Keras's own and Adagrad in NumPy."""

import types

import keras
import numpy as np
import pytest
from references import numpy

from kerasoft import RowwiseEmbedding
from kerasoft.output_layers import ChunkedOutput, Classifier, FactoredOutput

BACKEND = keras.backend.backend()
ROWS, DIM, LENGTH, BATCH, CLASSES = 40, 6, 3, 16, 7


def model_of(embedding):
    keras.utils.set_random_seed(0)
    backbone = keras.Sequential(
        [
            keras.Input((LENGTH,), dtype="int32"),
            embedding,
            keras.layers.Flatten(),
            keras.layers.Dense(8, "tanh"),
        ]
    )
    return Classifier(backbone, ChunkedOutput(CLASSES))


def batches(count):
    """Batches in which rows repeat, and some rows are never met."""
    draws = np.random.default_rng(0)
    for _ in range(count):
        yield (
            draws.integers(ROWS // 2, size=(BATCH, LENGTH)) ** 2 % ROWS,
            draws.integers(CLASSES, size=BATCH),
        )


def test_steps_are_those_of_row_wise_adagrad():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.3, 5, 0.5)
    mine, table = (
        RowwiseEmbedding(ROWS, DIM, schedule),
        keras.layers.Embedding(ROWS, DIM),
    )
    one, other = model_of(mine), model_of(table)
    for model in (one, other):
        model.compile(keras.optimizers.SGD(0.1))
    other.backbone(np.zeros((1, LENGTH), "int32"))
    found = numpy(mine.embeddings).copy()
    # Keras's table makes steps of its own, by SGD, which tell its gradient.
    exact, total = found.astype("float64"), np.zeros(ROWS)
    for i, (x, y) in enumerate(batches(10)):
        table.embeddings.assign(exact.astype("float32"))
        before = numpy(table.embeddings).copy()
        for model in (one, other):
            model.reset_metrics()
        losses = [
            m.train_on_batch(x, y, return_dict=True)["loss"] for m in (one, other)
        ]
        assert float(losses[0]) == pytest.approx(float(losses[1]), rel=1e-5)
        slopes = (before - numpy(table.embeddings)) / 0.1
        total += np.mean(slopes**2, axis=-1)
        step = slopes / (np.sqrt(total) + 1e-7)[:, None]
        exact -= float(schedule(i)) * step
        np.testing.assert_allclose(numpy(mine.embeddings), exact, atol=2e-5)
    unmet = total == 0
    assert 0 < unmet.sum() < ROWS
    np.testing.assert_array_equal(numpy(mine.embeddings)[unmet], found[unmet])
    assert int(numpy(mine.step)) == 10


def learnable():
    x = np.random.default_rng(1).integers(ROWS, size=(300, LENGTH))
    return x, x[:, 1] % CLASSES


@pytest.mark.parametrize(
    "jit",
    ["auto", pytest.param(True, marks=pytest.mark.slow)]
    if BACKEND == "tensorflow"
    else ["auto"],  # JAX compiles, and PyTorch asks for a compiler of its own
)
def test_it_learns_saves_and_goes_on(jit, tmp_path):
    model = model_of(RowwiseEmbedding(ROWS, DIM))
    model.compile(keras.optimizers.Adam(0.03), jit_compile=jit)
    x, y = learnable()
    history = model.fit(x, y, epochs=12, verbose=0).history  # last batch smaller
    assert history["accuracy"][-1] > 0.9
    before = numpy(model.backbone.layers[0].embeddings).copy()
    scores = model.evaluate(x, y, verbose=0)
    np.testing.assert_array_equal(before, numpy(model.backbone.layers[0].embeddings))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.evaluate(x, y, verbose=0) == pytest.approx(scores, rel=1e-6)
    for one in (model, again):
        one.fit(x, y, shuffle=False, verbose=0)
    for a, b in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(numpy(a), numpy(b))


def test_half_precision_gives_half_precision_rows_of_a_float32_table():
    layer = RowwiseEmbedding(ROWS, DIM, dtype="mixed_bfloat16")
    rows = layer(np.zeros((2, 3), "int32"))
    assert keras.backend.standardize_dtype(rows.dtype) == "bfloat16"
    assert layer.embeddings.dtype == "float32"
    backbone = keras.Sequential([layer, keras.layers.Flatten()])
    model = Classifier(backbone, ChunkedOutput(CLASSES))
    model.compile("sgd")
    before = numpy(layer.embeddings).copy()
    x, y = learnable()
    model.fit(x, y, verbose=0)
    assert not np.array_equal(before, numpy(layer.embeddings))


def test_one_embedding_may_be_called_twice_in_a_step():
    embedding = RowwiseEmbedding(ROWS, DIM)
    left, right = keras.Input((2,), dtype="int32"), keras.Input((2,), dtype="int32")
    both = keras.layers.Concatenate()([embedding(left), embedding(right)])
    backbone = keras.Model([left, right], keras.layers.Flatten()(both))
    model = Classifier(backbone, ChunkedOutput(CLASSES))
    model.compile("sgd")
    before = numpy(embedding.embeddings).copy()
    x = np.zeros((BATCH, 2), "int32")
    model.fit([x, x + 1], np.zeros(BATCH, "int32"), verbose=0)
    moved = np.any(numpy(embedding.embeddings) != before, axis=-1)
    np.testing.assert_array_equal(moved, np.arange(ROWS) < 2)


@pytest.mark.skipif(BACKEND != "jax", reason="there alone it needs a `Classifier`")
def test_on_jax_another_model_says_that_it_cannot_train_it():
    model = keras.Sequential(
        [RowwiseEmbedding(ROWS, DIM), keras.layers.Flatten(), keras.layers.Dense(1)]
    )
    model.compile("sgd", "mse")
    x, y = learnable()
    with pytest.raises(RuntimeError, match="trained by the `fit` of a"):
        model.fit(x, y, verbose=0)


@pytest.mark.skipif(BACKEND == "jax", reason="tested above")
def test_elsewhere_any_model_trains_it():
    layer = RowwiseEmbedding(ROWS, DIM)
    model = keras.Sequential([layer, keras.layers.Flatten(), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x, y = learnable()
    model(x)
    before = numpy(layer.embeddings).copy()
    model.fit(x, y, verbose=0)
    assert not np.array_equal(before, numpy(layer.embeddings))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.distribute is TensorFlow's")
@pytest.mark.parametrize(
    "make", [lambda: RowwiseEmbedding(ROWS, DIM), lambda: FactoredOutput(CLASSES)]
)
def test_several_replicas_are_refused(make, monkeypatch):
    import tensorflow as tf

    two = types.SimpleNamespace(num_replicas_in_sync=2)
    monkeypatch.setattr(tf.distribute, "get_strategy", lambda: two)
    with pytest.raises(ValueError, match="num_replicas_in_sync=2"):
        make().build((None, 3))


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({"input_dim": 0}, "`input_dim` must be a positive integer.*=0"),
        ({"output_dim": 2.5}, "`output_dim` must be a positive integer.*=2.5"),
        ({"learning_rate": -1}, "`learning_rate` must be a positive number.*=-1"),
        ({"learning_rate": "fast"}, "`learning_rate` must be.*='fast'"),
        ({"epsilon": 0}, "`epsilon` must be positive.*0"),
    ],
)
def test_bad_arguments(kwargs, says):
    with pytest.raises(ValueError, match=rf"(?s){says}"):
        RowwiseEmbedding(**{"input_dim": 3, "output_dim": 2, **kwargs})


def test_frozen_it_keeps_its_rows():
    model = model_of(RowwiseEmbedding(ROWS, DIM))
    layer = model.backbone.layers[0]
    layer.trainable = False
    model.compile("sgd")
    before = numpy(layer.embeddings).copy()
    x, y = learnable()
    others = numpy(model.backbone.layers[2].kernel).copy()
    model.fit(x, y, verbose=0)
    np.testing.assert_array_equal(before, numpy(layer.embeddings))
    assert np.any(others != numpy(model.backbone.layers[2].kernel))


def test_an_update_of_no_rows_changes_nothing():
    layer = RowwiseEmbedding(ROWS, DIM)
    layer(np.zeros((1,), "int32"))
    before = numpy(layer.embeddings).copy()
    layer.update(np.zeros((0,), "int32"), np.zeros((0, DIM), "float32"))
    np.testing.assert_array_equal(before, numpy(layer.embeddings))
