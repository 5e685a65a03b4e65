"""Image files as pixels, and pixels of one size."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageOps
import tensorflow as tf

from pipelines.errors import InputError, brief

MAX_PIXELS = 2**26


def read_image(file) -> np.ndarray:
    """Reads an image file as RGB pixels, upright.

    Args:
        file: A path or a binary file.

    Raises:
        InputError: If it is no image, or a broken or enormous one, or its pixels have
            more than 8 bits.
    """
    try:
        path = Path(file) if isinstance(file, str | os.PathLike) else None
        if path and path.exists() and not path.is_file():  # a pipe may never end
            raise InputError("no image: it is no regular file.")
        with PIL.Image.open(file) as image:
            _check(image)
            upright = PIL.ImageOps.exif_transpose(image)
            _check(upright)  # the size of some formats is known once they are read
            return np.asarray(upright.convert("RGB"))
    except InputError:
        raise
    except Exception as error:  # whatever a decoder raises on a broken file
        raise InputError(f"not an image that can be read ({_why(error)}).") from error


def _check(image: PIL.Image.Image):
    width, height = image.size
    if not width * height:
        raise InputError(f"the image is empty, {width} x {height} pixels.")
    if width * height > MAX_PIXELS:
        raise InputError(
            f"the image is enormous, {width} x {height} pixels; at most "
            f"{MAX_PIXELS:,} pixels are read."
        )
    # Pillow would cut off what is above 255.
    if image.mode.startswith(("I", "F")):
        raise InputError(
            f"the image has more than 8 bits a channel (mode {image.mode}); save it "
            "with 8."
        )


def _why(error: Exception) -> str:
    if isinstance(error, PIL.UnidentifiedImageError):
        return "no format fits"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return brief(error) or type(error).__name__


def resize(images, size: int):
    """Resizes uint8 images to a square, the same way for training and for serving."""
    images = tf.convert_to_tensor(images)

    def resized():
        scaled = tf.image.resize(images, (size, size), antialias=True)
        return tf.cast(tf.clip_by_value(tf.round(scaled), 0, 255), tf.uint8)

    # Resizing to the same size changes nothing, and takes a fifth of a serving call.
    same = tf.reduce_all(tf.shape(images)[-3:-1] == size)
    *some, _, _, channels = images.shape
    pixels = tf.cond(same, lambda: images, resized)
    return tf.ensure_shape(pixels, (*some, size, size, channels))


def rgb(images):
    """Images of three channels, of those or of one, which is repeated."""
    if images.shape[-1] == 3:
        return images
    return tf.repeat(images, 3, axis=-1)
