"""A run as a TensorFlow SavedModel: how it is written, loaded and asked."""

from __future__ import annotations

import contextlib
import functools
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from kerasoft import heads
from kerasoft.heads import GumbelHead
from kerasoft.ops import TINY
from pipelines import run_folder
from pipelines.errors import InputError, one_line
from pipelines.pixels import resize, rgb

CLASS_NAMES = "class_names.txt"
BATCH = 250  # images that are asked about at once


class _Served(tf.Module):
    """What a SavedModel keeps: the function, and what it stands on."""

    state: list
    class_names: tf.saved_model.Asset
    serve: object


def export(model: keras.Model, class_names: list[str], path: Path, scratch: Path):
    """Writes a model as a SavedModel that serves without Keras or kerasoft.

    `serving_default` takes uint8 images of any size and gives `logits`,
    `probabilities`, `log_probabilities`, `class` and `class_name`. `top` takes a number
    `k` beside the images and gives the `k` likeliest classes of each, best first, in
    the shape `(n, k)` (all classes if `k` is above their number): `class`,
    `class_name`, `probability` and `log_probability`. They add no noise, whatever the
    head's `noise`: the same image gives the same answer twice. Beside a Gumbel head
    there is `sample`: from images and a vector of seeds to the `probabilities` of one
    noisy draw a seed, which depend on nothing else.

    Args:
        model: Takes pixels, ends in a head.
        class_names: The names of the classes, which go to `assets/`.
        path: The folder to write.
        scratch: A folder for the file of names on its way to `assets/`.
    """
    head = heads.find(model)
    logits = keras.Model(model.input, head.input)
    size = model.input_shape[1]
    names = tf.constant(class_names)
    noise_free = without_noise(model)

    def answer(images):
        x, probabilities, log_probabilities = noise_free(resize(images, size))
        label = tf.argmax(log_probabilities, axis=-1)
        return {
            "logits": x,
            "probabilities": probabilities,
            "log_probabilities": log_probabilities,
            "class": label,
            "class_name": tf.gather(names, label),
        }

    def top(images, k):
        _, probabilities, log_probabilities = noise_free(resize(images, size))
        count = tf.clip_by_value(k, 0, len(class_names))
        best, label = tf.math.top_k(log_probabilities, count)
        return {
            "class": tf.cast(label, tf.int64),
            "class_name": tf.gather(names, label),
            "probability": tf.gather(probabilities, label, batch_dims=1),
            "log_probability": best,
        }

    def sample(images, seeds):
        x = logits(resize(images, size), training=False)
        shape = tf.shape(x)

        def noise_of(seed):
            u = tf.random.stateless_uniform(shape, tf.stack([seed, 0]), minval=TINY)
            return -tf.math.log(-tf.math.log(u))

        noise = tf.map_fn(noise_of, seeds, fn_output_signature=tf.float32)
        y = head.relax(x, head.current_temperature, noise)
        return {"probabilities": head.probabilities(y)}

    served = _Served()
    served.state = [variable.value for variable in model.variables]
    write_names(scratch / CLASS_NAMES, class_names)
    served.class_names = tf.saved_model.Asset(str(scratch / CLASS_NAMES))
    # Autograph would read the source again, changed or not.
    function = functools.partial(tf.function, autograph=False)
    pixels = tf.TensorSpec((None, None, None, 3), tf.uint8, "images")
    seeds = tf.TensorSpec((None,), tf.int64, "seeds")
    number = tf.TensorSpec((), tf.int32, "k")
    signatures = {
        "serving_default": function(answer, input_signature=[pixels]),
        "top": function(top, input_signature=[pixels, number]),
    }
    if isinstance(head, GumbelHead):
        signatures["sample"] = function(sample, input_signature=[pixels, seeds])
    tf.saved_model.save(served, str(path), signatures=signatures)


def without_noise(model: keras.Model) -> Callable:
    """From images to what a model says of them, whatever its head's `noise`.

    Returns:
        The function that gives logits, probabilities and their logarithms.
    """
    head = heads.find(model)
    logits = keras.Model(model.input, head.input)

    def answer(images):
        x = logits(images, training=False)
        y = head.activate(x)
        return x, head.probabilities(y), head.log_probabilities(y)

    return answer


def ask(serve: Callable, images: np.ndarray, *names: str) -> list[np.ndarray]:
    """What a serving function says of images, batch by batch.

    Args:
        serve: From a batch of `images` to a dictionary of tensors.
        images: uint8 of shape `(n, height, width, channels)`.
        *names: Those of the tensors to return.
    """

    def of_batch(batch):
        answer = serve(images=batch)
        return {name: answer[name].numpy() for name in names}

    found = gather(of_batch, images)
    return [found[name] for name in names]


def likeliest(serve: Callable, names: Sequence[str], image: np.ndarray) -> list[dict]:
    """The five most probable classes of an image, best first.

    Args:
        serve: From a batch of `images` to a dictionary of tensors, as `load` gives it.
        names: The names of the classes.
        image: RGB pixels, uint8 of shape `(height, width, 3)`.
    """
    probabilities = serve(images=tf.constant(image[None]))["probabilities"][0].numpy()
    best = np.argsort(-probabilities, kind="stable")[:5]
    return [{"class": names[i], "probability": float(probabilities[i])} for i in best]


def in_batches(images: np.ndarray) -> Iterator[tuple[int, tf.Tensor]]:
    """Images in three channels, batch by batch, each with the number of its first."""
    for start in range(0, len(images), BATCH):
        yield start, rgb(tf.constant(images[start : start + BATCH]))


def gather(of_batch: Callable, images: np.ndarray) -> dict[str, np.ndarray]:
    """Puts together what a function says of images, batch by batch.

    Args:
        of_batch: From a batch of images in three channels to arrays by name.
        images: uint8 of shape `(n, height, width, channels)`.
    """
    parts = [of_batch(batch) for _, batch in in_batches(images)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def load(path: Path):
    """Loads a run's serving function.

    Args:
        path: A folder that `pipelines.train` wrote.

    Returns:
        The function from images to a dictionary of tensors, and the names of the
        classes. The function's attribute `sample` is the signature of that name, or
        `None`.

    Raises:
        InputError: If the folder holds no such run.
    """
    if not (path / "saved_model.pb").is_file():
        raise run_folder.no_run(path)
    with linked(path) as link, _damaged(path):
        served = tf.saved_model.load(link)
        serve = served.signatures["serving_default"]
        names = read_names(path / "assets" / CLASS_NAMES)
        if len(names) != serve.structured_outputs["probabilities"].shape[-1]:
            raise ValueError(f"{CLASS_NAMES} has {len(names)} names")
    serve.keep_alive = served  # a signature alone does not hold its variables
    serve.sample = served.signatures.get("sample")
    return serve, names


@contextlib.contextmanager
def linked(path: Path) -> Iterator[str]:
    """Gives a folder another name: TensorFlow takes brackets in one for a pattern."""
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder, "run")
        link.symlink_to(path.resolve())
        yield str(link)


def keras_model(path: Path) -> keras.Model:
    """Loads the Keras model that a run keeps, without its optimiser.

    Raises:
        InputError: If it cannot be loaded.
    """
    file = path / run_folder.EXTRA / run_folder.MODEL
    try:
        return keras.models.load_model(file, compile=False)
    except Exception as error:  # Keras raises whatever the file leads it to
        raise InputError(
            f"The Keras model {file} cannot be loaded ({one_line(error)[:200]}); "
            "register layers of your own with keras.saving, or train the run anew."
        ) from error


@contextlib.contextmanager
def _damaged(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # readers raise whatever the bytes lead them to
        raise InputError(
            f"The run {path} is damaged ({one_line(error)[:200]}); train it anew."
        ) from error


def write_names(path: Path, names: Sequence[str]):
    """Writes one name a line; a line break in a name is written as in Python."""
    escaped = [
        name.translate({ord("\\"): "\\\\", ord("\n"): "\\n", ord("\r"): "\\r"})
        for name in names
    ]
    path.write_bytes(("\n".join(escaped) + "\n").encode())


def read_names(path: Path) -> list[str]:
    def plain(found: re.Match[str]) -> str:
        return {"n": "\n", "r": "\r"}.get(found[1], found[1])

    lines = path.read_bytes().decode().split("\n")[:-1]
    return [re.sub(r"\\(.)", plain, line) for line in lines]
