"""Folders that appear whole or not at all, whatever moment a process dies in."""

import shutil
from pathlib import Path

import pytest

from pipelines import publishing
from pipelines.errors import InputError


class Killed(BaseException):
    pass


def content(folder):
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


OLD, NEW = {"a": "old", "sub/b": "old"}, {"a": "new", "c": "new"}


def fill(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.mark.parametrize("replaces", [False, True])
def test_a_death_at_any_step_leaves_old_or_new_and_is_settled(
    replaces, tmp_path, monkeypatch
):
    steps_taken = set()
    for death in range(20):
        target = tmp_path / f"{death}" / "target"
        target.parent.mkdir()
        if replaces:
            fill(target, OLD)
        new = publishing.start(target)
        fill(new, NEW)
        steps = 0

        def step(function, death=death):
            def run(*args, **kwargs):
                nonlocal steps
                steps += 1
                if steps > death:
                    raise Killed
                return function(*args, **kwargs)

            return run

        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", step(Path.rename))
            patch.setattr(shutil, "rmtree", step(shutil.rmtree))
            try:
                publishing.publish(target)
                died = False
            except Killed:
                died = True
        steps_taken.add(steps)
        published = not publishing.partial(target).exists()
        if target.exists():
            assert content(target) in ((OLD, NEW) if replaces else (NEW,))
        else:  # whoever comes next finds the new one, and the old one beside it
            assert not replaces or content(publishing.finished(target) / "old") == OLD
        publishing.settle(target)
        if published:
            assert content(target) == NEW
            assert list(target.parent.iterdir()) == [target]
        elif replaces:
            assert content(target) == OLD
        if not died:
            break
    assert not died
    assert max(steps_taken) >= 3


def test_one_process_at_a_time_writes_a_folder(tmp_path):
    target = tmp_path / "folder" / "target"
    refused = pytest.raises(InputError, match=f"Another process is writing {target}")
    assert not publishing.is_claimed(target)
    with publishing.claim(target):
        assert publishing.is_claimed(target)
        with refused, publishing.claim(target):
            pass
    assert not publishing.is_claimed(target)
    assert not list(target.parent.iterdir())


def test_a_lock_left_by_the_dead_is_no_claim(tmp_path):
    target = tmp_path / "target"
    (tmp_path / ".target.lock").touch()
    assert not publishing.is_claimed(target)
    with publishing.claim(target):
        pass
    assert not list(tmp_path.iterdir())


def test_several_share_a_folder_by_their_roles(tmp_path):
    target = tmp_path / "target"
    refused = pytest.raises(InputError, match="Another process")
    with publishing.claim(target, "chief"), publishing.claim(target, "worker0"):
        for role in ("", "chief"):
            with refused, publishing.claim(target, role):
                pass
    with publishing.claim(target):
        pass
    assert not list(tmp_path.iterdir())


def test_claiming_ends_what_a_death_left(tmp_path):
    target = tmp_path / "target"
    fill(target, OLD)
    fill(publishing.finished(target) / "new", NEW)
    with publishing.claim(target):
        assert content(target) == NEW


def test_what_else_lies_there_is_taken_along(tmp_path):
    fill(tmp_path / "old", OLD | {"notes": "mine"})
    (tmp_path / "old" / "link").symlink_to("nowhere")
    fill(tmp_path / "new", NEW)
    publishing.take_along(tmp_path / "old", tmp_path / "new")
    assert content(tmp_path / "new") == NEW | {"sub/b": "old", "notes": "mine"}
    assert (tmp_path / "new" / "link").is_symlink()


def test_a_full_disk_is_named(tmp_path):
    full = pytest.raises(OSError, match="No space")
    with full as caught, publishing.claim(tmp_path / "target"):
        raise OSError(28, "No space left on device")
    assert caught.value.filename == str(publishing.partial(tmp_path / "target"))


def test_several_processes_may_write_one_file_at_once(tmp_path, monkeypatch):
    file = tmp_path / "search.yaml"
    with publishing.whole(file) as mine:
        mine.write_text("mine")
        monkeypatch.setattr(publishing.os, "getpid", lambda: -1)
        with publishing.whole(file) as others:
            others.write_text("another's")
        assert file.read_text() == "another's"
    assert file.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [file]
