"""What a task of Ray does, without Ray."""

import dataclasses
import sys

import pytest

from pipelines import publishing, ray_cluster, run_folder
from pipelines.errors import InputError


def test_a_task_trains_what_is_not_there(tiny, tmp_path, monkeypatch):
    config = dataclasses.replace(tiny, epochs=1)
    words, failed = ray_cluster.train_one(config, tmp_path)
    assert "min on" in words
    assert not failed
    path = tmp_path / config.run_name
    assert run_folder.read_record(path).config == config
    assert ray_cluster.train_one(config, tmp_path) == ("there", False)
    (path / "saved_model.pb").rename(path / "elsewhere")
    path.joinpath(run_folder.EXTRA, run_folder.RECORD).unlink()
    words, failed = ray_cluster.train_one(config, tmp_path)
    assert words.startswith("another run of that name is there")
    assert failed
    monkeypatch.setattr(ray_cluster, "PATIENCE", -1)
    with publishing.claim(path):
        words, failed = ray_cluster.train_one(config, tmp_path)
    assert (words, failed) == ("another process is training it", True)


def test_a_task_says_why_it_failed(tiny, tmp_path):
    config = dataclasses.replace(tiny, learning_rate=1e30)
    words, failed = ray_cluster.train_one(config, tmp_path)
    assert "not finite any more" in words
    assert failed


@pytest.mark.parametrize("gpus", [-1, 1.5, float("nan"), 1e-9])
def test_impossible_shares_are_refused(gpus, tiny, tmp_path):
    with pytest.raises(InputError, match="gpus_per_run must be"):
        ray_cluster.train_all([tiny], tmp_path, "local", gpus=gpus)


def test_a_missing_package_and_an_empty_address_are_named(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"ray is not installed.*\[ray\]"):
        ray_cluster.train_all([tiny], tmp_path, "local")


def test_a_process_is_told_how_much_to_use(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", "data")
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    found = ray_cluster._variables(3, 0)
    assert found["TFDS_DATA_DIR"] == str(tmp_path / "data")
    assert found["TF_ENABLE_ONEDNN_OPTS"] == "0"
    assert found["TF_NUM_INTRAOP_THREADS"] == "3"
    assert found["CUDA_VISIBLE_DEVICES"] == ""
    assert "TF_FORCE_GPU_ALLOW_GROWTH" in ray_cluster._variables(1, 0.5)
