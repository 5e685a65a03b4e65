"""Arrays that are kept: read again, made again where they are damaged."""

import os

import numpy as np
import pytest

from pipelines.datasets import cache


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "kerasoft" / "arrays" / "key"


def counted():
    made = []

    def make():
        made.append(1)
        return {"a": np.arange(12).reshape(3, 4), "b": np.array([1.5])}

    return made, make


def test_arrays_are_made_once(place):
    made, make = counted()
    for number in range(3):
        found = cache.arrays("key", make)
        np.testing.assert_array_equal(found["a"], np.arange(12).reshape(3, 4))
        np.testing.assert_array_equal(found["b"], [1.5])
        assert isinstance(found["a"], np.memmap) == (number > 0)
    assert len(made) == 1
    assert [path.name for path in place.parent.iterdir()] == ["key"]


@pytest.mark.parametrize("name", ["a.npy", "b.npy", "checksums.json"])
@pytest.mark.parametrize("harm", ["cut", "changed", "gone", "empty"])
def test_what_is_damaged_is_made_again(place, name, harm):
    made, make = counted()
    cache.arrays("key", make)
    file = place / name
    content = bytearray(file.read_bytes())
    content[-4] ^= 1
    {
        "cut": lambda: os.truncate(file, len(content) - 3),
        "changed": lambda: file.write_bytes(content),
        "gone": file.unlink,
        "empty": lambda: os.truncate(file, 0),
    }[harm]()
    np.testing.assert_array_equal(cache.arrays("key", make)["b"], [1.5])
    assert len(made) == 2
    cache.arrays("key", make)
    assert len(made) == 2


def test_without_a_place_they_are_made_each_time(place, monkeypatch, capsys):
    made, make = counted()
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    for _ in range(2):
        assert cache.arrays("key", make)["b"] == [1.5]
    assert len(made) == 2
    assert "not kept in /proc/nowhere/kerasoft" in capsys.readouterr().err


def test_the_cache_is_where_xdg_says(place, tmp_path, monkeypatch):
    assert cache.folder() == tmp_path / "kerasoft"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.folder().name == "kerasoft"


def test_who_has_no_home_has_a_cache_all_the_same(monkeypatch):
    def nobody():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(cache.Path, "home", nobody)
    assert cache.folder().name == "kerasoft"
    assert cache.folder().parent.is_dir()
