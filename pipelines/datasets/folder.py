"""Images in folders: PATH/train/CLASS/*.png and PATH/test/CLASS/*.png (or .jpg)."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from pipelines.datasets.source import Labels, Source, Split
from pipelines.errors import InputError
from pipelines.pixels import read_image, resize


def read(path: str, size: int) -> Source:
    """Reads a folder of images.

    Raises:
        InputError: If it does not hold images of at least two classes in both splits.
    """
    root = Path(path).expanduser()
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

    def image_of(example):
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
            images, labels = zip(*pool.map(image_of, examples), strict=True)
        return Split(np.stack(images), np.array(labels, "int32"))

    train, test = split("train"), split("test")
    return Source(
        train.images, test.images, {"fine": Labels(train.labels, test.labels, names)}
    )
