import os

import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds

from pipelines import data
from pipelines.config import Config
from pipelines.train import train

CLASSES = ("blue", "green", "red")


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """A folder of images whose classes a network tells apart at once."""
    root = tmp_path_factory.mktemp("data") / "photos"
    rng = np.random.default_rng(0)
    for split, count in (("train", 20), ("test", 6)):
        for channel, name in enumerate(reversed(CLASSES)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 100, (20, 24, 3), dtype="uint8")
                pixels[..., channel] += 150
                PIL.Image.fromarray(pixels).save(folder / f"{i:02}.png")
    return root


@pytest.fixture(scope="session")
def tiny(photos):
    """A config that trains in seconds."""
    return Config(
        dataset=f"folder:{photos}",
        backbone="plain_cnn",
        width=4,
        image_size=16,
        batch_size=8,
        epochs=2,
        learning_rate=0.05,
        precision="float32",
    )


@pytest.fixture(scope="session")
def cifar100():
    """The real CIFAR-100, where TFDS has it."""
    if not tfds.builder("cifar100").is_prepared():
        reason = "TFDS has no CIFAR-100; point TFDS_DATA_DIR at a folder that does"
        if os.environ.get("KERASOFT_REQUIRE_CIFAR100"):
            pytest.fail(reason)
        pytest.skip(reason)
    return data.load(Config(dataset="cifar100"))


@pytest.fixture(scope="session")
def run(tiny, tmp_path_factory):
    """A run that ended."""
    return train(tiny, tmp_path_factory.mktemp("saved_models"))
