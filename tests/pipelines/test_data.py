import dataclasses
import socket
import threading
import time

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from pipelines import data
from pipelines.config import Config, InputError


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
    coarse = data.load(Config(dataset="cifar100", label="coarse"))
    assert len(coarse.class_names) == 20
    assert coarse.superclasses is None
    np.testing.assert_array_equal(
        coarse.validation.labels,
        np.array(cifar100.superclasses)[cifar100.validation.labels],
    )
    np.testing.assert_array_equal(coarse.validation.images, cifar100.validation.images)


def test_the_split_follows_the_seed(tiny):
    one, same, other = (
        data.load(dataclasses.replace(tiny, seed=seed)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one.validation.images, same.validation.images)
    assert not np.array_equal(one.validation.images, other.validation.images)
    assert one.checksum == other.checksum
    everything = np.concatenate([one.train.images, one.validation.images])
    assert len(np.unique(everything, axis=0)) == len(everything) == 60


def test_a_folder_of_images(tiny, photos):
    loaded = data.load(tiny)
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
        return data.load(dataclasses.replace(tiny, **changes))

    with pytest.raises(InputError, match=r"needs .*/train/CLASS"):
        load()
    for split in ("train", "test"):
        for name in ("a", "b"):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for i in range(2):
                PIL.Image.new("RGB", (9, 9), (60 * i, 0, 0)).save(folder / f"{i}.png")
    with pytest.raises(InputError, match=r"at most .* 2\. Received: 8 \* 1"):
        load()
    with pytest.raises(InputError, match="label coarse needs cifar100 or shapes100"):
        load(label="coarse")
    (tmp_path / "photos" / "test" / "a" / "0.png").write_bytes(b"not an image")
    with pytest.raises(InputError, match=r"test/a/0\.png.*not an image"):
        load(batch_size=2)


def test_a_batch_is_a_function_of_seed_epoch_and_step(tiny):
    loaded = data.load(tiny)
    steps = len(loaded.train.labels) // tiny.batch_size

    def epoch(config, number, resumed=False):
        batches = data.training_batches(
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
    loaded = data.load(tiny)
    numbered = data.Split(
        np.broadcast_to(
            np.arange(len(loaded.train.labels), dtype="uint8")[:, None, None, None],
            loaded.train.images.shape,
        ).copy(),
        loaded.train.labels,
    )
    steps = len(numbered.labels) // tiny.batch_size
    batches = data.training_batches(numbered, 3, tiny).take(steps)
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
    crops = data.crop_and_flip(tf.constant(np.stack([image] * 4)), 4, [seed, 0])
    assert all(crop.tobytes() in windows for crop in crops.numpy())


def test_crops_and_flips_take_every_place():
    image = np.arange(12 * 10, dtype="uint8").reshape(1, 12, 10, 1)
    crops = data.crop_and_flip(
        tf.constant(np.repeat(image, 4000, 0)), 4, [0, 0]
    ).numpy()
    assert len({crop.tobytes() for crop in crops}) == 9 * 9 * 2


def test_cutout_covers_a_square():
    images = tf.zeros((64, 16, 16, 3), tf.uint8)
    covered = (data.cutout(images, 4, [0, 0]).numpy() == data.GREY).all(-1)
    sizes = covered.sum((1, 2))
    assert sizes.max() == 16
    assert sizes.min() >= 4
    for mask in covered:
        rows, columns = mask.any(1).sum(), mask.any(0).sum()
        assert rows * columns == mask.sum()


def test_mixup_mixes_images_and_targets_alike():
    images = tf.constant(np.repeat([[0], [200]], 8, 0).reshape(16, 1, 1, 1), tf.uint8)
    targets = tf.one_hot(np.repeat([0, 1], 8), 2)
    mixed, mixed_targets = data.mixup(images, targets, 1.0, [3, 1])
    np.testing.assert_allclose(
        mixed.numpy().ravel(), 200 * mixed_targets.numpy()[:, 1], atol=0.5
    )
    np.testing.assert_allclose(mixed_targets.numpy().sum(1), 1, atol=1e-6)
    assert len(np.unique(mixed)) > 2


def test_validation_batches_are_in_order_and_as_they_are(tiny):
    split = data.load(tiny).validation
    batches = list(data.batches(split, 3, batch_size=4))
    images = np.concatenate([x.numpy() for x, _ in batches])
    labels = np.concatenate([y.numpy() for _, y in batches]).argmax(-1)
    np.testing.assert_array_equal(images, split.images)
    np.testing.assert_array_equal(labels, split.labels)


def test_the_end_of_an_iterator_waits_for_no_autotuner(tiny):
    split = data.load(tiny).validation
    for batches in (data.batches(split, 3), data.training_batches(split, 3, tiny)):
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
    monkeypatch.setattr(data.tfds, "builder", lambda name: Unprepared())
    started = time.monotonic()
    assert data.resolve("auto") == "shapes100"
    assert time.monotonic() - started < 10
    over.set()
    assert "DATA SET: shapes100" in capsys.readouterr().err


class Unprepared:
    data_dir = "nowhere"

    def is_prepared(self):
        return False

    def download_and_prepare(self):
        raise OSError("no route to host")


def test_a_data_set_asked_for_by_name_is_never_replaced(monkeypatch):
    monkeypatch.setattr(data.tfds, "builder", lambda name: Unprepared())
    with pytest.raises(InputError, match="cifar100 is not in nowhere"):
        data.load(Config(dataset="cifar100"))


def test_resizing_leaves_the_right_size_alone():
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype="uint8")
    resized = tf.image.resize(images, (16, 16), antialias=True)  # the slow form
    np.testing.assert_array_equal(resized, images)
    np.testing.assert_array_equal(data.resize(images, 16), images)
    for sides in (16, 32), (32, 16), (32, 32):  # one side alone will not do
        other = np.zeros((2, *sides, 3), "uint8")
        assert data.resize(other, 16).shape == (2, 16, 16, 3)
    assert data.resize(images, 32).shape == (2, 32, 32, 3)
