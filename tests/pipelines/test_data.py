import dataclasses
import os
import re
import shutil
import socket
import threading
import time
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from hypothesis import given
from hypothesis import strategies as st

from pipelines import (
    augmentation,
    batching,
    datasets,
    evaluation,
    pixels,
    saved_model,
    train,
    training,
)
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
    coarse = training.load_data(Config(dataset="cifar100", label="coarse"))
    assert len(coarse.class_names) == 20
    assert coarse.superclasses is None
    np.testing.assert_array_equal(
        coarse.validation.labels,
        np.array(cifar100.superclasses)[cifar100.validation.labels],
    )
    np.testing.assert_array_equal(coarse.validation.images, cifar100.validation.images)


def test_the_split_follows_the_seed(tiny):
    one, same, other = (
        training.load_data(dataclasses.replace(tiny, seed=seed)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one.validation.images, same.validation.images)
    assert not np.array_equal(one.validation.images, other.validation.images)
    assert one.checksum == other.checksum
    everything = np.concatenate([one.train.images, one.validation.images])
    assert len(np.unique(everything, axis=0)) == len(everything) == 60


@pytest.mark.parametrize(("share", "held"), [(0.01, 3), (0.1, 6), (0.5, 30)])
def test_the_share_of_validation_images(share, held, tiny):
    config = dataclasses.replace(tiny, validation_share=share)
    loaded = training.load_data(config)
    assert len(loaded.validation.labels) == held
    assert len(loaded.train.labels) == 60 - held
    assert set(loaded.validation.labels) == {0, 1, 2}
    assert loaded.checksum == training.load_data(tiny).checksum


def test_a_folder_of_images(tiny, photos):
    loaded = training.load_data(tiny)
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
        return training.load_data(dataclasses.replace(tiny, **changes))

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


def flat(root, count=5, names=("dark", "light")):
    """A folder of one folder a class, whose pictures all differ."""
    for label, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for i in range(count):
            image = PIL.Image.new("RGB", (9, 9), (100 * label, 10 * i, 0))
            image.save(root / name / f"{i}.png")
    return root


def halves(root):
    for half in ("train", "test"):
        flat(root / half)
    return root


def load_folder(root, **options):
    return datasets.load(f"folder:{root}", size=16, **options)


def test_a_folder_of_classes_is_split_the_same_for_every_seed(tmp_path, capsys):
    root = flat(tmp_path / "photos", 20)
    one, other = (load_folder(root, seed=seed) for seed in (0, 1))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "29 images to train, 3 to validate, 8 to test" in lines[0]
    assert one.class_names == ["dark", "light"]
    assert np.bincount(one.test.labels).tolist() == [4, 4]
    assert one.checksum == other.checksum
    np.testing.assert_array_equal(one.test.images, other.test.images)
    assert not np.array_equal(one.validation.images, other.validation.images)
    everything = np.concatenate([one.train[0], one.validation[0], one.test[0]])
    assert len(np.unique(everything, axis=0)) == 40


def test_what_a_file_holds_decides_whether_it_is_for_the_test(tmp_path):
    root = flat(tmp_path / "photos", 20)
    images = {image.tobytes() for image in load_folder(root).test.images}
    for i, path in enumerate(sorted((root / "dark").iterdir())):
        path.rename(path.with_name(f"{99 - i}.jpeg"))
        shutil.copy(path.with_name(f"{99 - i}.jpeg"), path.with_name(f"copy {i}.JPG"))
    loaded = load_folder(root)
    assert {image.tobytes() for image in loaded.test.images} == images
    trained = {image.tobytes() for image in loaded.train.images}
    assert not trained & images


def test_a_class_may_be_called_train(tmp_path):
    assert load_folder(flat(tmp_path, names=("bus", "train"))).class_names == [
        "bus",
        "train",
    ]


def test_a_split_folder_keeps_the_checksum_of_older_runs(photos):
    builder = tfds.ImageFolder(str(photos))
    loaded = datasets.load(f"folder:{photos}", size=24)
    images, labels = [], []
    for example in tfds.as_numpy(builder.as_dataset("test")):
        images.append(pixels.resize(example["image"], 24))
        labels.append(example["label"])
    np.testing.assert_array_equal(loaded.test.images, images)
    np.testing.assert_array_equal(loaded.test.labels, labels)


@pytest.mark.parametrize("layout", [flat, halves])
@pytest.mark.parametrize(
    "name",
    ["photos [1]", "a\\b", "a *", "two\nlines", "two\u2028lines", "Ünï", "a?{b}"],
)
def test_any_name_of_a_folder_loads(layout, name, tmp_path):
    root = layout(tmp_path / name)
    (folder,) = root.glob("**/dark") if layout is flat else [root / "train" / "dark"]
    shutil.copytree(folder, folder.with_name(name))
    if layout is halves:
        shutil.copytree(folder, root / "test" / name)
    assert load_folder(root).class_names == sorted(["dark", "light", name])


@pytest.mark.parametrize("layout", [flat, halves])
def test_hidden_files_and_others_are_left_out(layout, tmp_path):
    root = layout(tmp_path / "photos")
    before = load_folder(root).checksum
    classes = [path for path in root.glob("**/*") if path.name in ("dark", "light")]
    for folder in {root, *classes, *(path.parent for path in classes)}:
        (folder / "._0.png").write_bytes(b"not an image")
        (folder / ".git").mkdir()
        (folder / ".git" / "0.png").write_bytes(b"not an image")
        (folder / "notes.txt").write_text("not an image")
        (folder / "loop").symlink_to("loop")
    assert load_folder(root).checksum == before


def file_without_utf8(folder):
    shutil.copy(folder / "0.png", folder / os.fsdecode(b"\xff.png"))


def test_a_file_whose_name_is_not_utf8_is_read(tmp_path):
    root = flat(tmp_path)
    file_without_utf8(root / "dark")
    assert len(load_folder(root).train.labels) == 7


def link(to):
    return lambda root: (root / "dark" / "x.png").symlink_to(to)


def without_utf8(root):
    shutil.copytree(root / "dark", root / os.fsdecode(b"\xff"))


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda root: (root / "dark" / "x.png").mkdir(), "dark/x.png is named like"),
        (lambda root: os.mkfifo(root / "dark" / "x.png"), "dark/x.png is named like"),
        (link("nowhere"), "dark/x.png is named like"),
        (link("x.png"), "dark/x.png is named like"),
        (lambda root: (root / "dark" / "x.png").touch(), "dark/x.png: not an image"),
        (lambda root: (root / "empty").mkdir(), "empty holds no pictures to train on"),
        (lambda root: shutil.rmtree(root / "dark"), "holds 1 classes"),
        (without_utf8, r"not UTF-8, which a run cannot keep: '\udcff'"),
    ],
)
def test_a_folder_of_classes_that_cannot_serve(harm, words, tmp_path):
    harm(flat(tmp_path / "two\nlines"))
    with pytest.raises(InputError, match=re.escape(words)) as raised:
        load_folder(tmp_path / "two\nlines")
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("half", "words"),
    [
        ("train", "dark holds no pictures to train on"),
        ("test", "hold no pictures to test on"),
    ],
)
def test_a_split_folder_without_pictures(half, words, tmp_path):
    root = halves(tmp_path)
    for path in (root / half).glob("*/*.png"):
        path.unlink()
    with pytest.raises(InputError, match=words):
        load_folder(root)


@pytest.mark.parametrize("path", ["~no_such_user/photos", "/nowhere", "a" * 300])
def test_a_folder_that_is_not_there(path):
    with pytest.raises(InputError) as raised:
        load_folder(path)
    assert len(str(raised.value).splitlines()) == 1


def images(count):
    return datasets.Split(np.zeros((count, 1, 1, 3), "uint8"), np.zeros(count, int))


def test_built_in_data_sets_have_their_own_batch_rate_and_momentum():
    for dataset in ("cifar100", "shapes100"):
        config = Config(dataset=dataset)
        assert config == Config(dataset=dataset, batch_size=128, learning_rate=0.2)
        assert batching.pace(images(9000), config) == (128, 70, 70, 0.2, 0.9)
        large = dataclasses.replace(config, batch_size=4096, epochs=1)
        assert batching.pace(images(9000), large) == (4096, 2, 2, 0.2, 0.9)


@pytest.mark.parametrize(
    ("count", "given", "expected"),
    [
        (45_000, {}, (128, 351, 351, 0.2, 0.9)),
        (2_048, {}, (128, 16, 16, 0.2, 0.9)),
        (1_000, {}, (32, 31, 31, 0.05, 0.9)),
        (86, {}, (8, 10, 10, 0.0125, 0.9)),
        (86, {"steps_per_execution": 20}, (4, 20, 20, 0.00625, 0.9)),
        (86, {"epochs": 3}, (8, 10, 10, 0.0125, 1 - 1 / 3)),
        (86, {"batch_size": 32, "epochs": 3}, (32, 2, 2, 0.05, 0)),
        (86, {"batch_size": 64, "learning_rate": 0.3}, (64, 1, 1, 0.3, 1 - 1 / 1.5)),
        (5, {"learning_rate": 0.3}, (4, 1, 1, 0.3, 1 - 1 / 1.5)),
        (86, {"steps_per_epoch": 25, "epochs": 2}, (8, 10, 25, 0.0125, 1 - 1 / 5)),
        (
            86,
            {"steps_per_epoch": 20, "steps_per_execution": 20},
            (8, 10, 20, 0.0125, 0.9),
        ),
    ],
)
def test_what_is_not_given_follows_the_number_of_images(count, given, expected):
    pace = batching.pace(images(count), Config(dataset="folder:photos", **given))
    assert pace == pytest.approx(expected)


@pytest.mark.parametrize("steps", [3, 5, 12])
def test_an_epoch_of_a_given_number_of_steps_is_a_part_of_the_same_stream(steps):
    pixels = np.random.default_rng(0).integers(0, 256, (43, 8, 8, 3), "uint8")
    split = datasets.Split(pixels, np.arange(43))
    config = Config(dataset="folder:photos", batch_size=8, steps_per_epoch=steps)

    def stream(config, first_epoch, count):
        found = batching.training_batches(split, None, config, first_epoch)
        return [
            (labels.numpy().tolist(), images.numpy().tobytes())
            for images, labels in found.take(count)
        ]

    one_pass = batching.pace(split, config).steps_per_pass
    assert one_pass == 5
    passes = dataclasses.replace(config, steps_per_epoch=None)
    assert stream(config, 0, 30) == stream(passes, 0, 30)
    assert stream(config, 2, 6) == stream(config, 0, 2 * steps + 6)[2 * steps :]


@given(st.integers(1, 10**5), st.integers(1, 100), st.integers(1, 100))
def test_what_is_not_given_always_fits(count, executions, epochs):
    config = Config(
        dataset="folder:x", steps_per_execution=min(executions, count), epochs=epochs
    )
    pace = batching.pace(images(count), config)
    assert pace.batch_size * pace.steps_per_epoch <= count
    assert pace.steps_per_epoch >= 1
    assert 0 <= pace.momentum <= 0.9


@pytest.mark.parametrize(
    ("given", "flag"),
    [
        ({"batch_size": 256}, "--batch_size 8"),
        ({"steps_per_execution": 200}, "--steps_per_execution 1"),
        ({"batch_size": 32, "steps_per_execution": 8}, "--batch_size 8"),
    ],
)
def test_a_batch_that_is_too_large_gets_a_value_that_fits(given, flag):
    config = Config(dataset="folder:photos", **given)
    with pytest.raises(InputError, match=f"images, 96.*; {flag} fits"):
        batching.pace(images(96), config)
    name, value = flag.removeprefix("--").split()
    batching.pace(images(96), dataclasses.replace(config, **{name: int(value)}))


def test_the_momentum_reaches_every_normalisation(tiny):
    config = dataclasses.replace(tiny, backbone="resnet12", epochs=3)
    model = training.build(config, training.load_data(config), "float32")
    momenta = [layer.momentum for layer in model.layers if hasattr(layer, "momentum")]
    assert momenta == pytest.approx([1 - 1 / 1.8] * 16)  # a tenth of 18 steps


def texture(kind, draws):
    """Stripes or checks of any place, width and colours, under noise."""
    rows, columns = (
        np.sin(2 * np.pi * (np.arange(side) / draws.uniform(8, 16) + draws.uniform()))
        for side in (48, 64)
    )
    across, down = np.meshgrid(rows, columns, indexing="ij")
    wave = {"across": across, "checks": across * down, "down": down}[kind]
    back, front = draws.uniform(0, 155), draws.uniform(0, 255, 3)
    front[draws.integers(3)] = back + 100
    made = np.where(wave[..., None] > 0, front, back) + draws.normal(0, 20, (48, 64, 3))
    return np.clip(made, 0, 255).astype("uint8")


@pytest.mark.slow
def test_own_pictures_are_learned_by_one_command(tmp_path):
    draws = np.random.default_rng(0)
    kinds = ("across", "checks", "down")
    for kind in kinds:
        folder = Path(tmp_path, "textures", kind)
        folder.mkdir(parents=True)
        for i in range(40):
            image = PIL.Image.fromarray(texture(kind, draws))
            image.save(folder / f"{i}.jpg")
    with pytest.raises(SystemExit, match=r"^0$"):
        train.main(
            ["--dataset", f"folder:{tmp_path / 'textures'}"]
            + ["--epochs", "60", "--saved_models", str(tmp_path / "runs")]
        )
    serve, names = saved_model.load(next((tmp_path / "runs").iterdir()))
    assert tuple(names) == kinds
    held_out = np.array([texture(kind, draws) for kind in kinds for _ in range(100)])
    (predicted,) = saved_model.ask(serve, held_out, "class")
    assert np.mean(predicted == np.repeat(range(3), 100)) > 0.9


def test_a_batch_is_a_function_of_seed_epoch_and_step(tiny):
    loaded = training.load_data(tiny)
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
    loaded = training.load_data(tiny)
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
    crops = augmentation.crop_and_flip(tf.constant(np.stack([image] * 4)), 4, [seed, 0])
    assert all(crop.tobytes() in windows for crop in crops.numpy())


def test_crops_and_flips_take_every_place():
    image = np.arange(12 * 10, dtype="uint8").reshape(1, 12, 10, 1)
    crops = augmentation.crop_and_flip(
        tf.constant(np.repeat(image, 4000, 0)), 4, [0, 0]
    ).numpy()
    assert len({crop.tobytes() for crop in crops}) == 9 * 9 * 2


def test_cutout_covers_a_square():
    images = tf.zeros((64, 16, 16, 3), tf.uint8)
    covered = (augmentation.cutout(images, 4, [0, 0]).numpy() == augmentation.GREY).all(
        -1
    )
    sizes = covered.sum((1, 2))
    assert sizes.max() == 16
    assert sizes.min() >= 4
    for mask in covered:
        rows, columns = mask.any(1).sum(), mask.any(0).sum()
        assert rows * columns == mask.sum()


def test_mixup_mixes_images_and_targets_alike():
    images = tf.constant(np.repeat([[0], [200]], 8, 0).reshape(16, 1, 1, 1), tf.uint8)
    targets = tf.one_hot(np.repeat([0, 1], 8), 2)
    mixed, mixed_targets = augmentation.mixup(images, targets, 1.0, [3, 1])
    np.testing.assert_allclose(
        mixed.numpy().ravel(), 200 * mixed_targets.numpy()[:, 1], atol=0.5
    )
    np.testing.assert_allclose(mixed_targets.numpy().sum(1), 1, atol=1e-6)
    assert len(np.unique(mixed)) > 2


def test_validation_batches_are_in_order_and_as_they_are(tiny):
    split = training.load_data(tiny).validation
    batches = list(batching.batches(split, 3, batch_size=4))
    images = np.concatenate([x.numpy() for x, _ in batches])
    labels = np.concatenate([y.numpy() for _, y in batches]).argmax(-1)
    np.testing.assert_array_equal(images, split.images)
    np.testing.assert_array_equal(labels, split.labels)


def test_the_end_of_an_iterator_waits_for_no_autotuner(tiny):
    split = training.load_data(tiny).train
    for batches in (
        batching.batches(split, 3),
        batching.training_batches(split, 3, tiny),
    ):
        assert batches.options().autotune.enabled is False


@pytest.mark.parametrize("faster", [True, False])
def test_auto_takes_what_another_process_prepared(faster, monkeypatch, capsys):
    asked = []

    class Raced(Unprepared):
        def is_prepared(self):
            asked.append(self)
            return faster and len(asked) > 2

        def download_and_prepare(self):
            raise FileExistsError("Directory not empty")

    monkeypatch.setattr(prepared, "_reachable", lambda *_: True)
    monkeypatch.setattr(prepared.tfds, "builder", lambda name: Raced())
    assert datasets.resolve("auto") == ("cifar100" if faster else "shapes100")
    told = capsys.readouterr().err
    assert faster or "failed to download: Directory not empty" in told


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
        ("mnist", "tfds:NAME, folder:PATH, glyphs or glyphs:FOLDER. Received: mnist"),
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
    made = evaluation.evaluate([run], tmp_path / "out", timings=False)
    assert made.comparison.tables[0].class_names == ["odd one", "even"]


def test_a_data_set_asked_for_by_name_is_never_replaced(monkeypatch):
    monkeypatch.setattr(prepared.tfds, "builder", lambda name: Unprepared())
    with pytest.raises(InputError, match="cifar100 is not in nowhere"):
        training.load_data(Config(dataset="cifar100"))


def test_resizing_leaves_the_right_size_alone():
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype="uint8")
    resized = tf.image.resize(images, (16, 16), antialias=True)  # the slow form
    np.testing.assert_array_equal(resized, images)
    np.testing.assert_array_equal(pixels.resize(images, 16), images)
    for sides in (16, 32), (32, 16), (32, 32):  # one side alone will not do
        other = np.zeros((2, *sides, 3), "uint8")
        assert pixels.resize(other, 16).shape == (2, 16, 16, 3)
    assert pixels.resize(images, 32).shape == (2, 32, 32, 3)
