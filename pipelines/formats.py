"""The formats that a run is exported to: how each is written, opened and asked.

An export is a folder like a run's, with `assets/` and `assets.extra/`, whose network is
one file, or one folder, for another runtime. It takes uint8 images of one size and
gives `logits`, `probabilities`, `log_probabilities` and `class`, without noise, as the
run's SavedModel does. To add a format, add it to `FORMATS`.
"""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from pipelines import publishing, run_folder, saved_model
from pipelines.errors import InputError, one_line
from pipelines.pixels import resize
from pipelines.quiet import hushed

OPSET = 18  # of ONNX
LARGEST_DIFFERENCE = 1e-5  # of a probability
OUTPUTS: list[str] = ["logits", "probabilities", "log_probabilities", "class"]


class Opened(NamedTuple):
    """A network that a runtime has loaded.

    Attributes:
        ask: From uint8 images of shape `(n, size, size, 3)` to arrays by name.
        size: The side of its images.
    """

    ask: Callable[[np.ndarray], dict[str, np.ndarray]]
    size: int


class Format(NamedTuple):
    """A format.

    Attributes:
        file: What the network is called in the folder of an export.
        write: From a network to that file.
        open: From that file to a function.
    """

    file: str
    write: Callable[[Network, Path], None]
    open: Callable[[Path], Opened]


class Network(tf.Module):
    """`answer`, a function of images of one size, and what it stands on."""

    def __init__(self, model: keras.Model):
        super().__init__()
        self.state = [variable.value for variable in model.variables]
        noise_free = saved_model.without_noise(model)
        pixels = tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8, "images")

        def answer(images):
            x, probabilities, log_probabilities = noise_free(images)
            label = tf.argmax(log_probabilities, axis=-1)
            answers = (x, probabilities, log_probabilities, label)
            return dict(zip(OUTPUTS, answers, strict=True))

        self.answer = tf.function(answer, input_signature=[pixels], autograph=False)


def _write_saved_model(network: Network, path: Path):
    tf.saved_model.save(network, str(path), {"serving_default": network.answer})


def _open_saved_model(path: Path) -> Opened:
    served = saved_model.read(path)
    signature = served.signatures["serving_default"]

    def ask(images, keep_alive=served):
        answer = signature(images=tf.constant(images))
        return {name: answer[name].numpy() for name in OUTPUTS}

    return Opened(ask, signature.structured_input_signature[1]["images"].shape[1])


def _write_onnx(network: Network, path: Path):
    convert = _package("tf2onnx.convert")
    signature = network.answer.input_signature
    proto, _ = convert.from_function(network.answer, signature, opset=OPSET)
    path.write_bytes(proto.SerializeToString())


def _open_onnx(path: Path) -> Opened:
    session = _package("onnxruntime").InferenceSession(path.read_bytes())

    def ask(images):
        found = session.run(OUTPUTS, {"images": images})
        return dict(zip(OUTPUTS, found, strict=True))

    return Opened(ask, session.get_inputs()[0].shape[1])


def _write_litert(network: Network, path: Path):
    folder = path.with_name("converted")
    _write_saved_model(network, folder)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
    path.write_bytes(converter.convert())
    shutil.rmtree(folder)


def _open_litert(path: Path) -> Opened:
    litert = _package("ai_edge_litert.interpreter")
    interpreter = litert.Interpreter(
        model_content=path.read_bytes(), num_threads=os.cpu_count()
    )
    ask = interpreter.get_signature_runner("serving_default")

    def copied(images):
        return {name: np.array(array) for name, array in ask(images=images).items()}

    return Opened(copied, int(interpreter.get_input_details()[0]["shape"][1]))


FORMATS = {
    "onnx": Format("model.onnx", _write_onnx, _open_onnx),
    "litert": Format("model.tflite", _write_litert, _open_litert),
    "tf_saved_model": Format("model", _write_saved_model, _open_saved_model),
}


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise InputError(
            f"{package} is not installed; `pip install -e '.[export]'` installs what "
            "exports need."
        ) from error


def export(run: Path, name: str, out: Path, overwrite: bool = False) -> float:
    """Writes a run's network in another format, beside what the run says of itself.

    It is published only if it gives random images the same probabilities as the run.

    Args:
        run: A folder that `pipelines.train` wrote.
        name: One of `FORMATS`.
        out: The folder to write.
        overwrite: Replace it if it is there.

    Returns:
        The largest difference between probabilities of the run and of the export.

    Raises:
        InputError: If there is no run, `out` is there, a package is missing, or the
            format cannot hold the network.
    """
    record = run_folder.read_record(run)
    serve, names = saved_model.load(run)
    if out.exists() and not overwrite:
        raise InputError(f"{out} is there already; --overwrite replaces it.")
    model = saved_model.keras_model(run)
    size = model.input_shape[1]
    images = np.random.default_rng(0).integers(0, 256, (8, size, size, 3), "uint8")
    (expected,) = saved_model.ask(serve, images, "probabilities")
    with publishing.claim(out):
        new = publishing.start(out)
        file = new / FORMATS[name].file
        try:
            with hushed():
                FORMATS[name].write(Network(model), file)
                found = FORMATS[name].open(file).ask(images)["probabilities"]
        except (InputError, OSError):
            raise
        except Exception as error:  # whatever a converter raises
            raise InputError(
                f"{record.config.run_name} cannot be written as {name} "
                f"({one_line(error)[:200]}); choose another format."
            ) from error
        difference = float(np.abs(found - expected).max())
        if not difference <= LARGEST_DIFFERENCE:
            raise InputError(
                f"As {name} the run gives other probabilities, by up to "
                f"{difference:.1g}, so nothing was kept; choose another format."
            )
        (new / "assets").mkdir()
        saved_model.write_names(new / "assets" / saved_model.CLASS_NAMES, names)
        extra = new / run_folder.EXTRA
        extra.mkdir()
        for file in (run_folder.RECORD, run_folder.CONFIG, run_folder.HISTORY):
            shutil.copyfile(run / run_folder.EXTRA / file, extra / file)
        publishing.publish(out)
    return difference


def load(path: Path) -> tuple[Callable, list[str]]:
    """Loads the serving function of a run or of an export.

    Args:
        path: A folder that `pipelines.train` or `pipelines.export` wrote.

    Returns:
        As `saved_model.load`. An export has no signature `sample`.

    Raises:
        InputError: If the folder holds neither, it is damaged, or the package that
            runs it is missing.
    """
    kind = next((f for f in FORMATS.values() if (path / f.file).exists()), None)
    if kind is None:
        return saved_model.load(path)
    try:
        with hushed():
            ask, size = kind.open(path / kind.file)
            answer = ask(np.zeros((1, size, size, 3), "uint8"))
        names = saved_model.read_names(path / "assets" / saved_model.CLASS_NAMES)
        if len(names) != answer["probabilities"].shape[1]:
            raise ValueError(f"{saved_model.CLASS_NAMES} has {len(names)} names")
    except InputError:
        raise
    except Exception as error:  # runtimes raise whatever the bytes lead them to
        raise InputError(
            f"The export {path} is damaged ({one_line(error)[:200]}); make it anew."
        ) from error

    def serve(images):
        answer = ask(resize(images, size).numpy())
        return {name: tf.constant(array) for name, array in answer.items()}

    serve.sample = None
    return serve, names
