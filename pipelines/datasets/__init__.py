"""Data sets as arrays in memory, by name.

To add one, write a function from what stands after the colon of its name, and the side
to which images are resized, to a `Source`, in a file of its own; and register it in
`DATASETS`.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import sys
from collections.abc import Callable

import numpy as np
from sklearn.model_selection import train_test_split

from pipelines.augmentation import crop_and_flip
from pipelines.datasets import folder, glyphs, prepared
from pipelines.datasets.source import Source, Split
from pipelines.errors import InputError, one_line

# A name with a colon stands for all that begin like it.
DATASETS: dict[str, Callable[[str, int], Source]] = {
    "cifar100": lambda _, size: prepared.read("cifar100"),
    "shapes100": lambda _, size: prepared.read("shapes100"),
    "tfds:NAME": prepared.read_resized,
    "folder:PATH": folder.read,
    "glyphs": lambda place, size: glyphs.read(place),
    "glyphs:FOLDER": lambda place, size: glyphs.read(place),
}


@dataclasses.dataclass(frozen=True)
class Data:
    """A data set in memory.

    Attributes:
        name: One of `DATASETS`.
        train, validation, test: The splits.
        class_names: The names of the classes, by label.
        superclasses: The superclass of each class, or `None`.
        superclass_names: The names of the superclasses, or `None`.
        checksum: SHA-256 of the images and labels.
        harder: Makes the test images again, harder to tell; or `None`.
        augment: From training images, the padding and a seed to changed images.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    class_names: list[str]
    superclasses: list[int] | None
    superclass_names: list[str] | None
    checksum: str
    harder: Callable[[], np.ndarray] | None = None
    augment: Callable = crop_and_flip


def find(name: str) -> Callable[[int], Source]:
    """What reads a data set, from the side to which images are resized.

    Raises:
        InputError: If there is none of that name.
    """
    kind, colon, argument = name.partition(":")
    for key, read in DATASETS.items():
        if key.partition(":")[:2] == (kind, colon) and bool(argument) == bool(colon):
            return lambda size: read(argument, size)
    raise InputError(f"dataset must be {names()}. Received: {name}")


def names() -> str:
    """The data sets, in words."""
    *some, last = "auto", *DATASETS
    return f"{', '.join(some)} or {last}"


def load(
    name: str,
    label: str = "fine",
    size: int = 32,
    seed: int = 0,
    classes: int | None = None,
    validation_share: float = 0.1,
) -> Data:
    """Loads a data set and splits off its validation images, unless it has some.

    Args:
        name: One of `DATASETS`, or `auto`.
        label: `fine` or `coarse`.
        size: The side to which images are resized, where they are not all of one size.
        seed: Of the split.
        classes: How many of the classes to keep, the same ones for every seed and all
            those of fewer; all if `None`.
        validation_share: Share of the training images that is split off.

    Raises:
        InputError: If the data set is not there or cannot serve.
    """
    name = resolve(name)
    source = find(name)(size)
    if label not in source.labels:
        raise InputError(
            f"label {label} needs cifar100 or shapes100, or another data set with "
            f"superclasses: the images of {name} have one label each."
        )
    labels = source.labels[label]
    if min(labels.train.min(), labels.test.min()) < 0:
        raise InputError(f"{name} has images without a label, which cannot serve.")
    if classes:
        source = _subset(source, label, classes)
        labels = source.labels[label]
        if not len(labels.test):
            raise InputError(
                f"There are no test images of the {classes} classes that are kept of "
                f"{name}; keep more."
            )
    train = Split(source.train, labels.train)
    test = Split(source.test, labels.test)
    fine = source.labels["fine"].train
    given = None
    if source.validation is not None and labels.validation is not None:
        given = Split(source.validation, labels.validation)
    digest = hashlib.sha256()
    for array in (*train, *(given or ()), *test):
        digest.update(np.ascontiguousarray(array).data)
    superclasses = superclass_names = None
    if label == "fine" and "coarse" in source.labels:
        coarse = source.labels["coarse"]
        superclasses = [0] * len(labels.names)
        pairs = np.unique(np.stack([fine, coarse.train]), axis=1).T.tolist()
        for i, superclass in pairs:
            superclasses[i] = superclass
        known = sorted(set(superclasses))  # a subset of the classes may lack some
        superclasses = [known.index(superclass) for superclass in superclasses]
        superclass_names = [coarse.names[superclass] for superclass in known]
    train, validation = (
        (train, given) if given else _hold_out(train, fine, validation_share, seed)
    )
    if source.note:
        counts = (
            f"{len(train.labels):,} images to train, {len(validation.labels):,} to "
            f"validate, {len(test.labels):,} to test"
        )
        print(f"*** SPLIT: {counts}: {one_line(source.note)} ***", file=sys.stderr)
    return Data(
        name=name,
        train=train,
        validation=validation,
        test=test,
        class_names=list(labels.names),
        superclasses=superclasses,
        superclass_names=superclass_names,
        checksum=digest.hexdigest(),
        harder=source.harder,
        augment=source.augment,
    )


def resolve(name: str) -> str:
    """Chooses the data set of `auto`, within seconds; any other name stays."""
    if name != "auto":
        return name
    choice, reason = prepared.cifar100_or("shapes100")
    print(f"*** DATA SET: {choice} ({one_line(reason)}) ***", file=sys.stderr)
    return choice


def _subset(source: Source, label: str, classes: int) -> Source:
    """The images of some classes, chosen at random and once for all."""
    names = source.labels[label].names
    if not 2 <= classes <= len(names):
        raise InputError(
            f"classes must be at least 2 and at most {len(names):,}, those of the data "
            f"set. Received: {classes}"
        )
    kept = np.sort(np.random.default_rng(0).permutation(len(names))[:classes])
    number = np.full(len(names), -1, "int32")
    number[kept] = np.arange(classes)
    of = source.labels[label]

    def chosen(labels):
        return None if labels is None else number[labels] >= 0

    rows = {"train": chosen(of.train), "test": chosen(of.test)}
    rows["validation"] = chosen(of.validation)

    def some(array, part):
        return None if array is None else array[rows[part]]

    def relabelled(kind):
        found = source.labels[kind]
        parts = {part: some(getattr(found, part), part) for part in rows}
        if kind != label:
            return found._replace(**parts)
        parts = {p: None if x is None else number[x] for p, x in parts.items()}
        return found._replace(**parts, names=[names[i] for i in kept])

    harder = None
    if make := source.harder:
        harder = functools.cache(lambda: some(make(), "test"))
    return source._replace(
        train=some(source.train, "train"),
        test=some(source.test, "test"),
        validation=some(source.validation, "validation"),
        harder=harder,
        labels={kind: relabelled(kind) for kind in source.labels},
    )


def _hold_out(
    split: Split, strata: np.ndarray, share: float, seed: int
) -> tuple[Split, Split]:
    """Splits off the validation images, the same share of each class."""
    counts = np.bincount(strata)
    if counts[counts > 0].min() < 2:
        raise InputError(
            "Each class needs at least 2 training images, one of them for validation."
        )
    held = max(round(share * len(strata)), np.count_nonzero(counts))
    kept, held = train_test_split(
        np.arange(len(strata)), test_size=held, stratify=strata, random_state=seed
    )
    train, validation = (Split(split.images[i], split.labels[i]) for i in (kept, held))
    return train, validation
