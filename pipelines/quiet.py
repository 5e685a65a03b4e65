"""The import of TensorFlow, which takes seconds and writes to the error output.

A command puts it off until its options are read: a wrong one is answered at once.
"""

from __future__ import annotations

import os
import sys
import tempfile


def import_tensorflow() -> None:
    """Imports TensorFlow without the lines that its C++ code greets with.

    They come before TensorFlow reads any setting of its log level, and would bury the
    one line that a command has to say. They are shown if the import fails.
    """
    if "tensorflow" in sys.modules:
        return
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as greeting:
        os.dup2(greeting.fileno(), 2)
        try:
            import tensorflow as tf

            tf.config.list_physical_devices()
        except Exception:
            greeting.seek(0)
            os.write(stderr, greeting.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
