"""Han characters as typefaces draw them: `glyphs`, or `glyphs:FOLDER` of font files.

The classes are the 20,902 characters of Unicode's first block of Han characters, which
every typeface must have. The validation and the test images are of whole typefaces that
training never sees: reading a character is to recognise it in another hand. Each face
is drawn once, and its drawing is kept in the cache folder.

Faces of one family, and those that draw some characters alike to the pixel because one
was made from the other, count as one typeface.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL.features
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
import tensorflow as tf
from fontTools.ttLib import TTFont

from pipelines.augmentation import redraw, warp
from pipelines.datasets import cache
from pipelines.datasets.source import Labels, Source
from pipelines.errors import InputError, brief

logging.getLogger("fontTools").setLevel(logging.ERROR)  # of tables it does not know

CHARACTERS = [chr(code) for code in range(0x4E00, 0x9FA6)]
SIDE, EM = 32, 28  # of an image, and of the square of a character in it, in pixels
VERSION = 1  # of the drawing
SAMPLE = slice(None, None, 100)  # of the characters, by which faces are compared
SUFFIXES = (".otc", ".otf", ".ttc", ".ttf")
PLACES = ("/usr/share/fonts", "/usr/local/share/fonts", "/Library/Fonts",
          "/System/Library/Fonts", "~/.fonts", "~/.local/share/fonts",
          "~/Library/Fonts", "C:/Windows/Fonts")  # fmt: skip
PACKAGES = "fonts-noto-cjk fonts-wqy-zenhei fonts-wqy-microhei fonts-hanazono"
KIN = 0.01  # of the sample, drawn alike to the pixel; by chance, none is
DISTINCT = 0.9  # of the sample; a font of boxes for all characters has fewer
LEAST = 3  # typefaces: to train, to validate, to test
SEED = 20902  # of the harder test images


class Face(NamedTuple):
    """A font file: the first face in it."""

    path: Path
    family: str


class Typeface(NamedTuple):
    """Faces of one design, with their drawings of all characters."""

    name: str
    drawings: list[np.ndarray]


def read(folder: str) -> Source:
    """Draws the characters, or finds them drawn.

    Args:
        folder: Where to look for fonts; empty for where systems keep them.

    Raises:
        InputError: If fewer than three typefaces have all the characters.
    """
    given = [folder] if folder else PLACES
    places = [Path(os.path.expanduser(p)) for p in given]  # noqa: PTH111 (no home)
    if folder and not places[0].is_dir():
        raise InputError(f"There is no folder {places[0]}; glyphs: needs one of fonts.")
    faces, drawings = [], []
    for face in find(places):
        try:
            drawing = drawing_of(face)
        except OSError as error:
            print(f"skipped: {face.path} cannot be drawn ({brief(error)})",
                  file=sys.stderr)  # fmt: skip
            continue
        if len(np.unique(drawing[SAMPLE], axis=0)) < DISTINCT * len(drawing[SAMPLE]):
            print(f"skipped: {face.path} draws characters alike", file=sys.stderr)
            continue
        faces.append(face)
        drawings.append(drawing)
    typefaces = group(faces, drawings)
    if len(typefaces) < LEAST:
        raise InputError(
            f"glyphs needs {LEAST} typefaces that have all {len(CHARACTERS):,} "
            f"characters from {CHARACTERS[0]} to {CHARACTERS[-1]}, and found "
            f"{len(typefaces)} in {', '.join(map(str, places))}; on Debian, apt-get "
            f"install {PACKAGES}."
        )
    train, validation, test = part(typefaces)
    shares = {"to train": train, "to validate": validation, "to test": test}
    told = "; ".join(
        f"{words}: {', '.join(typeface.name for typeface in some)}"
        for words, some in shares.items()
    )
    print(f"*** TYPEFACES: {told} ***", file=sys.stderr)
    images = [
        np.concatenate([d for typeface in some for d in typeface.drawings])[..., None]
        for some in shares.values()
    ]
    counts = [len(some) // len(CHARACTERS) for some in images]
    characters = np.arange(len(CHARACTERS), dtype="int32")
    radicals = radicals_of(CHARACTERS)

    def labels(of_characters, names):
        train, validation, test = (np.tile(of_characters, n) for n in counts)
        return Labels(train, test, names, validation)

    return Source(
        train=images[0],
        test=images[2],
        labels={
            "fine": labels(characters, CHARACTERS),
            "coarse": labels(radicals.astype("int32"), RADICALS),
        },
        validation=images[1],
        harder=functools.cache(lambda: harder(images[2])),  # only who judges needs them
        augment=redraw,
    )


RADICALS = [unicodedata.normalize("NFKC", chr(0x2F00 + i)) for i in range(214)]


def radicals_of(characters: Sequence[str]) -> np.ndarray:
    """The radical of each character, from 0 to 213.

    The block is in the order of the radicals, and the radical itself, without further
    strokes, is the first of its characters (The Unicode Standard, section 18.1).
    """
    return np.searchsorted(RADICALS, list(characters), side="right") - 1


def find(places: Sequence[Path]) -> list[Face]:
    """The font files in folders that have all the characters, each once, by name."""
    found = {
        path.resolve(): path
        for place in places
        if place.is_dir()
        for path in sorted(place.rglob("*"))
        if path.suffix.lower() in SUFFIXES and path.is_file()
    }
    faces = []
    for path in found:
        try:
            # Opened here, for TTFont leaves a damaged file open.
            with path.open("rb") as file:
                font = TTFont(file, fontNumber=0, lazy=True)
                known = font.getBestCmap() or {}
                family = font["name"].getBestFamilyName() or path.stem
        except Exception as error:  # whatever the bytes of a file lead to
            print(f"skipped: {path} is no font ({brief(error)})", file=sys.stderr)
            continue
        if all(ord(character) in known for character in CHARACTERS):
            faces.append(Face(path, family))
    return sorted(faces, key=lambda face: (face.path.name, face.path))


def drawing_of(face: Face) -> np.ndarray:
    """A face's drawings of all characters, uint8 of shape `(n, 32, 32)`."""
    drawn_by = PIL.features.version("freetype2")
    digest = hashlib.sha256(f"{VERSION} {SIDE} {EM} {drawn_by}".encode())
    digest.update(face.path.read_bytes())

    def drawn():
        print(f"drawing {face.path.name}", file=sys.stderr)
        return {"drawings": draw(face, CHARACTERS)}

    return cache.arrays(f"glyphs-{digest.hexdigest()[:32]}", drawn)["drawings"]


def draw(face: Face, characters: Sequence[str]) -> np.ndarray:
    """Draws characters in white on black, all of them from one baseline.

    The baseline is where a sample of them is in the middle of the image on average.
    """
    layout = PIL.ImageFont.Layout.BASIC
    font = PIL.ImageFont.truetype(str(face.path), EM, layout_engine=layout)
    boxes = [box for c in CHARACTERS[SAMPLE] if (box := _ink(font, c))]
    left, top, right, bottom = np.mean(boxes, axis=0)
    origin = round((SIDE - left - right) / 2), round((SIDE - top - bottom) / 2)
    images = np.empty((len(characters), SIDE, SIDE), "uint8")
    for image, character in zip(images, characters, strict=True):
        canvas = PIL.Image.new("L", (SIDE, SIDE))
        PIL.ImageDraw.Draw(canvas).text(origin, character, 255, font, anchor="ls")
        image[:] = canvas
    return images


def _ink(font: PIL.ImageFont.FreeTypeFont, character: str) -> tuple | None:
    """The bounds of a character's ink about its origin, if it has any."""
    mask, (x, y) = font.getmask2(character, "L", anchor="ls")
    if (box := mask.getbbox()) is None:
        return None
    left, top, right, bottom = box
    return left + x, top + y, right + x, bottom + y


def group(faces: Sequence[Face], drawings: Sequence[np.ndarray]) -> list[Typeface]:
    """Groups faces by their designs; of faces that draw all alike, one is kept."""
    samples = [drawing[SAMPLE] for drawing in drawings]
    groups: list[list[int]] = []
    copies = set()
    for new, face in enumerate(faces):
        alike = [(samples[new] == samples[old]).all(axis=(1, 2)) for old in range(new)]
        if any(same.all() for same in alike):
            copies.add(new)  # which still ties the designs that it is akin to
        kin = [
            some
            for some in groups
            if any(
                faces[i].family == face.family or alike[i].mean() > KIN for i in some
            )
        ]
        groups = [some for some in groups if some not in kin]
        groups.append(sorted(sum(kin, [new])))
    return [
        Typeface(
            name=" and ".join(dict.fromkeys(faces[i].family for i in some)),
            drawings=[drawings[i] for i in some if i not in copies],
        )
        for some in groups
    ]


def part(typefaces: Sequence[Typeface]) -> tuple[list, list, list]:
    """Parts typefaces into those to train, to validate and to test with.

    One is held out to validate, and one to test, two of five or more: those of the
    fewest faces, and of those the ones whose names have the least hashes.
    """

    def order(typeface):
        return len(typeface.drawings), hashlib.sha256(typeface.name.encode()).digest()

    validation, *rest = sorted(typefaces, key=order)
    tested = 2 if len(typefaces) >= 5 else 1
    return rest[tested:], [validation], rest[:tested]


def harder(images: np.ndarray) -> np.ndarray:
    """The same characters smaller, slanted, turned, off the middle, blurred, noisy."""
    generator = np.random.default_rng(SEED)
    changed = []
    for batch in np.array_split(images, max(len(images) // 4096, 1)):
        count = len(batch)
        small = generator.uniform(0.75, 0.9, count)
        warped = warp(
            batch,
            turn=_float32(generator.uniform(-0.1, 0.1, count)),
            slant=_float32(generator.uniform(-0.2, 0.2, count)),
            size=_float32(np.stack([small, small], axis=1)),
            move=_float32(generator.uniform(-2, 2, (count, 2))),
        )
        blurred = tf.nn.avg_pool2d(warped, 2, 1, "SAME").numpy()
        noise = generator.normal(scale=10, size=batch.shape)
        changed.append(np.clip(blurred + noise, 0, 255).round().astype("uint8"))
    return np.concatenate(changed)


def _float32(values: np.ndarray) -> tf.Tensor:
    return tf.constant(values, tf.float32)
