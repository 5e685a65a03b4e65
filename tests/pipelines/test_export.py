import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import typing
import urllib.error
import urllib.request
import warnings

import numpy as np
import PIL.Image
import pytest

from kerasoft.heads import HEADS
from pipelines import evaluation, export, formats, predict, saved_model, training
from pipelines.errors import InputError

pytestmark = pytest.mark.usefixtures("few_resamples")
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype="uint8")
TRITON = os.environ.get("KERASOFT_TRITON")  # the Python of an environment with PyTriton
FILES = {"onnx": "model.onnx", "litert": "model.tflite", "tf_saved_model": "model"}

# Asks exports by their runtime alone, in a process without kerasoft: image by image and
# all at once.
ASK = """
import pathlib, sys
import numpy as np

def opened(kind, file):
    if kind == "onnx":
        import onnxruntime
        session = onnxruntime.InferenceSession(file)
        names = [output.name for output in session.get_outputs()]
        return lambda images: dict(zip(names, session.run(names, {"images": images})))
    if kind == "litert":
        from ai_edge_litert.interpreter import Interpreter
        return Interpreter(model_path=str(file)).get_signature_runner()
    import tensorflow as tf
    served = tf.saved_model.load(file)
    ask = served.signatures["serving_default"]
    ask.keep_alive = served
    return ask

kind, images, *files = sys.argv[1:]
images = np.load(images)
for file in map(pathlib.Path, files):
    ask = opened(kind, file)
    answer = lambda images: {k: np.array(v) for k, v in ask(images=images).items()}
    each = [answer(images[i : i + 1]) for i in range(len(images))]
    whole = answer(images)
    for name, array in whole.items():
        one_by_one = np.concatenate([one[name] for one in each])
        np.testing.assert_allclose(one_by_one, array, rtol=1e-4, atol=1e-4)
    np.savez(file.parent / "answers.npz", **whole)
assert "kerasoft" not in sys.modules
"""


def main(argv, capsys):
    with pytest.raises(SystemExit) as exit:
        export.main([str(word) for word in argv])
    captured = capsys.readouterr()
    return exit.value.code, captured.out, captured.err.splitlines()


def close_to(expected):
    """Within 1e-5, of numbers above 1 relative to the largest."""
    return pytest.approx(
        expected, rel=0, abs=1e-5 * max(1.0, float(np.abs(expected).max()))
    )


def answer_as_the_runs(runs, kind, folder):
    """Whether exports answer by themselves what the SavedModels of runs answer."""
    images = folder / "images.npy"
    np.save(images, IMAGES)
    outs = [folder / f"{kind}{number}" for number in range(len(runs))]
    for run, out in zip(runs, outs, strict=True):
        formats.export(run, kind, out)
    files = [out / FILES[kind] for out in outs]
    words = [sys.executable, "-c", ASK, kind, str(images), *map(str, files)]
    subprocess.run(words, check=True)
    for run, out in zip(runs, outs, strict=True):
        serve, names = saved_model.load(run)
        expected = saved_model.ask(serve, IMAGES, *formats.OUTPUTS)
        answer = np.load(out / "answers.npz")
        assert set(answer) == set(formats.OUTPUTS)
        for name, array in zip(formats.OUTPUTS, expected, strict=True):
            assert answer[name] == close_to(array), (run.name, name)
        assert formats.load(out)[1] == names


@pytest.mark.parametrize("kind", FILES)
def test_an_export_answers_as_the_run(kind, run, tmp_path):
    answer_as_the_runs([run], kind, tmp_path)


@pytest.fixture(scope="module")
def every_run(tiny, tmp_path_factory):
    """Runs of every head, and of every output layer."""
    folder = tmp_path_factory.mktemp("every")
    given = [{"head": head} for head in HEADS]
    given += [
        {"output": output, "head": "log_softmax"}
        for output in ("sampled:2", "adaptive", "two_level:2")
    ]
    given += [
        {"output": "chunked", "head": "sparsemax"},
        {"output": "factored", "head": "z_loss"},
        {"output": "factored", "head": "spherical_softmax"},
    ]
    configs = [dataclasses.replace(tiny, epochs=1, **options) for options in given]
    with warnings.catch_warnings(action="ignore"):  # factored, with few classes
        return [training.train(config, folder) for config in configs]


@pytest.mark.slow
@pytest.mark.parametrize("kind", FILES)
def test_every_head_and_output_layer_is_exported(kind, every_run, tmp_path):
    answer_as_the_runs(every_run, kind, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(
    TRITON is None, reason="KERASOFT_TRITON names no Python that has PyTriton"
)
def test_triton_answers_as_the_run(exports, run, tmp_path):
    """Whether a server answers one image and several, and refuses what is no image."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    server = f"http://localhost:{port}/v2"
    log = tmp_path / "log"

    def ask(images):
        pixels = {"shape": images.shape, "data": images.ravel().tolist()}
        body = {"inputs": [{"name": "images", "datatype": "UINT8", **pixels}]}
        request = urllib.request.Request(
            f"{server}/models/run/infer", json.dumps(body).encode()
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            found = json.load(answer)["outputs"]
        return {out["name"]: np.reshape(out["data"], out["shape"]) for out in found}

    words = [str(TRITON), "examples/triton_server.py", str(exports["onnx"])]
    # What a shell starts in the background ignores Ctrl-C, and so would the server.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with log.open("w") as out:
        process = subprocess.Popen(
            [*words, "--port", str(port)], stdout=out, stderr=out
        )
    signal.signal(signal.SIGINT, before)
    try:
        for _ in range(120):
            assert process.poll() is None, log.read_text()
            try:
                urllib.request.urlopen(f"{server}/models/run/ready", timeout=10).close()
                break
            except OSError:
                time.sleep(0.5)
        else:
            pytest.fail(log.read_text())
        serve, _ = saved_model.load(run)
        expected = saved_model.ask(serve, IMAGES, *formats.OUTPUTS)
        for images in (IMAGES, IMAGES[:1]):
            answer = ask(images)
            assert set(answer) == set(formats.OUTPUTS)
            for name, array in zip(formats.OUTPUTS, expected, strict=True):
                array = np.reshape(array[: len(images)], (len(images), -1))
                assert answer[name] == close_to(array), name
        with pytest.raises(urllib.error.HTTPError, match="400"):
            ask(IMAGES[:, :3])
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        finally:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def exports(run, tmp_path_factory):
    """Exports of a run, in a path that is a pattern to some, by format."""
    folder = tmp_path_factory.mktemp("exported") / "of [1]"
    outs = {kind: folder / kind for kind in FILES}
    for kind, out in outs.items():
        formats.export(run, kind, out)
    return outs


@pytest.fixture(scope="module")
def exported(exports):
    return exports["onnx"]


def test_the_command_says_what_it_wrote(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    status, out, err = main([run, "--format", "onnx"], capsys)
    folder = tmp_path / "exported" / f"{run.name}-onnx"
    assert (status, err) == (0, [])
    assert f"exported/{run.name}-onnx/model.onnx: probabilities differ" in out
    assert (folder / "assets" / "class_names.txt").read_text() == "blue\ngreen\nred\n"
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]

    (folder / "model.onnx").write_bytes(b"old")
    status, _, err = main([run, "--format", "onnx"], capsys)
    assert status == 2
    assert "is there already; --overwrite" in err[0]
    assert (folder / "model.onnx").read_bytes() == b"old"
    status, _, _ = main([run, "--format", "onnx", "--overwrite"], capsys)
    assert status == 0
    assert (folder / "model.onnx").read_bytes() != b"old"


def test_the_options_name_every_format():
    assert typing.get_args(export.Kind) == tuple(FILES)
    assert {name: f.file for name, f in formats.FORMATS.items()} == FILES


@pytest.mark.parametrize("size", [(16, 16), (40, 7)])
@pytest.mark.parametrize("kind", FILES)
def test_predict_takes_an_export(kind, size, exports, run, tmp_path, capsys):
    image = tmp_path / "image.png"
    PIL.Image.fromarray(IMAGES[0]).resize(size).save(image)
    said = []
    for folder in (run, exports[kind]):
        with pytest.raises(SystemExit) as exit:
            predict.main([str(folder), str(image), "--json"])
        assert exit.value.code == 0
        said.append(json.loads(capsys.readouterr().out)[str(image)])
    for ours, theirs in zip(*said, strict=True):
        assert ours["class"] == theirs["class"]
        assert ours["probability"] == pytest.approx(theirs["probability"], abs=1e-5)


def test_an_export_beside_its_run_is_no_second_seed(tiny, run, tmp_path, without_plots):
    noisy = dataclasses.replace(tiny, head="log_gumbel_softmax", epochs=1)
    configs = [dataclasses.replace(noisy, seed=seed) for seed in (0, 1)]
    runs = [training.train(config, tmp_path / "runs") for config in configs]
    runs.append(run)
    # A path that sorts before theirs.
    exports = [tmp_path / "exported" / f"{run.name}-litert" for run in runs[:2]]
    for run, out in zip(runs[:2], exports, strict=True):
        formats.export(run, "litert", out)

    def compared(paths, out):
        results = evaluation.evaluate(paths, tmp_path / out, timings=False)
        (table,) = results.comparison.tables
        return table

    alone, beside = compared(runs, "a"), compared([*runs, *exports], "b")
    assert len(beside.rows) == len(alone.rows) + 2
    titles = {row.title for row in beside.rows}
    assert len(titles) == len(beside.rows)
    assert sum(title.endswith(", litert") for title in titles) == 2
    names = {run.name for run in runs}
    for ours, theirs in zip(beside.groups, alone.groups, strict=True):
        assert [path.rpartition("/")[2] for path in ours.runs] == theirs.runs
        assert set(theirs.runs) <= names
        assert ours.ensemble
        assert ours.as_is == theirs.as_is
    assert len(beside.pairs) == len(alone.pairs)
    assert len(beside.contrasts) == len(alone.contrasts)


def said(argv, capsys):
    status, _, err = main(argv, capsys)
    assert status == 2
    (line,) = err
    return line


def test_what_is_damaged_or_missing_is_said(
    run, exports, exported, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "out"
    assert "There is no run" in said([tmp_path, "--out", out], capsys)
    for kind, file in FILES.items():
        copy = tmp_path / kind
        shutil.copytree(exports[kind], copy)
        (copy / "assets" / "class_names.txt").write_text("one\n")
        with pytest.raises(InputError, match=r"is damaged .*has 1 names"):
            formats.load(copy)
        file = (
            file.replace("model", "model/saved_model.pb") if file == "model" else file
        )
        (copy / file).write_bytes(b"\xff" * 99)
        with pytest.raises(SystemExit) as exit:
            predict.main([str(copy), "image.png"])
        assert exit.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "is damaged" in line
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"onnxruntime is not installed.*\[export\]"):
        formats.load(exported)
    monkeypatch.setitem(sys.modules, "tf2onnx.convert", None)
    assert "tf2onnx is not installed" in said([run, "--out", out], capsys)
    assert not list(tmp_path.glob("*out*"))


def test_only_an_export_is_replaced(run, tmp_path, monkeypatch, capsys):
    copy, mine = tmp_path / "runs" / "run", tmp_path / "mine"
    shutil.copytree(run, copy)
    mine.mkdir()
    (mine / "notes.txt").touch()
    monkeypatch.chdir(mine)
    for out in (copy, copy.parent, mine, ".", "..", mine / "notes.txt"):
        line = said([copy, "--out", out, "--overwrite"], capsys)
        assert "is no export; choose another --out" in line
    assert (copy / "saved_model.pb").exists()
    assert list(tmp_path.rglob("notes.txt"))


def test_what_answers_otherwise_is_not_kept(run, tmp_path, monkeypatch, capfd):
    def other(path):
        ask, size = formats._open_onnx(path)

        def shifted(images):
            answer = ask(images)
            return answer | {"probabilities": answer["probabilities"] + 1e-4}

        return formats.Opened(shifted, size)

    def fails(network, path):
        path.write_bytes(b"half")
        os.write(2, b"a converter's words\n")
        raise RuntimeError("no such op\nat all")

    onnx = formats.FORMATS["onnx"]
    out = tmp_path / "out"
    for wrong, words in (
        (onnx._replace(open=other), "other probabilities, by up to 0.0001"),
        (onnx._replace(write=fails), "cannot be written as onnx (no such op at all)"),
    ):
        monkeypatch.setitem(formats.FORMATS, "onnx", wrong)
        assert words in said([run, "--out", out], capfd)
        assert list(tmp_path.iterdir()) == []
