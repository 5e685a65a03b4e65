"""Data sets that TensorFlow Datasets (TFDS) prepares, and shapes100, drawn for it."""

from __future__ import annotations

import hashlib
import logging
import sys
import threading
import urllib.request
from pathlib import Path

import absl.logging
import numpy as np
import tensorflow_datasets as tfds

from pipelines.datasets import cache
from pipelines.datasets.source import Labels, Source
from pipelines.errors import InputError, one_line
from pipelines.pixels import resize

absl.logging.set_verbosity(absl.logging.ERROR)  # TFDS warns of its own deprecations
logging.getLogger("urllib3").setLevel(logging.ERROR)  # and tries four times, aloud
if not sys.stderr.isatty():
    tfds.disable_progress_bar()

CIFAR100_URL = "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"
DECISION_SECONDS = 8
SPLITS = ("train", "test")
KEYS = {"fine": "label", "coarse": "coarse_label"}


def read(name: str) -> Source:
    """Reads a data set whose images are all of one size.

    Raises:
        InputError: If it is not there and cannot be prepared.
    """
    builder = prepare(name)
    kept = _kept(builder)

    def decoded():
        splits = tfds.as_numpy(
            builder.as_dataset(batch_size=-1, decoders=_decoding(kept.values()))
        )
        return {
            f"{split}-{key}": splits[split][key]
            for split in SPLITS
            for key in ("image", *kept.values())
        }

    # Decoding takes seconds each time.
    found = cache.arrays(f"{name}-{_fingerprint(builder)}", decoded)
    train, test = (
        {key: found[f"{split}-{key}"] for key in ("image", *kept.values())}
        for split in SPLITS
    )
    return _source(builder, train, test, kept)


def _fingerprint(builder: tfds.core.DatasetBuilder) -> str:
    """What changes with the files of a prepared data set."""
    files = sorted(Path(builder.data_path).iterdir())
    stats = [file.stat() for file in files]
    state = [
        (f.name, s.st_size, s.st_mtime_ns) for f, s in zip(files, stats, strict=True)
    ]
    return hashlib.sha256(repr(state).encode()).hexdigest()[:32]


def read_resized(name: str, size: int) -> Source:
    """Reads an image classification data set of TFDS, its images resized.

    Raises:
        InputError: If TFDS has none of that name, it is not there and cannot be
            prepared, or it has no images with labels for training and testing.
    """
    builder = prepare(name)
    kept = _kept(builder)
    features, splits = dict(builder.info.features or {}), builder.info.splits
    if (
        not isinstance(features.get("image"), tfds.features.Image)
        or not isinstance(features.get("label"), tfds.features.ClassLabel)
        or not {"train", "test"} <= set(splits)
    ):
        raise InputError(
            f"tfds:{name} cannot serve: a data set needs the features `image` and "
            f"`label` and the splits `train` and `test`. It has the features "
            f"{', '.join(features)} and the splits {', '.join(splits)}."
        )

    def arrays(split: str) -> dict[str, np.ndarray]:
        examples = builder.as_dataset(split, decoders=_decoding(kept.values()))
        columns: dict[str, list] = {key: [] for key in ("image", *kept.values())}
        for example in tfds.as_numpy(examples):
            image = example["image"]
            if image.shape[-1] == 1:
                image = np.repeat(image, 3, axis=-1)
            columns["image"].append(resize(image[..., :3], size))
            for key in kept.values():
                columns[key].append(example[key])
        return {key: np.array(column) for key, column in columns.items()}

    return _source(builder, arrays("train"), arrays("test"), kept)


def _kept(builder: tfds.core.DatasetBuilder) -> dict[str, str]:
    """The kinds of labels that a data set has, and TFDS's names for them."""
    features = builder.info.features or {}
    return {label: key for label, key in KEYS.items() if key in features}


def _decoding(keys) -> tfds.decode.PartialDecoding:
    return tfds.decode.PartialDecoding({"image": True, **dict.fromkeys(keys, True)})


def _source(builder, train, test, kept: dict[str, str]) -> Source:
    labels = {
        label: Labels(
            train[key].astype("int32"),
            test[key].astype("int32"),
            list(builder.info.features[key].names),
        )
        for label, key in kept.items()
    }
    return Source(train["image"], test["image"], labels)


def prepare(name: str) -> tfds.core.DatasetBuilder:
    """The builder of a data set that is prepared, or can be.

    Raises:
        InputError: If there is none of that name, or it cannot be prepared.
    """
    builder = _builder(name)
    if not builder.is_prepared():
        try:
            builder.download_and_prepare()
        except Exception as error:
            faster = _builder(name)
            if faster.is_prepared():  # by another process meanwhile
                return faster
            if name == "shapes100" and isinstance(error, OSError):
                raise  # it is drawn here: only the place for it can be wrong
            raise InputError(
                f"The data set {name} is not in {builder.data_dir} and could not be "
                "prepared there; point TFDS_DATA_DIR at a copy, or choose "
                f"--dataset shapes100. ({one_line(error)[:200]})"
            ) from error
    return builder


def _builder(name: str) -> tfds.core.DatasetBuilder:
    if name == "shapes100":
        from pipelines.datasets.shapes100 import Shapes100

        return Shapes100(data_dir=cache.folder())
    try:
        return tfds.builder(name)
    except Exception as error:  # a name can be wrong in many ways
        raise InputError(
            f"TensorFlow Datasets has no data set {name}: {one_line(error)[:200]}"
        ) from error


def cifar100_or(other: str) -> tuple[str, str]:
    """CIFAR-100 where it is prepared or can be, else another; and why."""
    builder = tfds.builder("cifar100")
    if builder.is_prepared():
        return "cifar100", f"found in {builder.data_dir}"
    if not _reachable(CIFAR100_URL, DECISION_SECONDS):
        return other, "CIFAR-100 is neither in TFDS_DATA_DIR nor within reach"
    try:
        builder = prepare("cifar100")
    except InputError as error:
        return other, f"CIFAR-100 failed to download: {error.__cause__}"
    return "cifar100", f"downloaded to {builder.data_dir}"


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
