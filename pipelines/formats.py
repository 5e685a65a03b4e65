"""The formats that a run is exported to: how each is written, opened and asked.

An export is a folder like a run's, with `assets/` and `assets.extra/`, whose network is
one file, or one folder, for another runtime. It takes uint8 images of one size and
gives `logits`, `probabilities`, `log_probabilities` and `class`, without noise, as the
run's SavedModel does. To add a format, add it to `FORMATS`.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from pipelines import checks, publishing, run_folder, saved_model
from pipelines.errors import InputError, one_line, package
from pipelines.pixels import resize
from pipelines.provenance import all_cores
from pipelines.quiet import hushed

EXTRA = "export"  # what pip installs exports' packages by
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
        packages: What both need, beside TensorFlow.
    """

    file: str
    write: Callable[[Network, Path], None]
    open: Callable[[Path], Opened]
    packages: tuple[str, ...] = ()


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
    with saved_model.linked(path) as link:
        served = tf.saved_model.load(link)
    signature = served.signatures["serving_default"]

    def ask(images, keep_alive=served):
        answer = signature(images=tf.constant(images))
        return {name: answer[name].numpy() for name in OUTPUTS}

    return Opened(ask, signature.structured_input_signature[1]["images"].shape[1])


def _write_onnx(network: Network, path: Path):
    convert = package("tf2onnx.convert", EXTRA)
    signature = network.answer.input_signature
    proto, _ = convert.from_function(network.answer, signature, opset=OPSET)
    path.write_bytes(proto.SerializeToString())


def _open_onnx(path: Path) -> Opened:
    session = package("onnxruntime", EXTRA).InferenceSession(path.read_bytes())

    def ask(images):
        found = session.run(OUTPUTS, {"images": images})
        return dict(zip(OUTPUTS, found, strict=True))

    return Opened(ask, session.get_inputs()[0].shape[1])


def _write_litert(network: Network, path: Path):
    # Elsewhere, for the converter takes brackets in a path for a pattern.
    with tempfile.TemporaryDirectory() as folder:
        _write_saved_model(network, Path(folder))
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        path.write_bytes(converter.convert())


def _open_litert(path: Path) -> Opened:
    litert = package("ai_edge_litert.interpreter", EXTRA)
    interpreter = litert.Interpreter(
        model_content=path.read_bytes(), num_threads=len(all_cores())
    )
    ask = interpreter.get_signature_runner("serving_default")

    def copied(images):
        return {name: np.array(array) for name, array in ask(images=images).items()}

    return Opened(copied, int(interpreter.get_input_details()[0]["shape"][1]))


FORMATS = {
    "onnx": Format(
        "model.onnx", _write_onnx, _open_onnx, ("tf2onnx.convert", "onnxruntime")
    ),
    "litert": Format(
        "model.tflite", _write_litert, _open_litert, ("ai_edge_litert.interpreter",)
    ),
    "tf_saved_model": Format("model", _write_saved_model, _open_saved_model),
}


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
        InputError: If there is no run, `out` is there, a package is missing, the
            format cannot hold the network, or what was written answers otherwise.
    """
    out, form = out.resolve(), FORMATS[name]
    config = run_folder.read_record(run).config
    with contextlib.suppress(InputError):  # its layers may be all of Keras
        checks.check_backbone(config)
    check_free(out, overwrite)
    for needed in form.packages:
        package(needed, EXTRA)
    # A GPU would round the run's answers to 10 bits.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    serve, names = saved_model.load(run)
    model = saved_model.keras_model(run)
    size = model.input_shape[1]
    images = np.random.default_rng(0).integers(0, 256, (8, size, size, 3), "uint8")
    (expected,) = saved_model.ask(serve, images, "probabilities")
    with publishing.claim(out):
        check_free(
            out, overwrite
        )  # again, for another process may have come in between
        new = publishing.start(out)
        try:
            file = new / form.file
            found = _written(name, Network(model), file, images)
            difference = float(np.abs(found - expected).max())
            if not difference <= LARGEST_DIFFERENCE:
                raise InputError(
                    f"As {name} the run gives other probabilities, by up to "
                    f"{difference:.1g}, so nothing was kept; choose another format."
                )
            (new / "assets").mkdir()
            saved_model.write_names(new / "assets" / saved_model.CLASS_NAMES, names)
            (new / run_folder.EXTRA).mkdir()
            for own in (run_folder.RECORD, run_folder.CONFIG, run_folder.HISTORY):
                shutil.copyfile(
                    run / run_folder.EXTRA / own, new / run_folder.EXTRA / own
                )
        except BaseException:
            shutil.rmtree(publishing.partial(out), ignore_errors=True)
            raise
        publishing.publish(out)
    return difference


def _written(name: str, network: Network, file: Path, images: np.ndarray) -> np.ndarray:
    """Writes a network, and asks what was written for probabilities."""
    try:
        with hushed():
            FORMATS[name].write(network, file)
            return FORMATS[name].open(file).ask(images)["probabilities"]
    except (OSError, tf.errors.OpError):  # as of a full disk
        raise
    except Exception as error:  # whatever a converter raises
        raise InputError(
            f"The network cannot be written as {name} ({one_line(error)[:200]}); "
            "choose another format."
        ) from error


def check_free(out: Path, overwrite: bool):
    """Refuses to replace what is no export, or an export without being asked to.

    Raises:
        InputError: What is there, and the way out.
    """
    if not out.exists():
        return
    if kind_of(out) is None:
        raise InputError(f"{out} is there and is no export; choose another --out.")
    if not overwrite:
        raise InputError(f"{out} is there already; --overwrite replaces it.")


def kind_of(path: Path) -> Format | None:
    """The format of the export in a folder, or `None` if there is none."""
    record = path / run_folder.EXTRA / run_folder.RECORD
    if (path / "saved_model.pb").exists() or not record.is_file():
        return None
    return next((f for f in FORMATS.values() if (path / f.file).exists()), None)


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
    kind = kind_of(path)
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
