import sys

import numpy as np
import PIL.Image
import pytest

CLASSES = ("blue", "green", "red")


@pytest.fixture(autouse=True)
def _determinism_ends_with_a_test():
    """A run asks for determinism, with which TensorFlow refuses XLA to later tests."""
    yield
    if "tensorflow" in sys.modules:
        from tensorflow.python.framework.config import disable_op_determinism

        disable_op_determinism()


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
