"""Images in folders, split into training and test by the user or here.

`PATH/train/CLASS/*` and `PATH/test/CLASS/*`, or `PATH/CLASS/*`, where a fifth of each
class is held out for the test. Hidden files and folders are left out.
"""

from __future__ import annotations

import hashlib
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipelines.datasets.source import Labels, Source, Split
from pipelines.errors import InputError, one_line
from pipelines.pixels import read_image, resize

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
TEST_SHARE = 0.2


class Picture(NamedTuple):
    """An image file, and the name of its class."""

    path: Path
    name: str


def read(path: str, size: int) -> Source:
    """Reads a folder of images.

    Raises:
        InputError: If it does not hold images of at least two classes to train on and
            to test on.
    """
    try:
        return _read(Path(path).expanduser(), size)
    except (OSError, RuntimeError, InputError) as error:  # `~nobody`: RuntimeError
        raise InputError(one_line(error)) from error


def _read(root: Path, size: int) -> Source:
    halves = [root / "train", root / "test"]
    flat = any(map(_pictures, _folders(root))) and not all(
        half.is_dir() and not _pictures(half) for half in halves
    )
    for half in halves:
        if not flat and not half.is_dir():
            raise InputError(
                f"A folder of images needs {root}/train/CLASS/*.jpg and {root}/test/"
                f"CLASS/*.jpg, or {root}/CLASS/*.jpg alone (the names may end in "
                f"{', '.join(SUFFIXES)}); there is no {half}."
            )
    parents = [root] if flat else halves
    names = sorted({folder.name for parent in parents for folder in _folders(parent)})
    _check_utf8(str(root), *names)
    if len(names) < 2:
        raise InputError(f"{root} holds {len(names)} classes; at least 2 are needed.")
    train, test = _hold_out(root) if flat else map(_in_tfds_order, halves)
    if idle := sorted(set(names) - {picture.name for picture in train}):
        raise InputError(
            f"{parents[0] / idle[0]} holds no pictures to train on (their names end in "
            f"{', '.join(SUFFIXES)}); add some, or move the folder of that class away."
        )
    if not test:
        raise InputError(f"The folders of {halves[1]} hold no pictures to test on.")
    trained, tested = (_pixels(pictures, names, size) for pictures in (train, test))
    return Source(
        trained.images,
        tested.images,
        {"fine": Labels(trained.labels, tested.labels, names)},
        f"{root} has no train/ and test/; the test images are a fifth of each class, "
        "chosen by a hash of the files and the same for every seed"
        if flat
        else "",
    )


def _hold_out(root: Path) -> tuple[list[Picture], list[Picture]]:
    """Takes a fifth of each class for the test: the files with the least hashes.

    What a file holds decides, whatever its name and the seed; copies stay together.
    """
    train, test = [], []
    for folder in _folders(root):
        pictures = _listed(folder)
        digests = [hashlib.sha256(p.path.read_bytes()).digest() for p in pictures]
        ordered = sorted(set(digests))
        held = ordered[: max(round(TEST_SHARE * len(ordered)), 1)]
        for picture, digest in zip(pictures, digests, strict=True):
            (test if digest in held else train).append(picture)
    return train, test


def _in_tfds_order(half: Path) -> list[Picture]:
    """The pictures of one split, as the ImageFolder of TFDS orders them."""
    pictures = [picture for folder in _folders(half) for picture in _listed(folder)]
    random.Random(half.name).shuffle(pictures)
    return pictures


def _listed(folder: Path) -> list[Picture]:
    """The pictures of one class."""
    pictures = _pictures(folder)
    for path in pictures:
        if not path.is_file():
            raise InputError(
                f"{path} is named like a picture and is no file (but a folder, a "
                "broken link or a pipe); move it away."
            )
    return [Picture(path, folder.name) for path in pictures]


def _pictures(folder: Path) -> list[Path]:
    return [e for e in _entries(folder) if e.name.lower().endswith(SUFFIXES)]


def _folders(parent: Path) -> list[Path]:
    return [entry for entry in _entries(parent) if entry.is_dir()]


def _entries(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(e for e in folder.iterdir() if not e.name.startswith("."))


def _pixels(pictures: list[Picture], names: list[str], size: int) -> Split:
    def image_of(picture):
        try:
            return resize(read_image(picture.path), size)
        except InputError as error:
            raise InputError(f"{picture.path}: {error}") from error

    with ThreadPoolExecutor() as pool:
        images = list(pool.map(image_of, pictures))
    labels = [names.index(picture.name) for picture in pictures]
    return Split(np.stack(images), np.array(labels, "int32"))


def _check_utf8(*names: str) -> None:
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"A name is not UTF-8, which a run cannot keep: {name!r}; rename it."
            ) from error
