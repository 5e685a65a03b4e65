"""How a command ends: its status, and one line for whatever went wrong."""

from __future__ import annotations

import errno
import functools
import io
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from pipelines.errors import InputError, brief, one_line
from pipelines.publishing import named

WAYS_OUT = {
    errno.ENOSPC: "make room there, or choose another place",
    errno.EDQUOT: "make room there, or choose another place",
    errno.EROFS: "choose a place that can be written",
    errno.EACCES: "choose a place that you may use",
    errno.EPERM: "choose a place that you may use",
    errno.ENOTDIR: "move away the file that stands in for a folder",
    errno.EEXIST: "move it away",
    errno.EISDIR: "move it away",
    errno.ENAMETOOLONG: "choose a shorter name",
}
OUTPUT = "standard output"
GRACE = 3  # seconds in which an interrupted command tidies up
LOST = 1  # something failed on the way
REFUSED = 2  # what was asked for cannot be done
INTERRUPTED = 128 + signal.SIGINT
UNREAD = 128 + signal.SIGPIPE  # nobody reads the output any more


def command(main: Callable[[Sequence[str] | None], int | None]) -> Callable:
    """Makes a command of `main`: whatever goes wrong ends in one line and a status."""

    @functools.wraps(main)
    def run(argv: Sequence[str] | None = None) -> NoReturn:
        interrupted = False

        def interrupt(*_):
            nonlocal interrupted
            interrupted = True
            sys.unraisablehook = lambda _: None  # objects that are torn down midway
            # What runs may catch the exception, as C code does that calls Python.
            signal.signal(signal.SIGALRM, lambda *_: os._exit(INTERRUPTED))
            signal.alarm(GRACE)
            raise KeyboardInterrupt

        signal.signal(signal.SIGINT, interrupt)
        status = INTERRUPTED
        try:
            status = _run(main, argv)
        except KeyboardInterrupt:
            pass
        except Exception:  # an interrupt may come out of TensorFlow as another error
            if not interrupted:
                raise
        if interrupted:
            status = INTERRUPTED
            signal.alarm(0)
        # What is left is Python's own tidying up, which would answer in a traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        sys.exit(status)

    return run


def _run(main: Callable, argv: Sequence[str] | None) -> int | None:
    if sys.stdout is None:
        return _say(f"{OUTPUT} is closed; give it a file or /dev/null", LOST)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a path may hold anything
    for method in ("write", "flush"):
        setattr(sys.stdout, method, named(OUTPUT)(getattr(sys.stdout, method)))
    try:
        status = main(argv)
        sys.stdout.flush()
    except BrokenPipeError:
        _forget_output()
        return UNREAD
    except InputError as error:
        return _say(one_line(error), REFUSED)
    except FloatingPointError as error:
        return _say(brief(error, 500), LOST)
    except OSError as error:
        if error.filename == OUTPUT:
            _forget_output()
        return _say(of_system(error), LOST)
    except Exception as error:
        tensorflow = sys.modules.get("tensorflow")
        if tensorflow and isinstance(error, tensorflow.errors.OpError):
            return _say(of_tensorflow(error), LOST)
        raise
    return status


def _say(words: str, status: int) -> int:
    print(f"error: {words}", file=sys.stderr)
    return status


def of_system(error: OSError) -> str:
    """An error of the file system in words: the place, what is wrong, the way out."""
    if error.errno is None or error.filename is None:
        return brief(error, 300)
    words = f"{brief(error.filename, 300)}: {error.strerror}"
    way_out = WAYS_OUT.get(error.errno)
    return f"{words}; {way_out}." if way_out else f"{words}."


def of_tensorflow(error: Exception) -> str:
    """An error of TensorFlow in words, with the way out of one of the file system."""
    words = brief(re.sub(r"{{\w+ .*?}} ", "", str(error)), 500)
    for number, way_out in WAYS_OUT.items():
        if os.strerror(number) in words:
            return f"{words}; {way_out}."
    return words


def _forget_output():
    """Keeps Python from writing what is left once more when it ends."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, sys.stdout.fileno())
    os.close(nothing)
