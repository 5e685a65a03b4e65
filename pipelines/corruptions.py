"""Changes that make images harder to tell, each in five severities.

They are defined here, by simple formulas, and are not those of CIFAR-100-C. To add one,
write a function from images in [0, 1], of shape `(n, height, width, 3)`, the severity
and a random generator to images, and register it in `CORRUPTIONS`.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import PIL.Image
from scipy import ndimage

SEVERITIES = (1, 2, 3, 4, 5)
BATCH = 1000  # images that are changed at once
SIDE = 32  # of an image for which blurs are given in pixels


def _gaussian_noise(images, severity, generator):
    return images + generator.normal(scale=0.03 * severity, size=images.shape)


def _shot_noise(images, severity, generator):
    """As of a camera that counts few photons."""
    photons = 480 / 2**severity
    return generator.poisson(images * photons) / photons


def _impulse_noise(images, severity, generator):
    """Pixels that are white or black."""
    share, shape = 0.02 * severity, (*images.shape[:3], 1)
    struck = generator.random(shape) < share
    return np.where(struck, generator.random(shape) < 0.5, images)


def _gaussian_blur(images, severity, _):
    sigma = (0.2 + 0.3 * severity) * images.shape[1] / SIDE
    return ndimage.gaussian_filter(images, (0, sigma, sigma, 0))


def _motion_blur(images, severity, _):
    """Along the width."""
    length = round((1 + severity) * images.shape[2] / SIDE)
    return ndimage.uniform_filter1d(images, max(length, 1), axis=2)


def _contrast(images, severity, _):
    mean = images.mean(axis=(1, 2), keepdims=True)
    return mean + (1 - 0.16 * severity) * (images - mean)


def _brightness(images, severity, _):
    return images + 0.08 * severity


def _jpeg(images, severity, _):
    """At quality 50, 25, 12, 6 and 3."""

    def again(image):
        file = io.BytesIO()
        PIL.Image.fromarray(image).save(file, "JPEG", quality=100 // 2**severity)
        return np.asarray(PIL.Image.open(file))

    return np.stack([again(image) for image in _pixels(images)]) / 255


CORRUPTIONS: dict[str, Callable[[np.ndarray, int, np.random.Generator], np.ndarray]] = {
    "Gaussian noise": _gaussian_noise,
    "shot noise": _shot_noise,
    "impulse noise": _impulse_noise,
    "Gaussian blur": _gaussian_blur,
    "motion blur": _motion_blur,
    "contrast": _contrast,
    "brightness": _brightness,
    "JPEG": _jpeg,
}


def corrupt(images: np.ndarray, name: str, severity: int, seed: int = 0) -> np.ndarray:
    """Changes images; the same arguments give the same images.

    Args:
        images: uint8 of shape `(n, height, width, 3)`.
        name: One of `CORRUPTIONS`.
        severity: One of `SEVERITIES`.
        seed: Of the noise.
    """
    generator = np.random.default_rng([seed, severity, *name.encode()])
    changed = [
        _pixels(CORRUPTIONS[name](batch.astype("float32") / 255, severity, generator))
        for batch in np.split(images, range(BATCH, len(images), BATCH))
    ]
    return np.concatenate(changed)


def _pixels(images: np.ndarray) -> np.ndarray:
    return np.clip(255 * images, 0, 255).round().astype("uint8")
