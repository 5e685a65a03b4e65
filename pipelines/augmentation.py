"""Random changes to batches of training images, each a function of a seed."""

from __future__ import annotations

import math

import tensorflow as tf

GREY = 128
TURN, SLANT, GROWTH = math.radians(5), 0.12, 0.12  # of drawn characters, at most
WEIGHT, FADING = 0.35, 0.3


def crop_and_flip(images, padding: int, seed):
    """Reflects pixels around each image, crops it back at random, flips half."""
    count, height, width, _ = images.shape
    seeds = tf.random.split(seed, 2)
    top, left = tf.unstack(
        tf.random.stateless_uniform(
            (2, count, 1), seeds[0], -padding, padding + 1, tf.int32
        )
    )
    flipped = tf.random.stateless_uniform((count, 1), seeds[1]) < 0.5
    rows, columns = top + tf.range(height), left + tf.range(width)
    columns = tf.where(flipped, tf.reverse(columns, [1]), columns)
    images = tf.gather(images, _reflect(rows, height), axis=1, batch_dims=1)
    return tf.gather(images, _reflect(columns, width), axis=2, batch_dims=1)


def shuffled(count: int, seed):
    return tf.random.experimental.stateless_shuffle(  # pyright: ignore
        tf.range(count), seed
    )


def _reflect(index, size):
    """Indices outside 0..size-1 mirrored at the border pixels."""
    index = tf.abs(index)
    return tf.where(index < size, index, 2 * (size - 1) - index)


def cutout(images, side: int, seed):
    """Lays a grey square with a random centre over each image (arXiv 1708.04552)."""
    count, height, width, _ = images.shape
    seeds = tf.random.split(seed, 2)

    def covered(length, seed):
        centre = tf.random.stateless_uniform((count, 1), seed, 0, length, tf.int32)
        distance = tf.range(length) - centre + side // 2
        return (distance >= 0) & (distance < side)

    square = (
        covered(height, seeds[0])[:, :, None] & covered(width, seeds[1])[:, None, :]
    )
    return tf.where(square[..., None], tf.constant(GREY, images.dtype), images)


def mixup(images, targets, alpha: float, seed):
    """Mixes each image and target with another's (arXiv 1710.09412)."""
    seeds = tf.random.split(seed, 2)
    a, b = tf.unstack(tf.random.stateless_gamma((2,), seeds[0], tf.constant(alpha)))
    share = a / (a + b)
    order = shuffled(images.shape[0], seeds[1])
    mixed = share * tf.cast(images, tf.float32) + (1 - share) * tf.cast(
        tf.gather(images, order), tf.float32
    )
    targets = share * targets + (1 - share) * tf.gather(targets, order)
    return tf.cast(tf.round(mixed), images.dtype), targets


def redraw(images, padding: int, seed):
    """Changes pose, size, weight and contrast of white characters on black.

    Args:
        images: uint8 of shape `(n, height, width, channels)`.
        padding: How far to move them at most, in pixels; half as far as a rule.
        seed: Two integers.
    """
    count = images.shape[0]
    seeds = tf.random.split(seed, 2)
    turn, slant, wide, high, left, top = tf.unstack(
        tf.random.stateless_uniform((6, count), seeds[0], -1.0, 1.0)
    )
    changed = warp(
        images,
        turn=TURN * turn,
        slant=SLANT * slant,
        size=tf.exp(GROWTH * tf.stack([wide, high], axis=1)),
        move=padding / 2 * tf.stack([left, top], axis=1),
    )
    weight, fading = tf.unstack(
        tf.random.stateless_uniform((2, count, 1, 1, 1), seeds[1], -1.0, 1.0)
    )
    ink = (changed / 255) ** tf.exp(WEIGHT * weight)  # grey edges: thinner or bolder
    ink *= 1 - FADING * (1 + fading) / 2
    return tf.cast(tf.round(255 * ink), images.dtype)


def warp(images, turn, slant, size, move):
    """Turns, slants, resizes and moves images about their centres, black outside.

    Args:
        images: Of shape `(n, height, width, channels)`.
        turn: Angles in radians, of shape `(n,)`.
        slant: How far a pixel moves sideways for each pixel of height, `(n,)`.
        size: Factors of width and height, of shape `(n, 2)`.
        move: Pixels to the right and down, of shape `(n, 2)`.

    Returns:
        The images as float32, from 0 to 255.
    """
    _, height, width, _ = images.shape
    centre = tf.constant([(width - 1) / 2, (height - 1) / 2])
    cos, sin = tf.cos(turn), tf.sin(turn)
    # From a pixel of the result to where it comes from.
    rows = tf.stack(
        [
            tf.stack([cos + slant * sin, sin - slant * cos], axis=1) / size,
            tf.stack([-sin, cos], axis=1) / size,
        ],
        axis=1,
    )
    shift = centre - tf.linalg.matvec(rows, centre + move)
    zero = tf.zeros_like(turn)
    transforms = [rows[:, 0, 0], rows[:, 0, 1], shift[:, 0], rows[:, 1, 0],
                  rows[:, 1, 1], shift[:, 1], zero, zero]  # fmt: skip
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(images, tf.float32),
        transforms=tf.stack(transforms, axis=1),
        output_shape=[height, width],
        fill_value=0.0,
        interpolation="BILINEAR",
    )
