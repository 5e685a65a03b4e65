"""A disk that fails is named as such, and not taken for damage of what was read."""

import numpy as np
import pytest

from pipelines import evaluation, files, judging, publishing, report, saved_model

FULL = 28, "No space left on device"


def fails(*args, **kwargs):
    raise OSError(*FULL)


def test_a_report_on_a_full_disk_leaves_its_comparison(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(files, "read", lambda folder: None)
    monkeypatch.setattr(files, "write", fails)
    folder = tmp_path / "comparison"
    folder.mkdir()
    with pytest.raises(SystemExit) as exit:
        report.main([str(folder)])
    (line,) = capsys.readouterr().err.splitlines()
    assert exit.value.code == 1
    assert line.startswith(f"error: {publishing.partial(folder)}: {FULL[1]}; make room")


def test_a_comparison_below_a_file_is_not_there(tmp_path, capsys):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as exit:
        report.main([str(tmp_path / "file" / "comparison")])
    (line,) = capsys.readouterr().err.splitlines()
    assert exit.value.code == 2
    assert line.startswith("error: There is no comparison in")


def test_probabilities_that_find_no_room_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(np, "savez_compressed", fails)
    answer = judging.Answer(np.ones((1, 1)), np.zeros((1, 1)))
    with pytest.raises(OSError, match=FULL[1]) as caught:
        evaluation.save(tmp_path, "run", answer, np.zeros(1))
    assert caught.value.filename == str(tmp_path / "run.npz")


def test_no_room_for_temporary_files_is_no_damage_of_a_run(run, monkeypatch):
    monkeypatch.setattr(saved_model.Path, "symlink_to", fails)
    with pytest.raises(OSError, match=FULL[1]):
        saved_model.load(run)
