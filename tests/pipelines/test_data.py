import dataclasses
import re
import socket
import threading
import time

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from hypothesis import given
from hypothesis import strategies as st

from pipelines import batching, datasets, evaluate, pixels, train
from pipelines.config import Config
from pipelines.datasets import prepared, source
from pipelines.errors import InputError


def first(batches):
    return [array.numpy() for array in next(iter(batches))]


def test_cifar100_is_whole_and_stratified(cifar100):
    assert cifar100.test.images.shape == (10_000, 32, 32, 3)
    assert len(cifar100.class_names) == 100
    assert cifar100.class_names[0] == "apple"
    assert cifar100.superclass_names[cifar100.superclasses[0]] == "fruit_and_vegetables"
    assert np.bincount(cifar100.superclasses).tolist() == [5] * 20
    assert np.bincount(cifar100.train.labels).tolist() == [450] * 100
    assert np.bincount(cifar100.validation.labels).tolist() == [50] * 100


def test_coarse_labels_keep_the_split(cifar100):
    coarse = train.load_data(Config(dataset="cifar100", label="coarse"))
    assert len(coarse.class_names) == 20
    assert coarse.superclasses is None
    np.testing.assert_array_equal(
        coarse.validation.labels,
        np.array(cifar100.superclasses)[cifar100.validation.labels],
    )
    np.testing.assert_array_equal(coarse.validation.images, cifar100.validation.images)


def test_the_split_follows_the_seed(tiny):
    one, same, other = (
        train.load_data(dataclasses.replace(tiny, seed=seed)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one.validation.images, same.validation.images)
    assert not np.array_equal(one.validation.images, other.validation.images)
    assert one.checksum == other.checksum
    everything = np.concatenate([one.train.images, one.validation.images])
    assert len(np.unique(everything, axis=0)) == len(everything) == 60


def test_a_folder_of_images(tiny, photos):
    loaded = train.load_data(tiny)
    assert loaded.class_names == ["blue", "green", "red"]
    assert loaded.test.images.shape == (18, 16, 16, 3)
    means = [
        loaded.test.images[loaded.test.labels == label].mean(axis=(0, 1, 2))
        for label in range(3)
    ]
    assert np.argmax(means, axis=1).tolist() == [2, 1, 0]


def test_a_folder_that_cannot_serve(tmp_path, tiny):
    def load(**changes):
        changes = {"dataset": f"folder:{tmp_path / 'photos'}", **changes}
        return train.load_data(dataclasses.replace(tiny, **changes))

    with pytest.raises(InputError, match=r"needs .*/train/CLASS"):
        load()
    for split in ("train", "test"):
        for name in ("a", "b"):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for i in range(2):
                PIL.Image.new("RGB", (9, 9), (60 * i, 0, 0)).save(folder / f"{i}.png")
    with pytest.raises(InputError, match=r"at most .* 2\. Received: 8 \* 1"):
        batching.steps_per_epoch(load().train, tiny)
    with pytest.raises(InputError, match="label coarse needs cifar100 or shapes100"):
        load(label="coarse")
    (tmp_path / "photos" / "test" / "a" / "0.png").write_bytes(b"not an image")
    with pytest.raises(InputError, match=r"test/a/0\.png.*not an image"):
        load(batch_size=2)


def test_a_batch_is_a_function_of_seed_epoch_and_step(tiny):
    loaded = train.load_data(tiny)
    steps = len(loaded.train.labels) // tiny.batch_size

    def epoch(config, number, resumed=False):
        batches = batching.training_batches(
            loaded.train, 3, config, first_epoch=number if resumed else 0
        )
        skipped = batches if resumed else batches.skip(number * steps)
        return [[a.numpy() for a in batch] for batch in skipped.take(steps)]

    for straight, resumed in zip(epoch(tiny, 1), epoch(tiny, 1, True), strict=True):
        np.testing.assert_array_equal(straight[0], resumed[0])
        np.testing.assert_array_equal(straight[1], resumed[1])
    other = dataclasses.replace(tiny, seed=1)
    assert not np.array_equal(epoch(tiny, 0)[0][0], epoch(tiny, 1)[0][0])
    assert not np.array_equal(epoch(tiny, 0)[0][0], epoch(other, 0)[0][0])


def test_an_epoch_takes_each_image_at_most_once(tiny):
    loaded = train.load_data(tiny)
    numbered = datasets.Split(
        np.broadcast_to(
            np.arange(len(loaded.train.labels), dtype="uint8")[:, None, None, None],
            loaded.train.images.shape,
        ).copy(),
        loaded.train.labels,
    )
    steps = len(numbered.labels) // tiny.batch_size
    batches = batching.training_batches(numbered, 3, tiny).take(steps)
    seen = np.concatenate([x.numpy()[:, 0, 0, 0] for x, _ in batches])
    assert len(set(seen)) == len(seen) == steps * tiny.batch_size


@given(st.integers(0, 2**31 - 1))
def test_crops_are_windows_of_the_reflected_image(seed):
    image = np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype="uint8")
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)), mode="reflect")
    windows = {
        view.tobytes()
        for top in range(9)
        for left in range(9)
        for window in [padded[top : top + 12, left : left + 10]]
        for view in (
            np.ascontiguousarray(window),
            np.ascontiguousarray(window[:, ::-1]),
        )
    }
    crops = batching.crop_and_flip(tf.constant(np.stack([image] * 4)), 4, [seed, 0])
    assert all(crop.tobytes() in windows for crop in crops.numpy())


def test_crops_and_flips_take_every_place():
    image = np.arange(12 * 10, dtype="uint8").reshape(1, 12, 10, 1)
    crops = batching.crop_and_flip(
        tf.constant(np.repeat(image, 4000, 0)), 4, [0, 0]
    ).numpy()
    assert len({crop.tobytes() for crop in crops}) == 9 * 9 * 2


def test_cutout_covers_a_square():
    images = tf.zeros((64, 16, 16, 3), tf.uint8)
    covered = (batching.cutout(images, 4, [0, 0]).numpy() == batching.GREY).all(-1)
    sizes = covered.sum((1, 2))
    assert sizes.max() == 16
    assert sizes.min() >= 4
    for mask in covered:
        rows, columns = mask.any(1).sum(), mask.any(0).sum()
        assert rows * columns == mask.sum()


def test_mixup_mixes_images_and_targets_alike():
    images = tf.constant(np.repeat([[0], [200]], 8, 0).reshape(16, 1, 1, 1), tf.uint8)
    targets = tf.one_hot(np.repeat([0, 1], 8), 2)
    mixed, mixed_targets = batching.mixup(images, targets, 1.0, [3, 1])
    np.testing.assert_allclose(
        mixed.numpy().ravel(), 200 * mixed_targets.numpy()[:, 1], atol=0.5
    )
    np.testing.assert_allclose(mixed_targets.numpy().sum(1), 1, atol=1e-6)
    assert len(np.unique(mixed)) > 2


def test_validation_batches_are_in_order_and_as_they_are(tiny):
    split = train.load_data(tiny).validation
    batches = list(batching.batches(split, 3, batch_size=4))
    images = np.concatenate([x.numpy() for x, _ in batches])
    labels = np.concatenate([y.numpy() for _, y in batches]).argmax(-1)
    np.testing.assert_array_equal(images, split.images)
    np.testing.assert_array_equal(labels, split.labels)


def test_the_end_of_an_iterator_waits_for_no_autotuner(tiny):
    split = train.load_data(tiny).train
    for batches in (
        batching.batches(split, 3),
        batching.training_batches(split, 3, tiny),
    ):
        assert batches.options().autotune.enabled is False


@pytest.mark.slow
def test_auto_decides_within_10_seconds_where_packets_vanish(
    tmp_path, monkeypatch, capsys
):
    over = threading.Event()

    def silence(*args, **kwargs):
        over.wait(60)
        raise OSError("timed out")

    monkeypatch.setattr(socket, "getaddrinfo", silence)
    monkeypatch.setattr(prepared.tfds, "builder", lambda name: Unprepared())
    started = time.monotonic()
    assert datasets.resolve("auto") == "shapes100"
    assert time.monotonic() - started < 10
    over.set()
    assert "DATA SET: shapes100" in capsys.readouterr().err


class Unprepared:
    data_dir = "nowhere"

    def is_prepared(self):
        return False

    def download_and_prepare(self):
        raise OSError("no route to host")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mnist", "cifar100, shapes100, tfds:NAME or folder:PATH. Received: mnist"),
        ("folder:", "Received: folder:"),
        ("cifar100:fine", "Received: cifar100:fine"),
        ("tfds:no_such_set", "has no data set no_such_set"),
        ("tfds:mnist:9.9.9", "has no data set mnist:9.9.9"),
        ("tfds:../mnist", "has no data set ../mnist"),
    ],
)
def test_a_data_set_that_is_not_known(name, words):
    with pytest.raises(InputError, match=re.escape(words)) as raised:
        datasets.load(name)
    assert "\n" not in str(raised.value)


class GreySquares(tfds.core.GeneratorBasedBuilder):
    """Grey images of several sizes, of which each class has its brightness."""

    VERSION = tfds.core.Version("1.0.0")
    kept = ("image", "label")

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(None, None, 1)),
            "label": tfds.features.ClassLabel(names=["dark", "light"]),
        }
        kept = tfds.features.FeaturesDict({name: features[name] for name in self.kept})
        return tfds.core.DatasetInfo(builder=self, features=kept)

    def _split_generators(self, dl_manager):
        return {
            "train": self._generate_examples(20),
            "test": self._generate_examples(6),
        }

    def _generate_examples(self, count):
        for i in range(count):
            image = np.full((10 + i, 12, 1), 50 + 150 * (i % 2), "uint8")
            example = {"image": image, "label": i % 2}
            yield i, {name: example[name] for name in self.kept}


class SquaresWithoutLabels(GreySquares):
    kept = ("image",)


def test_a_data_set_of_tfds(monkeypatch, tmp_path):
    monkeypatch.setattr(
        prepared.tfds, "builder", lambda _: GreySquares(data_dir=tmp_path)
    )
    loaded = datasets.load("tfds:grey_squares", size=24)
    assert loaded.train.images.shape == (18, 24, 24, 3)
    assert loaded.test.images.shape == (6, 24, 24, 3)
    assert loaded.class_names == ["dark", "light"]
    assert loaded.superclasses is None
    for images, labels in (loaded.train, loaded.validation, loaded.test):
        expected = np.broadcast_to(50 + 150 * labels[:, None, None, None], images.shape)
        np.testing.assert_array_equal(images, expected)


def test_a_data_set_of_tfds_without_labels_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(
        prepared.tfds, "builder", lambda _: SquaresWithoutLabels(data_dir=tmp_path)
    )
    words = "needs the features `image` and `label`.* has the features image and"
    with pytest.raises(InputError, match=words):
        datasets.load("tfds:squares_without_labels")


def test_a_data_set_is_added_by_one_registration(monkeypatch, tmp_path, capsys):
    def read(name, size):
        draws = np.random.default_rng(0)
        labels = np.arange(40, dtype="int32") % 2
        pixels = draws.integers(0, 255, (40, size, size, 3), dtype="uint8")
        named = source.Labels(labels, labels, ["odd " + name, "even"])
        return source.Source(pixels, pixels, {"fine": named})

    monkeypatch.setitem(datasets.DATASETS, "noise:NAME", read)
    options = {"backbone": "plain_cnn", "width": 4, "image_size": 16}
    options |= {"batch_size": 8, "epochs": 1, "precision": "float32"}
    flags = [f for name, value in options.items() for f in (f"--{name}", str(value))]
    flags += ["--saved_models", str(tmp_path), "--dataset", "noise:one"]
    with pytest.raises(SystemExit, match=r"^0$"):
        train.main(flags)
    assert "test (40 images)" in capsys.readouterr().out
    (run,) = tmp_path.glob("noise.one-*")
    made = evaluate.evaluate([run], tmp_path / "out", timings=False)
    assert made.comparison.tables[0].class_names == ["odd one", "even"]


def test_a_data_set_asked_for_by_name_is_never_replaced(monkeypatch):
    monkeypatch.setattr(prepared.tfds, "builder", lambda name: Unprepared())
    with pytest.raises(InputError, match="cifar100 is not in nowhere"):
        train.load_data(Config(dataset="cifar100"))


def test_resizing_leaves_the_right_size_alone():
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype="uint8")
    resized = tf.image.resize(images, (16, 16), antialias=True)  # the slow form
    np.testing.assert_array_equal(resized, images)
    np.testing.assert_array_equal(pixels.resize(images, 16), images)
    for sides in (16, 32), (32, 16), (32, 32):  # one side alone will not do
        other = np.zeros((2, *sides, 3), "uint8")
        assert pixels.resize(other, 16).shape == (2, 16, 16, 3)
    assert pixels.resize(images, 32).shape == (2, 32, 32, 3)
