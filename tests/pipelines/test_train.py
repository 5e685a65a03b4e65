import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import yaml
from sklearn.metrics import accuracy_score, f1_score
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import kerasoft
from kerasoft import heads
from pipelines import (
    evaluation,
    optimizers,
    publishing,
    run_folder,
    saved_model,
    train,
    training,
)
from pipelines.config import Annealing, Config, Switch
from pipelines.errors import InputError
from pipelines.run_folder import read_history


def flags(config, saved_models):
    """The command line of a config."""
    file = saved_models.parent / "config.yaml"
    file.write_text(config.to_yaml())
    return ["--config", str(file), "--saved_models", str(saved_models)]


def command(argv, capsys):
    """Runs `train`; gives its status and its lines on stderr."""
    with pytest.raises(SystemExit) as exit:
        train.main(argv)
    return exit.value.code, capsys.readouterr().err.splitlines()


def same_weights(a, b):
    a, b = (
        keras.models.load_model(run / "assets.extra" / "model.keras").get_weights()
        for run in (a, b)
    )
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(("given", "found"), [(None, "1"), ("0", "0"), ("1", "1")])
def test_onednn_is_asked_for_unless_the_user_says_otherwise(given, found):
    code = (
        "import os, sys, pipelines\n"
        "assert 'tensorflow' not in sys.modules  # which reads it when it is imported\n"
        "print(os.environ['TF_ENABLE_ONEDNN_OPTS'])\n"
    )
    variables = {k: v for k, v in os.environ.items() if k != "TF_ENABLE_ONEDNN_OPTS"}
    if given is not None:
        variables["TF_ENABLE_ONEDNN_OPTS"] = given
    done = subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True
    )
    assert done.stdout.strip() == found, done.stderr


def test_a_run_is_a_saved_model_with_its_record(run, tiny):
    served = tf.saved_model.load(run).signatures["serving_default"]
    test = training.load_data(tiny).test
    predicted = served(images=tf.constant(test.images))["class"].numpy()
    record = json.loads((run / "assets.extra" / "run.json").read_text())
    assert record["metrics"]["accuracy"] == accuracy_score(test.labels, predicted)
    assert record["metrics"]["f1"] == pytest.approx(
        f1_score(test.labels, predicted, average="macro")
    )
    assert record["metrics"]["accuracy"] > 0.9
    assert record["config"] == dataclasses.asdict(tiny)
    assert record["dataset"]["checksum"] == training.load_data(tiny).checksum
    assert record["versions"]["keras"] == keras.__version__
    config = yaml.safe_load((run / "assets.extra" / "config.yaml").read_text())
    assert config == dataclasses.asdict(tiny)
    assert (run / "assets" / "class_names.txt").read_text() == "blue\ngreen\nred\n"
    assert len((run / "assets.extra" / "history.csv").read_text().splitlines()) == 3
    assert [path.name for path in run.parent.iterdir()] == [run.name]


def test_the_same_config_gives_the_same_numbers(run, tiny, tmp_path):
    again = training.train(tiny, tmp_path)
    assert same_weights(run, again)
    other = training.train(dataclasses.replace(tiny, seed=1), tmp_path)
    assert not same_weights(run, other)


def test_a_run_loads_where_kerasoft_is_not(run):
    script = f"""
import sys
sys.modules["kerasoft"] = None  # importing it raises ImportError
import tensorflow as tf
served = tf.saved_model.load({str(run)!r}).signatures["serving_default"]
answer = served(images=tf.zeros((2, 50, 40, 3), tf.uint8))
print(sorted(answer), answer["probabilities"].shape)
"""
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == (
        "['class', 'class_name', 'log_probabilities', 'logits', 'probabilities'] (2, 3)"
    )


KILL_IN_THE_THIRD_EPOCH = """
import os, signal, sys
from pipelines import train, training

def kill(self, batch, logs=None):
    if self.epochs == 2 and batch >= 3:
        os.kill(os.getpid(), signal.SIGKILL)

training.Progress.on_train_batch_end = kill
train.main(sys.argv[1:])
"""


def test_a_killed_run_resumes_to_the_same_weights(tiny, tmp_path, capsys):
    config = dataclasses.replace(
        tiny,
        backbone="resnet12",
        head="log_gumbel_softmax",
        temperature=Annealing("cosine", 3.0, 0.5),
        loss=Switch("matched", "generalized:0.5", after=3),
        dropblock=0.1,
        mixup=0.2,
        epochs=4,
        precision="mixed_bfloat16",
    )
    straight = training.train(config, tmp_path / "straight")
    killed = tmp_path / "killed"
    shot = subprocess.run(
        [sys.executable, "-c", KILL_IN_THE_THIRD_EPOCH, *flags(config, killed)],
        check=False,
        stdout=subprocess.DEVNULL,
    )
    assert shot.returncode == -signal.SIGKILL
    left = {path.name for path in killed.iterdir()}
    assert left == {f".{config.run_name}.{kind}" for kind in ("partial", "lock")}
    status, lines = command(flags(config, killed), capsys)
    assert (status, len(lines)) == (2, 1)
    assert "--resume goes on" in lines[0]
    resumed = training.train(config, killed, resume=True)
    runs = straight, resumed
    assert same_weights(*runs)
    histories = [(r / "assets.extra" / "history.csv").read_text() for r in runs]
    assert histories[0] == histories[1]
    records = [run_folder.read_record(r) for r in runs]
    assert [record.resumed_at_epoch for record in records] == [0, 2]
    assert records[0].metrics == records[1].metrics


def test_muon_trains(tiny, tmp_path):
    config = dataclasses.replace(
        tiny, epochs=4, optimizer="muon", learning_rate=0.02, weight_decay=0.01
    )
    record = run_folder.read_record(training.train(config, tmp_path))
    assert record.metrics["accuracy"] > 0.9


@pytest.mark.parametrize(
    ("steps_per_execution", "stopped"),
    [
        (16, False),
        pytest.param(1, True, marks=pytest.mark.slow),
        pytest.param(16, True, marks=pytest.mark.slow),
    ],
)
def test_tensorboard_shows_the_schedules_temperature(
    tiny, tmp_path, steps_per_execution, stopped
):
    config = dataclasses.replace(
        tiny,
        head="gumbel_softmax",
        temperature=Annealing("exponential", 3.0, 0.5),
        steps_per_execution=steps_per_execution,
        batch_size=3,  # 16 steps an epoch
        epochs=4,
    )
    if stopped:
        kill = [sys.executable, "-c", KILL_IN_THE_THIRD_EPOCH]
        subprocess.run([*kill, *flags(config, tmp_path / "runs")], check=False)
    run = training.train(config, tmp_path / "runs", resume=stopped)
    assert run_folder.read_record(run).resumed_at_epoch == (2 if stopped else 0)
    events = EventAccumulator(str(run / "assets.extra" / "tensorboard" / "train"))
    events.Reload()
    logged = {
        event.step: float(tf.make_ndarray(event.tensor_proto))
        for event in events.Tensors("epoch_temperature")
    }
    assert sorted(logged) == [0, 1, 2, 3]
    for epoch, temperature in logged.items():
        closed_form = 3 * (0.5 / 3) ** ((epoch + 1) / 4)
        assert temperature == pytest.approx(closed_form, abs=1e-6)


def test_a_learned_temperature_is_learned_and_served(tiny, tmp_path):
    config = dataclasses.replace(tiny, head="gumbel_softmax", temperature="learned")
    run = training.train(config, tmp_path)
    reached = read_history(run)["temperature"]
    assert len(set(reached)) == config.epochs
    model = keras.models.load_model(run / "assets.extra" / "model.keras")
    temperature = float(model.layers[-1].current_temperature)
    assert temperature == pytest.approx(reached[-1], rel=1e-6)
    images = training.load_data(config).test.images
    served = tf.saved_model.load(run).signatures["serving_default"]
    np.testing.assert_allclose(
        served(images=tf.constant(images))["probabilities"],
        model.predict(images, verbose=0),
        atol=1e-5,
    )


def test_nothing_is_overwritten_unasked(run, tiny, capsys):
    argv = flags(tiny, run.parent)
    before = (run / "saved_model.pb").stat().st_mtime_ns
    status, lines = command(argv, capsys)
    assert (status, len(lines)) == (2, 1)
    assert "--overwrite" in lines[0]
    assert (run / "saved_model.pb").stat().st_mtime_ns == before
    status, lines = command([*argv, "--resume"], capsys)
    assert (status, len(lines)) == (2, 1)


@pytest.mark.parametrize("resume", [True, False])
def test_what_a_kill_left_of_publishing_is_tidied_up(resume, run, tiny, tmp_path):
    path = tmp_path / run.name
    shutil.copytree(run, publishing.finished(path) / ("new" if resume else "old"))
    if resume:
        assert training.train(tiny, tmp_path, resume=True) == path
    else:
        shutil.copytree(run, path)
        with pytest.raises(InputError, match="is there already; --overwrite"):
            training.train(tiny, tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_what_was_stopped_before_it_had_a_config_starts_anew(run, tiny, tmp_path):
    path = tmp_path / run.name
    publishing.start(path)
    with pytest.raises(InputError, match="without --resume it starts"):
        training.train(tiny, tmp_path, resume=True)
    assert run_folder.standing(path, tiny) == "new"


def test_a_stopped_run_whose_config_is_no_text_has_another(run, tiny, tmp_path):
    path = tmp_path / run.name
    publishing.start(path)
    (publishing.partial(path) / run_folder.CONFIG).write_bytes(b"\xff")
    with pytest.raises(InputError, match="has another config"):
        training.train(tiny, tmp_path, resume=True)


def test_overwrite_replaces_a_run(tiny, tmp_path):
    config = dataclasses.replace(tiny, epochs=1)
    path = training.train(config, tmp_path)
    (path / "mine").touch()
    assert training.train(config, tmp_path, overwrite=True) == path
    assert not (path / "mine").exists()
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_loss_that_is_not_finite_ends_in_one_sentence(tiny, tmp_path, capsys):
    config = dataclasses.replace(tiny, learning_rate=1e30, warmup_epochs=0)
    status, lines = command(flags(config, tmp_path / "runs"), capsys)
    assert status == 1
    assert "a lower --learning_rate" in lines[-1]
    assert not list((tmp_path / "runs").iterdir())


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--head", "softmx"], "did you mean softmax"),
        (["--wdth", "8"], "did you mean width"),
        (["--width", "wide"], "width must be int"),
        (["--width", "0"], "width must be at least 1"),
        (["--head=gumbel_softmax", "--temperature=0"], "not 0"),
        (["--temperature", "3"], "belongs to the Gumbel heads"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (
            ["--dataset", "imagenet"],
            "must be auto, cifar100, shapes100, tfds:NAME, folder:PATH, glyphs or",
        ),
        (["--dataset", "folder:/nowhere"], "there is no /nowhere/train"),
        (["--resume", "--dataset", "shapes100"], "no stopped run"),
        (["--precision", "float8"], "precision must be"),
    ],
)
def test_bad_input_ends_in_one_line_and_leaves_nothing(
    argv, says, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    status, lines = command(argv, capsys)
    assert (status, len(lines)) == (2, 1)
    assert says in lines[0]
    assert not list(tmp_path.iterdir())


def test_bad_input_of_a_process_ends_in_one_line(tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "pipelines.train", "--head", "softmx"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert len(result.stderr.splitlines()) == 1


def test_every_annealing_starts_and_ends_where_it_says():
    for kind in ("linear", "exponential", "cosine", "jang"):
        schedule = training.temperature_schedule(Annealing(kind, 3.0, 0.5, 10), 100)
        assert float(schedule(0)) == pytest.approx(3.0)
        assert float(schedule(100)) == pytest.approx(0.5, abs=1e-6)
        assert 0.5 < float(schedule(50)) < 3.0
    for kind in ("linear", "exponential", "cosine"):
        schedule = training.temperature_schedule(Annealing(kind, -1.0, -2.0), 100)
        assert float(schedule(100)) == pytest.approx(-2.0)


@pytest.mark.parametrize(
    ("schedule", "after_a_quarter"),
    [("cosine_decay", 0.2 + 0.2 * 0.5**0.5), ("linear_decay", 0.3)],
)
def test_the_learning_rate_warms_up_and_decays(schedule, after_a_quarter):
    config = Config(epochs=3, learning_rate=0.4, schedule=schedule)
    rate = optimizers.learning_rate(config, steps=100)
    assert float(rate(0)) == 0
    assert float(rate(50)) == pytest.approx(0.2)
    assert float(rate(100)) == pytest.approx(0.4)
    assert float(rate(150)) == pytest.approx(after_a_quarter)
    assert float(rate(200)) == pytest.approx(0.2)
    assert float(rate(300)) == pytest.approx(0, abs=1e-6)
    short = optimizers.learning_rate(dataclasses.replace(config, epochs=1), 100)
    assert float(short(50)) == pytest.approx(0.4)
    assert float(short(100)) == pytest.approx(0, abs=1e-6)
    at_once = dataclasses.replace(config, warmup_epochs=0)
    assert float(optimizers.learning_rate(at_once, 100)(0)) == pytest.approx(0.4)


def test_all_that_a_run_depends_on_is_kept(tiny, loaded, tmp_path):
    model = training.build(tiny, loaded, "mixed_float16")
    kept = {v.path for v in training.Progress(tmp_path / "state", model).state}
    assert {"dynamic_scale", "step_counter"} <= {path.split("/")[-1] for path in kept}
    images = np.zeros((8, 16, 16, 3), "uint8")
    model.fit(images, keras.utils.to_categorical(8 * [0], 3), verbose=0)
    after = {v.path for v in training.Progress(tmp_path / "state", model).state}
    assert after == kept


def test_variables_of_one_name_are_all_kept(tmp_path):
    def branch():
        inputs = keras.Input((2,))
        return keras.Model(inputs, keras.layers.Dense(1, name="same")(inputs))

    inputs = keras.Input((2,))
    outputs = keras.layers.Add()([branch()(inputs), branch()(inputs)])
    model = keras.Model(inputs, outputs)
    model.compile("sgd", loss="mse")
    paths = [v.path for v in model.variables]
    assert len(set(paths)) < len(paths)
    progress = training.Progress(tmp_path / "state.npz", model)
    weights = model.get_weights()
    progress.on_epoch_end(0)
    model.set_weights([weight + 1 for weight in weights])
    assert training.Progress(tmp_path / "state.npz", model).restore() == 1
    for one, other in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_weight_decay_is_on_kernels_alone(tiny):
    loaded = training.load_data(tiny)
    config = dataclasses.replace(
        tiny,
        backbone="resnet12",
        weight_decay=0.5,
        head="gumbel_softmax",
        temperature="learned",
    )
    model = training.build(config, loaded, "float32")
    decayed = {
        v.path
        for v in model.trainable_variables
        if model.optimizer._use_weight_decay(v)
    }
    assert decayed == {
        v.path for v in model.trainable_variables if v.path.endswith("kernel")
    }


def test_a_backbone_of_ones_own_is_trained_and_served(
    tiny, tmp_path, monkeypatch, capsys
):
    (tmp_path / "my_networks.py").write_text(
        "import keras\n"
        "def small(input_shape, width):\n"
        "    inputs = keras.Input(input_shape)\n"
        "    x = keras.layers.Conv2D(width, 3, activation='relu')(inputs)\n"
        "    return keras.Model(inputs, x)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = dataclasses.replace(tiny, backbone="my_networks:small")
    run = training.train(config, tmp_path)
    assert run.name.startswith("photos-my_networks.small-")
    serve, _ = saved_model.load(run)
    answer = serve(images=np.zeros((2, 16, 16, 3), "uint8"))
    np.testing.assert_allclose(
        answer["probabilities"].numpy().sum(axis=-1), 1, rtol=1e-5
    )
    for flag, words in (
        (["--backbone", "my_networks:large"], "cannot be imported"),
        (["--backbone", "resnet13"], "Received: resnet13"),
        (["--backbone", "plain_cnn", "--dropblock", "0.1"], "plain_cnn has none"),
    ):
        with pytest.raises(SystemExit, match=r"^2$"):
            train.main(["--dataset", tiny.dataset, *flag])
        (line,) = capsys.readouterr().err.splitlines()
        assert words in line


@keras.saving.register_keras_serializable(package="tests")
class SharpSoftmax(heads.Head):
    """Softmax of logits times two."""

    def activate(self, logits):
        return keras.ops.softmax(2 * logits, axis=self.axis)


def narrow(num_classes, head, input_shape, name="narrow"):
    return kerasoft.plain_cnn(num_classes, head, 2, input_shape, name)


def test_a_head_and_a_backbone_are_added_by_one_registration_each(
    tiny, tmp_path, monkeypatch
):
    monkeypatch.setitem(heads.HEADS, "sharp_softmax", SharpSoftmax)
    monkeypatch.setitem(kerasoft.backbones.BACKBONES, "narrow", narrow)
    flags = ["--dataset", tiny.dataset, "--image_size", "16", "--epochs", "1"]
    flags += ["--head", "sharp_softmax", "--backbone", "narrow", "--batch_size", "8"]
    with pytest.raises(SystemExit, match=r"^0$"):
        train.main([*flags, "--saved_models", str(tmp_path / "runs")])
    runs = list((tmp_path / "runs").iterdir())
    evaluation.evaluate(runs, tmp_path / "out", timings=False)
    for name in ("comparison.md", "comparison.csv", "comparison.html"):
        assert "sharp_softmax" in (tmp_path / "out" / name).read_text("utf-8")
