"""What a data set is read into."""

from typing import NamedTuple

import numpy as np


class Split(NamedTuple):
    """Images (uint8) and their labels (integers)."""

    images: np.ndarray
    labels: np.ndarray


class Labels(NamedTuple):
    """The labels of the training and the test images (integers), and their names."""

    train: np.ndarray
    test: np.ndarray
    names: list[str]


class Source(NamedTuple):
    """A data set as it is read.

    Attributes:
        train, test: Images, uint8 of shape `(n, height, width, 3)`.
        labels: `fine` and, where the classes have superclasses, `coarse`.
        note: How the test images were chosen, where it was not the user's choice.
    """

    train: np.ndarray
    test: np.ndarray
    labels: dict[str, Labels]
    note: str = ""
