"""A laboratory for output heads, on TensorFlow.

Each command is a module of its name, with the options; another does the work.
"""

import os
import signal
import sys

if sys.argv[:1] == ["-m"]:
    # A command is being started: Ctrl-C ends it at once, without a traceback, until
    # it can tidy up.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

os.environ["KERAS_BACKEND"] = "tensorflow"
# TensorFlow turns oneDNN's kernels on by itself where the processor has AVX-512, and
# leaves them off elsewhere, where they train ResNet-12 twice as fast. It reads this
# once, when it is imported.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


if sys.stderr is None:  # it is closed: the next file opened would take its place
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
