"""What a run minimises, and how many classes it predicts."""

import dataclasses

import keras
import numpy as np
import pytest

from kerasoft import heads
from pipelines import batching, losses, optimizers, options, run_folder, training
from pipelines.classes_predicted import ClassesPredicted
from pipelines.config import Config, Switch
from pipelines.errors import InputError

OUTPUTS = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]], "float32")
TARGETS = np.eye(3, dtype="float32")[[0, 1]]


def value(loss, head="softmax", outputs=OUTPUTS, step=0, smoothing=0.0):
    made = losses.make(loss, heads.get(head), smoothing, lambda: step, steps=10)
    return float(np.mean(keras.ops.convert_to_numpy(made(TARGETS, outputs))))


def test_losses_by_name():
    p = np.array([0.7, 0.1])
    normal = np.log(np.exp(OUTPUTS).sum(axis=1))
    larger = np.log(np.exp(20 * OUTPUTS).sum(axis=1))
    assert value("matched") == pytest.approx(-np.log(p).mean(), rel=1e-6)
    assert value("as_logits") == pytest.approx((normal - p).mean(), rel=1e-6)
    assert value("as_logits:20") == pytest.approx((larger - 20 * p).mean(), rel=1e-6)
    assert value("generalized:1") == pytest.approx((1 - p).mean(), rel=1e-6)
    assert value("generalized:0.3") == pytest.approx(
        ((1 - p**0.3) / 0.3).mean(), rel=1e-6
    )
    logs = np.log(OUTPUTS)
    assert value("generalized", "log_softmax", logs) == pytest.approx(
        value("generalized:0.7"), rel=1e-5
    )


def test_one_loss_and_then_another():
    switch = Switch("as_logits", "generalized:0.5", after=2)
    for step, name in ((0, switch.first), (19, switch.first), (20, switch.then)):
        assert value(switch, step=step) == value(name)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("crossentropy", "loss: it must be one of matched, as_logits, generalized"),
        ("matched:1", "matched has no number"),
        ("generalized:0", "must be above 0 and at most 1, not 0"),
        ("generalized:1.5", "must be above 0 and at most 1"),
        ("as_logits:inf", "must be above 0, not inf"),
        ("as_logits:many", "must be above 0, not many"),
        (Switch("matched", "other", 1), "loss: it must be one of"),
        (Switch("matched", "as_logits", 0), "at least 1 of the 15 epochs"),
        (Switch("matched", "as_logits", 15), "before their end"),
    ],
)
def test_a_wrong_loss_is_refused(loss, message):
    with pytest.raises(InputError, match=message):
        Config(loss=loss)


def test_a_switch_is_written_and_read(tiny):
    config = dataclasses.replace(tiny, loss=Switch("as_logits", "generalized:1", 1))
    assert "as_logits-1-generalized.1" in config.run_name
    parser = options.config_parser("train", "", "")
    words = ["--loss.first=as_logits", "--loss.then=generalized:1", "--loss.after=1"]
    given = options.config_of(options.parse(parser, [*words, "--epochs=2"]))
    assert given.loss == config.loss


def test_a_loss_changes_in_the_middle(tiny, tmp_path):
    """Its first epoch is that of the first loss; then it learns by the other."""

    def history(loss, name):
        config = dataclasses.replace(tiny, head="softmax", loss=loss)
        path = training.train(config, tmp_path / name)
        kept = run_folder.read_history(path)
        return {key: np.array(kept[key]) for key in ("loss", "val_loss")}, path

    switch = Switch("as_logits", "matched", after=1)
    (switched, path), (first, _) = (
        history(loss, "straight") for loss in (switch, "as_logits")
    )
    assert switched["loss"][0] == first["loss"][0]
    assert abs(switched["loss"][1] - first["loss"][1]) > 0.01
    # Every run is saved with the matched loss, which Keras can load.
    model = keras.saving.load_model(path / run_folder.EXTRA / run_folder.MODEL)
    assert model.loss.reads == "probabilities"


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_wrong_labels_are_of_other_classes(share):
    labels = np.arange(1000) % 7
    given = batching.with_wrong_labels(labels, 7, share, seed=3)
    assert (labels == np.arange(1000) % 7).all()
    assert np.sum(given != labels) == round(1000 * share)
    assert set(given) <= set(range(7))
    assert (given == batching.with_wrong_labels(labels, 7, share, seed=3)).all()
    if share:
        other = batching.with_wrong_labels(labels, 7, share, seed=4)
        assert (given != other).any()


def test_only_training_labels_are_wrong(tiny):
    noisy = dataclasses.replace(tiny, label_noise=0.5)
    right, wrong = training.load_data(tiny), training.load_data(noisy)
    changed = np.mean(right.train.labels != wrong.train.labels)
    assert changed == pytest.approx(0.5, abs=0.02)
    assert (right.test.labels == wrong.test.labels).all()
    assert (right.validation.labels == wrong.validation.labels).all()


def test_the_classes_predicted_at_all():
    metric = ClassesPredicted(5)
    for predicted in ([0, 0, 3], [3, 3, 3], [1]):
        metric.update_state(None, np.eye(5)[predicted])
    assert float(metric.result()) == 3
    metric.reset_state()
    assert float(metric.result()) == 0


def test_adam_decays_weights_as_it_is_told():
    config = Config(optimizer="adam", weight_decay=0.1)
    optimizer = optimizers.make_optimizer(config, steps=10)
    assert isinstance(optimizer, keras.optimizers.AdamW)
    assert optimizer.weight_decay == 0.1
