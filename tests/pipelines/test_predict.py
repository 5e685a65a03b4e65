import json
import os

import numpy as np
import PIL.Image
import pytest

from pipelines import predict


def answer(argv, capsys):
    with pytest.raises(SystemExit) as exit:
        predict.main([str(word) for word in argv])
    captured = capsys.readouterr()
    return exit.value.code, captured.out, captured.err.splitlines()


def test_the_table_names_the_best_class_first(run, photos, capsys):
    image = photos / "test" / "green" / "00.png"
    status, out, err = answer([run, image], capsys)
    assert (status, err) == (0, [])
    lines = out.splitlines()
    assert lines[0] == str(image)
    assert lines[1].endswith("green")
    assert len(lines) == 4


def test_json_holds_probabilities_that_sum_to_one(run, photos, capsys):
    images = [photos / "test" / name / "01.png" for name in ("red", "blue")]
    status, out, _ = answer([run, *images, "--json"], capsys)
    answers = json.loads(out)
    assert status == 0
    assert [answers[str(image)][0]["class"] for image in images] == ["red", "blue"]
    for best in answers.values():
        assert sum(a["probability"] for a in best) == pytest.approx(1, abs=1e-5)


def test_broken_and_enormous_images_are_named_and_skipped(
    run, photos, tmp_path, capsys
):
    whole = photos / "test" / "red" / "00.png"
    broken, text, missing = (tmp_path / n for n in ("cut.png", "text.png", "no.png"))
    broken.write_bytes(whole.read_bytes()[:200])
    text.write_text("no image")
    enormous = tmp_path / "enormous.png"
    PIL.Image.fromarray(np.zeros((9000, 9000), bool)).save(enormous)
    bad = [broken, text, missing, enormous]
    status, out, err = answer([run, *bad, whole], capsys)
    assert status == 1
    assert out.splitlines()[1].endswith("red")
    assert [line.split(":")[0] for line in err] == [str(path) for path in bad]
    assert "enormous" in err[-1]


def test_what_no_decoder_expects_is_named_and_skipped(run, photos, tmp_path, capsys):
    whole = photos / "test" / "red" / "00.png"
    pipe, dds, line = (tmp_path / name for name in ("pipe", "odd.dds", "two\nlines"))
    os.mkfifo(pipe)
    PIL.Image.new("RGB", (8, 8)).save(dds)
    header = bytearray(dds.read_bytes())
    header[80:84] = b"\0\0\x80\0"  # flags of no pixel format
    dds.write_bytes(header)
    status, out, err = answer([run, pipe, dds, line, whole], capsys)
    assert (status, len(err)) == (1, 3)
    assert out.splitlines()[0] == str(whole)
    assert "no regular file" in err[0]


def test_a_name_that_is_no_unicode_is_printed(run, photos, tmp_path, capsys):
    path = tmp_path / os.fsdecode(b"caf\xe9.png")
    path.write_bytes((photos / "test" / "red" / "00.png").read_bytes())
    status, out, err = answer([run, path], capsys)
    assert (status, err) == (0, [])
    assert r"caf\udce9.png" in out


def test_grey_and_transparent_images_are_read(run, tmp_path, capsys):
    for mode in ("L", "RGBA", "P"):
        PIL.Image.new(mode, (30, 20)).save(tmp_path / f"{mode}.png")
    status, out, err = answer([run, *tmp_path.iterdir()], capsys)
    assert (status, out.count(str(tmp_path)), err) == (0, 3, [])


def test_a_folder_without_a_run_is_bad_input(tmp_path, capsys):
    status, out, err = answer([tmp_path, tmp_path / "a.png"], capsys)
    assert (status, out, len(err)) == (2, "", 1)
    assert "There is no run in" in err[0]
