"""Arrays that are made once, and from then on read from disk as they are needed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from pipelines.errors import brief

CHECKSUMS = "checksums.json"


def folder() -> Path:
    """Where data that is made here is kept."""
    if cache := os.environ.get("XDG_CACHE_HOME"):
        return Path(cache) / "kerasoft"
    try:
        return Path.home() / ".cache" / "kerasoft"
    except RuntimeError:  # a user without a home, as in some containers
        return Path(tempfile.gettempdir()) / "kerasoft"


def arrays(
    key: str, make: Callable[[], Mapping[str, np.ndarray]]
) -> Mapping[str, np.ndarray]:
    """The arrays of a key: kept ones, or those that are made now, and kept.

    Kept arrays are mapped into memory, and checked against their SHA-256. Where nothing
    can be kept, they are made each time.

    Args:
        key: A name for a folder, which says all that the arrays depend on.
        make: From nothing to the arrays, by name.
    """
    place = folder() / "arrays" / key
    with contextlib.suppress(OSError, ValueError, EOFError):
        return _read(place)
    made = make()
    try:
        _write(made, place)
    except OSError as error:
        print(f"not kept in {folder()}: {brief(error)}", file=sys.stderr)
    return made


def _read(place: Path) -> dict[str, np.ndarray]:
    checksums = json.loads((place / CHECKSUMS).read_text("utf-8"))
    found = {name: np.load(place / f"{name}.npy", mmap_mode="r") for name in checksums}
    if {name: _checksum(array) for name, array in found.items()} != checksums:
        raise ValueError("damaged")
    return found


def _write(made: Mapping[str, np.ndarray], place: Path):
    partial = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        for name, array in made.items():
            np.save(partial / f"{name}.npy", array)
        checksums = {name: _checksum(array) for name, array in made.items()}
        (partial / CHECKSUMS).write_text(json.dumps(checksums), "utf-8")
        shutil.rmtree(place, ignore_errors=True)  # what is damaged
        try:
            partial.rename(place)
        except OSError:
            if not place.is_dir():  # else another process was faster
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _checksum(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
