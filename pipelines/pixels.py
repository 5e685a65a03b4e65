"""Image files as pixels, and pixels of one size."""

from __future__ import annotations

import numpy as np
import PIL.Image
import PIL.ImageOps
import tensorflow as tf

from pipelines.errors import InputError

MAX_PIXELS = 2**26


def read_image(file) -> np.ndarray:
    """Reads an image file as RGB pixels, upright.

    Args:
        file: A path or a binary file.

    Raises:
        InputError: If it is no image, or a broken or enormous one.
    """
    try:
        with PIL.Image.open(file) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise InputError(
                    f"the image is enormous, {width} x {height} pixels; at most "
                    f"{MAX_PIXELS:,} pixels are read."
                )
            return np.asarray(PIL.ImageOps.exif_transpose(image).convert("RGB"))
    except (
        OSError,
        SyntaxError,
        ValueError,
        PIL.Image.DecompressionBombError,
    ) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"not an image that can be read ({error}).") from error


def resize(images, size: int):
    """Resizes uint8 images to a square, the same way for training and for serving."""
    images = tf.convert_to_tensor(images)

    def resized():
        made = tf.image.resize(images, (size, size), antialias=True)
        return tf.cast(tf.clip_by_value(tf.round(made), 0, 255), tf.uint8)

    # Resizing to the same size changes nothing, and takes a fifth of a serving call.
    same = tf.reduce_all(tf.shape(images)[-3:-1] == size)
    *some, _, _, channels = images.shape
    made = tf.cond(same, lambda: images, resized)
    return tf.ensure_shape(made, (*some, size, size, channels))
