"""Output layers in the laboratory: trained, served, resumed, compared as heads are."""

import dataclasses
import shutil
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasoft import heads
from kerasoft.output_layers import Classifier, TwoLevelOutput
from pipelines import evaluation, outputs, run_folder, saved_model, training
from pipelines.config import Config
from pipelines.errors import InputError
from pipelines.options import config_of, config_parser, parse

pytestmark = pytest.mark.usefixtures("few_resamples")
HEADS = {
    "chunked": "softmax",
    "sampled:2": "log_softmax",
    "adaptive": "log_softmax",
    "two_level": "log_softmax",
    "factored": "z_loss",
}


# A factored layer is for more classes than these.
FEW = pytest.mark.filterwarnings("ignore:(?s).*factored layer costs more")


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory):
    """A run of each output layer."""
    folder = tmp_path_factory.mktemp("outputs")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(?s).*factored layer costs more")
        return {
            name: training.train(
                dataclasses.replace(tiny, output=name, head=head, learning_rate=0.02),
                folder,
            )
            for name, head in HEADS.items()
        }


@pytest.mark.parametrize("name", HEADS)
def test_it_is_served_like_any_run(trained, loaded, name):
    path = trained[name]
    record = run_folder.read_record(path)
    assert record.config.output == name
    serve, _ = saved_model.load(path)
    answer = serve(images=loaded.test.images)
    p, log_p = (answer[k].numpy() for k in ("probabilities", "log_probabilities"))
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.exp(log_p), p, rtol=1e-4, atol=1e-6)
    accuracy = np.mean(answer["class"].numpy() == loaded.test.labels)
    assert record.metrics["accuracy"] == pytest.approx(accuracy)
    history = run_folder.read_history(path)
    assert len(history["epoch"]) == 2
    # What Keras found with the trained model, before it was made to serve.
    validation = loaded.validation
    answer = serve(images=validation.images)
    right = np.mean(answer["class"].numpy() == validation.labels)
    assert history["val_accuracy"][-1] == pytest.approx(right, abs=1e-6)
    if "val_nll" in history:
        log_p = answer["log_probabilities"].numpy()
        truth = log_p[np.arange(len(validation.labels)), validation.labels]
        assert history["val_nll"][-1] == pytest.approx(-truth.mean(), rel=1e-3)


def test_a_kept_model_needs_keras_and_kerasoft_alone(trained, loaded):
    path = trained["two_level"]
    model = keras.saving.load_model(path / run_folder.EXTRA / run_folder.MODEL)
    serve, _ = saved_model.load(path)
    expected = serve(images=loaded.test.images)["log_probabilities"].numpy()
    found = model.predict(loaded.test.images, verbose=0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_runs_are_compared_beside_heads(trained, runs, tmp_path, without_plots):
    given = [*trained.values(), runs[0]]
    made = evaluation.evaluate(given, tmp_path / "out", timings=False)
    (table,) = made.comparison.tables
    titles = {run.title for run in table.runs.values()}
    assert any("two_level" in title for title in titles)
    assert any("sampled:2" in title for title in titles)
    assert [row.scores for row in table.rows if "z_loss" in row.run] == [True]


@FEW
@pytest.mark.parametrize("name", ["chunked", "sampled:2", "factored"])
def test_a_stopped_run_goes_on_as_if_it_was_not(tiny, tmp_path, monkeypatch, name):
    config = dataclasses.replace(
        tiny, output=name, head=HEADS[name], learning_rate=0.02, epochs=3
    )
    dataset = training.load_data(config)
    stopped = tmp_path / "stopped"
    stopped.mkdir()
    keep = training.Progress.on_epoch_end

    def also_elsewhere(self, epoch, logs=None):
        keep(self, epoch, logs)
        if epoch == 0:
            shutil.copy(self.file, stopped)
            shutil.copy(self.file.with_name(run_folder.HISTORY), stopped)

    monkeypatch.setattr(training.Progress, "on_epoch_end", also_elsewhere)
    whole, _ = training.fit(config, dataset, tmp_path / "whole", 0)
    model, done = training.fit(config, dataset, stopped, 0)
    assert done == 1
    for one, other in zip(whole.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_chunked_layer_trains_as_the_dense_one(tiny):
    """The same steps from the same weights, to within rounding."""
    config = dataclasses.replace(tiny, epochs=1)
    dataset = training.load_data(config)
    dense = training.build(config, dataset, "float32")
    layered = dataclasses.replace(config, output="chunked")
    model = training.build(layered, dataset, "float32")
    assert isinstance(model, Classifier)
    model.backbone.set_weights(outputs.features_of(dense).get_weights())
    kernel, bias = dense.get_layer("logits").get_weights()
    model.output_layer.set_weights([kernel.T, bias])
    images = dataset.train.images[:8]
    labels = dataset.train.labels[:8]
    for _ in range(3):
        dense.train_on_batch(images, tf.one_hot(labels, 3))
        model.train_on_batch(images, labels)
    copy = training.serving_copy(layered, dataset, model)
    answers = [m.predict(images, verbose=0) for m in (dense, copy)]
    np.testing.assert_allclose(*answers, rtol=1e-4, atol=1e-5)


def test_two_levels_are_the_superclasses(tiny, loaded):
    config = dataclasses.replace(tiny, output="two_level")
    data = dataclasses.replace(loaded, superclasses=[1, 0, 1])
    layer = training.build(config, data, "float32").output_layer
    assert isinstance(layer, TwoLevelOutput)
    assert layer.groups.tolist() == [1, 0, 1]


def test_two_levels_of_a_number_of_groups_do_not_read_the_superclasses(tiny, loaded):
    data = dataclasses.replace(loaded, superclasses=[1, 0, 1])
    for name, groups in (("two_level:2", [0, 0, 1]), ("two_level:9", [0, 1, 2])):
        config = dataclasses.replace(tiny, output=name)
        layer = training.build(config, data, "float32").output_layer
        assert isinstance(layer, TwoLevelOutput)
        assert layer.groups.tolist() == groups


@FEW
def test_the_classes_of_a_factored_layer_can_learn_at_a_rate_of_their_own(tiny, loaded):
    def layer(name):
        config = dataclasses.replace(
            tiny, output=name, head="z_loss", learning_rate=0.02, warmup_epochs=0
        )
        return training.build(config, loaded, "float32").output_layer

    one, ten = layer("factored"), layer("factored:10")
    assert float(one.learning_rate(0)) == pytest.approx(0.02)
    assert float(ten.learning_rate(0)) == pytest.approx(0.2)
    decays = [float(x.learning_rate(0)) * x.weight_decay for x in (one, ten)]
    assert decays[0] == pytest.approx(decays[1])


def test_the_number_of_sampled_classes(tiny, loaded):
    for name, count in (("sampled:2", 2), ("sampled:99", 3), ("sampled", 3)):
        config = dataclasses.replace(tiny, output=name)
        assert (
            training.build(config, loaded, "float32").output_layer.num_sampled == count
        )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"output": "big"}, "one of chunked, factored, .*not big"),
        ({"output": "chunked", "head": "gumbel_softmax", "hard": True}, "its own loss"),
        (
            {"output": "chunked", "head": "gumbel_softmax", "temperature": "learned"},
            "cannot be learned",
        ),
        ({"output": "chunked:3"}, "chunked has no number"),
        ({"output": "sampled:0"}, "whole and above 0, not 0"),
        ({"output": "two_level:0"}, "whole and above 0, not 0"),
        ({"output": "factored:5"}, "one of .*z_loss"),
        ({"output": "sampled:x"}, "whole and above 0, not x"),
        ({"output": "adaptive", "head": "softmax"}, "must be one of log_softmax"),
        ({"output": "factored"}, "one of .*z_loss"),
        ({"output": "chunked", "loss": "as_logits"}, "has its own loss"),
        ({"output": "chunked", "mixup": 0.2}, "has its own loss"),
        ({"output": "two_level", "label_smoothing": 0.1}, "has its own loss"),
        ({"output": "chunked", "strategy": "mirrored"}, "must be single"),
    ],
)
def test_what_does_not_go_together_is_refused(options, words):
    with pytest.raises(InputError, match=words):
        Config(**{"head": "log_softmax", **options})
    assert Config(output="chunked", label_smoothing=0.1).output == "chunked"


def test_an_output_is_an_option(tiny):
    given = parse(
        config_parser("train", "", ""),
        ["--output", "sampled:10", "--dataset", "cifar100"],
    )
    config = config_of(given)
    assert config.output == "sampled:10"
    assert "sampled.10" in config.run_name
    assert outputs.possible_heads(outputs.OUTPUTS["chunked"]) == list(heads.HEADS)
