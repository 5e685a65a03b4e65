"""Data: arrays from TFDS, the built-in data set or a folder, and tf.data from arrays.

A training batch is a function of (seed, epoch, step) alone, so a resumed run sees what
an uninterrupted one would have seen.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import sys
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import absl.logging
import numpy as np
import PIL.Image
import PIL.ImageOps
import tensorflow as tf
import tensorflow_datasets as tfds
from sklearn.model_selection import train_test_split

from pipelines.config import Config, InputError

absl.logging.set_verbosity(absl.logging.ERROR)  # TFDS warns of its own deprecations
if not sys.stderr.isatty():
    tfds.disable_progress_bar()

CIFAR100_URL = "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"
DECISION_SECONDS = 8
VALIDATION_SHARE = 0.1
MAX_PIXELS = 2**26
GREY = 128


class Split(NamedTuple):
    """Images (uint8) and their labels (integers)."""

    images: np.ndarray
    labels: np.ndarray


@dataclasses.dataclass(frozen=True)
class Data:
    """A data set in memory.

    Attributes:
        name: `cifar100`, `shapes100` or `folder:PATH`.
        train, validation, test: The splits.
        class_names: The names of the classes, by label.
        superclasses: The superclass of each class, or `None`.
        superclass_names: The names of the superclasses, or `None`.
        checksum: SHA-256 of the images and labels.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    class_names: list[str]
    superclasses: list[int] | None
    superclass_names: list[str] | None
    checksum: str

    @property
    def image_size(self) -> int:
        return self.train.images.shape[1]


def load(config: Config) -> Data:
    """Loads the config's data set and splits off its validation images.

    Args:
        config: Names the data set, its labels and the seed of the split.

    Raises:
        InputError: If the data set is not there or cannot serve.
    """
    name = resolve(config.dataset)
    if name.startswith("folder:"):
        if config.label == "coarse":
            raise InputError("label coarse needs cifar100 or shapes100: a folder's "
                             "images have one label each.")  # fmt: skip
        train, test, names = _read_folder(
            Path(name[7:]).expanduser(), config.image_size
        )
        fine = train.labels
        superclasses = superclass_names = None
    else:
        splits, info = _read_tfds(_builder(name))
        fine, coarse = splits["train"]["label"], splits["train"]["coarse_label"]
        key = "label" if config.label == "fine" else "coarse_label"
        train, test = (
            Split(splits[s]["image"], splits[s][key].astype("int32"))
            for s in ("train", "test")
        )
        names = info.features[key].names
        superclasses = superclass_names = None
        if config.label == "fine":
            superclasses = [0] * len(names)
            for i, superclass in set(zip(fine.tolist(), coarse.tolist(), strict=True)):
                superclasses[i] = superclass
            superclass_names = info.features["coarse_label"].names
    digest = hashlib.sha256()
    for array in (*train, *test):
        digest.update(array.tobytes())
    train, validation = _hold_out(train, fine, config.seed)
    if not steps_per_epoch(train, config):
        raise InputError(
            "batch_size * steps_per_execution must be at most the number of training "
            f"images, {len(train.labels)}. "
            f"Received: {config.batch_size} * {config.steps_per_execution}"
        )
    return Data(
        name=name,
        train=train,
        validation=validation,
        test=test,
        class_names=list(names),
        superclasses=superclasses,
        superclass_names=superclass_names,
        checksum=digest.hexdigest(),
    )


def resolve(dataset: str) -> str:
    """Makes up `auto`'s mind, within seconds; a data set asked for by name stays."""
    if dataset != "auto":
        return dataset
    builder = tfds.builder("cifar100")
    if builder.is_prepared():
        choice, reason = "cifar100", f"found in {builder.data_dir}"
    elif _reachable(CIFAR100_URL, DECISION_SECONDS):
        try:
            builder.download_and_prepare()
            choice, reason = "cifar100", f"downloaded to {builder.data_dir}"
        except Exception as error:
            choice, reason = "shapes100", f"CIFAR-100 failed to download: {error}"
    else:
        choice, reason = (
            "shapes100",
            ("CIFAR-100 is neither in TFDS_DATA_DIR nor within reach"),
        )
    print(f"*** DATA SET: {choice} ({' '.join(reason.split())}) ***", file=sys.stderr)
    return choice


def _reachable(url: str, seconds: float) -> bool:
    """Whether the server answers in time, even where the network drops packets."""
    answered = threading.Event()

    def ask():
        try:
            request = urllib.request.Request(url, method="HEAD")
            with urllib.request.urlopen(request, timeout=seconds):
                answered.set()
        except OSError:
            pass

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)  # a name look-up has no timeout of its own
    return answered.is_set()


def _builder(name: str) -> tfds.core.DatasetBuilder:
    if name == "shapes100":
        from pipelines.shapes100 import Shapes100

        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        builder = Shapes100(data_dir=cache / "kerasoft")
    else:
        builder = tfds.builder(name)
    if not builder.is_prepared():
        try:
            builder.download_and_prepare()
        except Exception as error:
            raise InputError(
                f"The data set {name} is not in {builder.data_dir} and could not be "
                "prepared there; point TFDS_DATA_DIR at a copy, or choose "
                f"--dataset shapes100. ({' '.join(str(error).split())[:200]})"
            ) from error
    return builder


def _read_tfds(builder: tfds.core.DatasetBuilder):
    features = {"image": True, "label": True, "coarse_label": True}
    splits = builder.as_dataset(
        batch_size=-1, decoders=tfds.decode.PartialDecoding(features)
    )
    return tfds.as_numpy(splits), builder.info


def _read_folder(root: Path, size: int) -> tuple[Split, Split, list[str]]:
    for folder in (root / "train", root / "test"):
        if not folder.is_dir():
            raise InputError(
                f"A folder of images needs {root}/train/CLASS/*.png and "
                f"{root}/test/CLASS/*.png (or .jpg); there is no {folder}."
            )
    builder = tfds.folder_dataset.ImageFolder(str(root))
    names = builder.info.features["label"].names
    if len(names) < 2:
        raise InputError(f"{root} holds {len(names)} classes; at least 2 are needed.")

    def read(example):
        try:
            image = read_image(io.BytesIO(example["image"]))
        except InputError as error:
            raise InputError(
                f"{example['image/filename'].decode()}: {error}"
            ) from error
        return resize(image, size), example["label"]

    def split(name):
        examples = tfds.as_numpy(
            builder.as_dataset(name, decoders={"image": tfds.decode.SkipDecoding()})
        )
        with ThreadPoolExecutor() as pool:
            images, labels = zip(*pool.map(read, examples), strict=True)
        return Split(np.stack(images), np.array(labels, "int32"))

    return split("train"), split("test"), names


def read_image(file) -> np.ndarray:
    """Reads an image file as RGB pixels, upright.

    Args:
        file: A path or a binary file.

    Raises:
        InputError: If it is no image, or a broken or enormous one.
    """
    try:
        with PIL.Image.open(file) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise InputError(
                    f"the image is enormous, {width} x {height} pixels; at most "
                    f"{MAX_PIXELS:,} pixels are read."
                )
            return np.asarray(PIL.ImageOps.exif_transpose(image).convert("RGB"))
    except (
        OSError,
        SyntaxError,
        ValueError,
        PIL.Image.DecompressionBombError,
    ) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"not an image that can be read ({error}).") from error


def resize(images, size: int):
    """Resizes uint8 images to a square, the same way for training and for serving."""
    images = tf.convert_to_tensor(images)

    def resized():
        made = tf.image.resize(images, (size, size), antialias=True)
        return tf.cast(tf.clip_by_value(tf.round(made), 0, 255), tf.uint8)

    # Resizing to the same size changes nothing, and takes a fifth of a serving call.
    same = tf.reduce_all(tf.shape(images)[-3:-1] == size)
    *some, _, _, channels = images.shape
    made = tf.cond(same, lambda: images, resized)
    return tf.ensure_shape(made, (*some, size, size, channels))


def _hold_out(split: Split, strata: np.ndarray, seed: int) -> tuple[Split, Split]:
    """Splits off the validation images: 10 %, the same share of each class."""
    counts = np.bincount(strata)
    if counts[counts > 0].min() < 2:
        raise InputError(
            "Each class needs at least 2 training images, one of them for validation."
        )
    held = max(round(VALIDATION_SHARE * len(strata)), np.count_nonzero(counts))
    kept, held = train_test_split(
        np.arange(len(strata)), test_size=held, stratify=strata, random_state=seed
    )
    train, validation = (Split(split.images[i], split.labels[i]) for i in (kept, held))
    return train, validation


def steps_per_epoch(split: Split, config: Config) -> int:
    """The whole executions of whole batches that an epoch holds, in steps."""
    steps = len(split.labels) // config.batch_size
    return steps // config.steps_per_execution * config.steps_per_execution


def batches(split: Split, num_classes: int, batch_size: int = 250) -> tf.data.Dataset:
    """Batches of images and one-hot labels, in order and as they are."""
    return (
        tf.data.Dataset.from_tensor_slices(tuple(split))
        .batch(batch_size)
        .map(lambda images, labels: (images, tf.one_hot(labels, num_classes)))
        .prefetch(2)
        .with_options(_options())
    )


def training_batches(
    split: Split, num_classes: int, config: Config, first_epoch: int = 0
) -> tf.data.Dataset:
    """Shuffled, augmented batches without end, from the start of `first_epoch`."""
    steps = steps_per_epoch(split, config)
    images, labels = tf.constant(split.images), tf.constant(split.labels)

    def epoch_of(epoch):
        order = _shuffled(len(split.labels), tf.stack([config.seed, epoch]))
        rows = tf.reshape(
            order[: steps * config.batch_size], (steps, config.batch_size)
        )
        step = epoch * steps + tf.range(steps, dtype=tf.int64)
        return tf.data.Dataset.from_tensor_slices((rows, step))

    def batch_of(rows, step):
        x, y = tf.gather(images, rows), tf.one_hot(tf.gather(labels, rows), num_classes)
        seeds = tf.random.split(tf.stack([config.seed, step]), 3)
        x = crop_and_flip(x, config.padding, seeds[0])
        if config.cutout:
            x = cutout(x, config.cutout, seeds[1])
        if config.mixup:
            x, y = mixup(x, y, config.mixup, seeds[2])
        return x, y

    return (
        tf.data.Dataset.range(first_epoch, np.iinfo("int64").max)
        .flat_map(epoch_of)
        .map(batch_of)
        .prefetch(2)
        .with_options(_options())
    )


def _options() -> tf.data.Options:
    """Without the autotuner: the end of an iterator may wait for it to wake up.

    It sleeps for 10 ms, 20, 40 and so on. One thread is far ahead of any training.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return options


def crop_and_flip(images, padding: int, seed):
    """Reflects pixels around each image, crops it back at random, flips half."""
    count, height, width, _ = images.shape
    seeds = tf.random.split(seed, 2)
    top, left = tf.unstack(
        tf.random.stateless_uniform(
            (2, count, 1), seeds[0], -padding, padding + 1, tf.int32
        )
    )
    flipped = tf.random.stateless_uniform((count, 1), seeds[1]) < 0.5
    rows, columns = top + tf.range(height), left + tf.range(width)
    columns = tf.where(flipped, tf.reverse(columns, [1]), columns)
    images = tf.gather(images, _reflect(rows, height), axis=1, batch_dims=1)
    return tf.gather(images, _reflect(columns, width), axis=2, batch_dims=1)


def _shuffled(count: int, seed):
    return tf.random.experimental.stateless_shuffle(  # pyright: ignore
        tf.range(count), seed
    )


def _reflect(index, size):
    """Indices outside 0..size-1 mirrored at the border pixels."""
    index = tf.abs(index)
    return tf.where(index < size, index, 2 * (size - 1) - index)


def cutout(images, side: int, seed):
    """Lays a grey square with a random centre over each image (arXiv 1708.04552)."""
    count, height, width, _ = images.shape
    seeds = tf.random.split(seed, 2)

    def covered(length, seed):
        centre = tf.random.stateless_uniform((count, 1), seed, 0, length, tf.int32)
        distance = tf.range(length) - centre + side // 2
        return (distance >= 0) & (distance < side)

    square = (
        covered(height, seeds[0])[:, :, None] & covered(width, seeds[1])[:, None, :]
    )
    return tf.where(square[..., None], tf.constant(GREY, images.dtype), images)


def mixup(images, targets, alpha: float, seed):
    """Mixes each image and target with another's (arXiv 1710.09412)."""
    seeds = tf.random.split(seed, 2)
    a, b = tf.unstack(tf.random.stateless_gamma((2,), seeds[0], tf.constant(alpha)))
    share = a / (a + b)
    order = _shuffled(images.shape[0], seeds[1])
    mixed = share * tf.cast(images, tf.float32) + (1 - share) * tf.cast(
        tf.gather(images, order), tf.float32
    )
    targets = share * targets + (1 - share) * tf.gather(targets, order)
    return tf.cast(tf.round(mixed), images.dtype), targets
