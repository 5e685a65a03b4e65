import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import special

from kerasoft.heads import HEADS
from pipelines import batching, run_folder, saved_model, training
from pipelines.config import Annealing, Config
from pipelines.errors import InputError

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype="uint8")


def configured(tiny, head, **changes):
    return dataclasses.replace(tiny, head=head, **changes)


def probabilities(answer, outputs):
    """What should be served of what a head puts out."""
    answer = np.asarray(answer)
    if outputs == "log_probabilities":
        return np.exp(answer)
    if outputs == "scores":
        return special.softmax(answer, axis=-1)
    return answer


@pytest.fixture(scope="module")
def loaded(tiny):
    return training.load_data(tiny)


def exported(config, loaded, path):
    model = training.build(config, loaded, "float32")
    path.mkdir()
    saved_model.export(model, loaded.class_names, path / "run", scratch=path)
    return model, tf.saved_model.load(path / "run").signatures["serving_default"]


@pytest.mark.parametrize("head", HEADS)
def test_the_saved_model_answers_as_the_keras_model(head, tiny, loaded, tmp_path):
    model, serve = exported(configured(tiny, head), loaded, tmp_path / "out")
    expected = probabilities(model(IMAGES, training=False), HEADS[head].outputs)
    answer = {name: value.numpy() for name, value in serve(images=IMAGES).items()}
    np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-5)
    np.testing.assert_allclose(np.exp(answer["log_probabilities"]), expected, atol=1e-5)
    np.testing.assert_array_equal(answer["class"], expected.argmax(-1))
    names = np.array(loaded.class_names)[answer["class"]]
    np.testing.assert_array_equal(answer["class_name"].astype(str), names)


@pytest.mark.parametrize("head", ["log_softmax", "sparsemax", "z_loss"])
def test_the_likeliest_classes_are_served(head, tiny, loaded, tmp_path):
    folder = tmp_path / "out"
    _, serve = exported(configured(tiny, head), loaded, folder)
    top = tf.saved_model.load(folder / "run").signatures["top"]
    every = {name: value.numpy() for name, value in serve(images=IMAGES).items()}
    order = np.argsort(-every["log_probabilities"], axis=1, kind="stable")
    for k, given in ((-1, 0), (1, 1), (2, 2), (9, 3)):  # of three classes
        found = {n: v.numpy() for n, v in top(images=IMAGES, k=tf.constant(k)).items()}
        np.testing.assert_array_equal(found["class"], order[:, :given])
        names = np.array(loaded.class_names)[found["class"]]
        np.testing.assert_array_equal(found["class_name"].astype(str), names)
        for name, of_all in (
            ("probability", "probabilities"),
            ("log_probability", "log_probabilities"),
        ):
            expected = np.take_along_axis(every[of_all], found["class"], axis=1)
            np.testing.assert_allclose(found[name], expected, rtol=1e-6)


@pytest.mark.parametrize("head", ["gumbel_softmax", "log_gumbel_softmax"])
def test_the_same_image_gives_the_same_answer_twice(head, tiny, loaded, tmp_path):
    config = configured(tiny, head, noise="always")
    model, serve = exported(config, loaded, tmp_path / "out")
    assert not np.array_equal(model(IMAGES), model(IMAGES))
    once, twice = (serve(images=IMAGES)["probabilities"].numpy() for _ in range(2))
    np.testing.assert_array_equal(once, twice)


def test_serving_uses_the_temperature_that_training_reached(tiny, loaded, tmp_path):
    config = configured(
        tiny, "gumbel_softmax", temperature=Annealing("linear", 4.0, 1.0)
    )
    model = training.build(config, loaded, "float32")
    steps = batching.steps_per_epoch(loaded.train, config)
    model.get_layer("head").step.assign(steps)  # halfway through 2 epochs
    saved_model.export(model, loaded.class_names, tmp_path / "run", scratch=tmp_path)
    serve = tf.saved_model.load(tmp_path / "run").signatures["serving_default"]
    logits = keras.Model(model.input, model.get_layer("logits").output)(IMAGES)
    np.testing.assert_allclose(
        serve(images=IMAGES)["probabilities"],
        tf.nn.softmax(logits / 2.5),
        atol=1e-6,
    )


def test_images_of_any_size_are_served(run):
    serve, _ = saved_model.load(run)
    for height, width in ((16, 16), (7, 300), (100, 20)):
        answer = serve(images=tf.zeros((2, height, width, 3), tf.uint8))
        assert answer["probabilities"].shape == (2, 3)


def test_any_names_and_any_path_are_served(tiny, loaded, tmp_path):
    names = ["a\nb\r", "c\u2028d", "e\\nf"]
    loaded = dataclasses.replace(loaded, class_names=names)
    folder = tmp_path / "x [y]*" / "a\\b\nc"
    folder.mkdir(parents=True)
    model = training.build(tiny, loaded, "float32")
    saved_model.export(model, names, folder / "run", scratch=folder)
    serve, found = saved_model.load(folder / "run")
    assert found == names
    answer = serve(images=IMAGES)
    named = [name.decode() for name in answer["class_name"].numpy()]
    assert named == [names[i] for i in answer["class"].numpy()]


@pytest.mark.parametrize("file", ["saved_model.pb", "assets/class_names.txt"])
@pytest.mark.parametrize("bytes_left", [0, 10])
def test_a_damaged_run_is_refused_in_one_line(run, tmp_path, file, bytes_left):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    os.truncate(copy / file, bytes_left)
    with pytest.raises(InputError, match="is damaged") as refused:
        saved_model.load(copy)
    assert "\n" not in str(refused.value)


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="There is no run in"):
        saved_model.load(tmp_path)


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A run of each head on shapes100, by the head's name."""
    folder = tmp_path_factory.mktemp("shapes100")
    usual = Config(dataset="shapes100", epochs=2, learning_rate=0.1)
    return {
        head: training.train(dataclasses.replace(usual, head=head), folder)
        for head in HEADS
    }


@pytest.fixture(scope="module")
def asked(learned, tmp_path_factory):
    """A file of images, and what the model of each run answers to it."""
    images = training.load_data(Config(dataset="shapes100")).test.images[:50]
    path = tmp_path_factory.mktemp("asked") / "images.npy"
    np.save(path, images)
    answers = {}
    for head, run in learned.items():
        model = keras.models.load_model(run / "assets.extra" / "model.keras")
        answers[head] = probabilities(
            model.predict(images, verbose=0), HEADS[head].outputs
        )
    return path, answers


@pytest.mark.slow
def test_every_head_learns_shapes100(learned):
    for head, run in learned.items():
        accuracy = run_folder.read_record(run).metrics["accuracy"]
        assert accuracy > 0.02, head  # twice chance, 100 classes


@pytest.mark.slow
def test_every_head_is_served_without_kerasoft(learned, asked, tmp_path):
    path, answers = asked
    script = f"""
import sys
sys.modules["kerasoft"] = None  # importing it raises ImportError
import numpy as np, tensorflow as tf
images = np.load({str(path)!r})
for head, run in {[(head, str(run)) for head, run in learned.items()]}:
    served = tf.saved_model.load(run).signatures["serving_default"](images=images)
    np.save({str(tmp_path)!r} + "/" + head, served["probabilities"])
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    for head, expected in answers.items():
        found = np.load(tmp_path / f"{head}.npy")
        np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=head)


@pytest.mark.slow
@pytest.mark.parametrize("head", ["log_softmax", "gumbel_softmax"])
def test_tensorflows_own_command_shows_and_runs_it(head, learned, asked, tmp_path):
    path, answers = asked
    cli = [str(Path(sys.executable).with_name("saved_model_cli"))]
    where = ["--dir", str(learned[head]), "--tag_set", "serve", "--signature_def"]
    shown = subprocess.run(
        [*cli, "show", *where, "serving_default"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "probabilities" in shown.stdout
    ran = subprocess.run(
        [
            *[*cli, "run", *where, "serving_default"],
            *["--inputs", f"images={path}"],
            *["--outdir", str(tmp_path)],
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    np.testing.assert_allclose(
        np.load(tmp_path / "probabilities.npy"), answers[head], atol=1e-5
    )
