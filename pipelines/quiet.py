"""The import of TensorFlow, which takes seconds, and what C++ code writes.

A command puts the import off until its options are read: a wrong one is answered at
once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import BinaryIO


@contextlib.contextmanager
def hushed() -> Iterator[BinaryIO]:
    """Puts what is written to the error output, C++ code's too, into a file."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield kept
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)


@contextlib.contextmanager
def _mortal() -> Iterator[None]:
    """Has Ctrl-C end the process at once: an exception in C++ code would abort it."""
    handler = signal.getsignal(signal.SIGINT)
    main = threading.current_thread() is threading.main_thread()
    if not main or not callable(handler):
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def import_tensorflow() -> None:
    """Imports TensorFlow without the lines that its C++ code greets with.

    They come before TensorFlow reads any setting of its log level, and would bury the
    one line that a command has to say. They are shown if the import fails.
    """
    if "tensorflow" in sys.modules:
        return
    with hushed() as kept, _mortal():
        try:
            import tensorflow as tf

            tf.config.list_physical_devices()
        except Exception as error:
            kept.seek(0)
            error.add_note(kept.read().decode(errors="replace"))
            raise
