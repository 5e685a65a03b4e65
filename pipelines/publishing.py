"""Folders that appear whole or not at all, and are written by one process at a time.

A folder `NAME` is made as `.NAME.partial/new`. Once it is whole, `.NAME.partial` is
renamed to `.NAME.finished`. From then on nothing can be lost: `new` takes its place,
what stood there goes to `.NAME.finished/old`, and the rest is deleted. Where a kill
stops that, the next process that claims the folder ends it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from pipelines.errors import InputError


def partial(target: Path) -> Path:
    """Where a folder is made: its content is `new` in there."""
    return _beside(target, "partial")


def finished(target: Path) -> Path:
    """What is whole, and may not have its place yet."""
    return _beside(target, "finished")


def _beside(target: Path, kind: str) -> Path:
    return target.with_name(f".{target.name}.{kind}")


@contextlib.contextmanager
def claim(target: Path, role: str = "") -> Iterator[None]:
    """Makes this the only process that writes a folder, until it ends or dies.

    Args:
        target: The folder.
        role: Of several processes that write it together, the name of this one.

    Raises:
        InputError: If another process writes it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        for path, shared in (
            (_beside(target, "lock"), bool(role)),
            *([(_beside(target, f"{role}.lock"), False)] if role else []),
        ):
            if not stack.enter_context(_locked(path, shared)):
                raise InputError(
                    f"Another process is writing {target}; wait until it has ended."
                )
        settle(target)
        with named(str(partial(target))):
            yield


@contextlib.contextmanager
def named(place: str) -> Iterator[None]:
    """Names a place in errors of the system that name none, as of a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = place
        raise


def tidy(target: Path) -> bool:
    """Ends what a kill left of a folder.

    Returns:
        Whether the folder was whole, and only had to be put into its place.

    Raises:
        InputError: If another process writes it.
    """
    whole = (finished(target) / "new").exists()
    if finished(target).exists() or _beside(target, "lock").exists():
        with claim(target):
            return whole
    return False


def is_claimed(target: Path) -> bool:
    """Whether a process writes a folder now."""
    path = _beside(target, "lock")
    if not path.exists():
        return False
    with _locked(path, shared=False) as held:
        return not held


@contextlib.contextmanager
def _locked(path: Path, shared: bool) -> Iterator[bool]:
    """Holds a lock file, and tells whether it could be had."""
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    while True:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            yield False
            return
        if _is_at(descriptor, path):
            break
        os.close(descriptor)  # its last holder deleted it after it was opened here
    try:
        yield True
    finally:
        with contextlib.suppress(BlockingIOError):  # others share it
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def whole(file: Path) -> Iterator[Path]:
    """Gives another name to write a file under, which is renamed once it is whole.

    The name is the process's own: several may write the same file at once.
    """
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    yield partial
    partial.replace(file)


def start(target: Path) -> Path:
    """Empties the place where a folder is made. Returns where its content goes."""
    shutil.rmtree(partial(target), ignore_errors=True)
    new = partial(target) / "new"
    new.mkdir(parents=True)
    return new


def publish(target: Path):
    """Puts a folder that is whole into its place."""
    partial(target).rename(finished(target))
    settle(target)


def settle(target: Path):
    """Ends the publishing of a folder that was stopped halfway, if there is one."""
    done = finished(target)
    if (done / "new").exists():
        if target.exists():
            target.rename(done / "old")
        (done / "new").rename(target)
    if done.exists():
        shutil.rmtree(done)


def take_along(source: Path, new: Path):
    """Gives a new folder what else lies in the old one, without copying files."""
    if source.exists():
        known = [entry.name for entry in new.iterdir()]
        shutil.copytree(
            source,
            new,
            symlinks=True,
            ignore=lambda folder, _: known if Path(folder) == source else [],
            copy_function=_link,
            dirs_exist_ok=True,
        )


def _link(source, target):
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
