"""What a data set is read into."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pipelines.augmentation import crop_and_flip


class Split(NamedTuple):
    """Images (uint8) and their labels (integers)."""

    images: np.ndarray
    labels: np.ndarray


class Labels(NamedTuple):
    """The labels of the images (integers), and their names.

    Those of validation images are there where the data set has such images.
    """

    train: np.ndarray
    test: np.ndarray
    names: list[str]
    validation: np.ndarray | None = None


class Source(NamedTuple):
    """A data set as it is read.

    Attributes:
        train, test: Images, uint8 of shape `(n, height, width, 3)`, or of one channel.
        labels: `fine` and, where the classes have superclasses, `coarse`.
        note: How the test images were chosen, where it was not the user's choice.
        validation: Images to validate with, where they are not held out of `train`.
        harder: Makes the test images again, in a form that is harder to tell.
        augment: From training images, the padding and a seed to changed images.
    """

    train: np.ndarray
    test: np.ndarray
    labels: dict[str, Labels]
    note: str = ""
    validation: np.ndarray | None = None
    harder: Callable[[], np.ndarray] | None = None
    augment: Callable = crop_and_flip
