"""How commands end: one line and a status, whatever goes wrong."""

import os
import signal
import subprocess
import sys
import time

import pytest
import tensorflow as tf

from pipelines.commands import command
from pipelines.errors import InputError


def ended(error, capsys):
    """The status and the lines of a command that meets an error."""

    def main(argv):
        raise error

    with pytest.raises(SystemExit) as exit:
        command(main)([])
    printed = capsys.readouterr()
    assert not printed.out
    return exit.value.code, printed.err.splitlines()


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (InputError("width must be\nat least 1"), 2, "width must be at least 1"),
        (OSError(28, "No space left", "/a/b"), 1, "/a/b: No space left; make room"),
        (OSError(30, "Read-only file system", "/a"), 1, "that can be written"),
        (PermissionError(13, "Permission denied", "/a"), 1, "/a: Permission denied"),
        (NotADirectoryError(20, "Not a directory", "/a\nb"), 1, "move away the file"),
        (OSError("as it is"), 1, "as it is"),
        (FloatingPointError("not finite"), 1, "not finite"),
        (tf.errors.ResourceExhaustedError(None, None, "no room\nhere"), 1, "no room "),
        (
            tf.errors.UnknownError(
                None, None, "{{node a_/b:0}} /a/b; No space left on device"
            ),
            1,
            "error: /a/b; No space left on device; make room there",
        ),
        (BrokenPipeError(32, "Broken pipe"), 141, None),
        (KeyboardInterrupt(), 130, None),
    ],
)
def test_what_goes_wrong_is_said_in_one_line(error, status, says, capsys, monkeypatch):
    monkeypatch.setattr("pipelines.commands._forget_output", lambda: None)
    found, lines = ended(error, capsys)
    assert found == status
    if says is None:
        assert not lines
    else:
        (line,) = lines
        assert line.startswith("error: ")
        assert says in line


def test_a_fault_of_ours_is_not_hidden():
    def main(argv):
        raise KeyError("a fault")

    with pytest.raises(KeyError, match="a fault"):
        command(main)([])


MAIN = """
from pipelines.commands import command
from pipelines.publishing import named

@command
def main(argv):
    with named("a folder"):
        print("progress", flush={flush})
    print("an answer with \\u2028 and \\u00e9")
    if {error}:
        raise OSError(2, "No such file", "caf\\u00e9")
    return 0

main([])
"""


def test_streams_that_cannot_be_written():
    """Broken, full, closed and ASCII streams, each in a shell as users meet it."""
    python = f"exec {sys.executable} -c '{MAIN.format(error=False, flush=False)}'"
    flushing = f"exec {sys.executable} -c '{MAIN.format(error=False, flush=True)}'"
    failing = f"exec {sys.executable} -c '{MAIN.format(error=True, flush=False)}'"
    shells = {
        "broken": f"({python}) | true; exit ${{PIPESTATUS[0]}}",
        "full": f"({python}) > /dev/full",
        "full in a folder": f"({flushing}) > /dev/full",
        "closed": f"({python}) >&-",
        "no stderr": f"({python}) 2>&-",
        "no stderr, tune": f"exec {sys.executable} -m pipelines.tune --help 2>&-",
        "no stderr, a head": f"exec {sys.executable} -m pipelines.train "
        "--head softmx 2>&-",
        "no stderr, an error": f"({failing}) 2>&-",
        "ascii": f"export PYTHONIOENCODING=ascii; ({failing})",
    }
    running = {
        name: subprocess.Popen(
            ["bash", "-c", shell],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name, shell in shells.items()
    }
    results = {}
    for name, process in running.items():
        out, err = process.communicate(timeout=400)
        results[name] = (process.returncode, out, err)
    for _, _, err in results.values():
        assert "Traceback" not in err, err
        assert len(err.splitlines()) <= 1
    assert results["broken"][0] in (0, 141)  # 0 where it was faster than `true`
    assert results["broken"][2] == ""
    for name in ("full", "full in a folder"):
        assert results[name][0] == 1
        assert "standard output: No space left on device" in results[name][2]
    assert results["closed"][0] == 1
    assert "standard output is closed" in results["closed"][2]
    assert results["no stderr"][0] == results["no stderr, tune"][0] == 0
    assert results["no stderr, a head"][0] == 2
    assert "an answer" in results["no stderr"][1]
    assert results["no stderr, an error"][0] == 1
    assert results["ascii"][0] == 1
    assert r"error: caf\xe9: No such file" in results["ascii"][2]


WRONG = """
import importlib, sys

for name in ("train", "evaluate", "predict", "export", "report", "run", "tune"):
    main = importlib.import_module(f"pipelines.{name}").main
    asked = [["--no-such-flag"], ["--help"]]
    if name in ("train", "tune"):
        asked += [["--epochs", "0"], ["--epochs", "many"]]
    if name == "tune":
        asked += [["--trials", "0"]]
    for argv in asked:
        try:
            main(argv)
        except SystemExit as ended:
            print(name, *argv, ended.code, file=sys.stderr)
print("slow:", {"tensorflow", "keras", "matplotlib"} & sys.modules.keys())
"""


def test_what_options_alone_can_tell_is_told_without_tensorflow():
    done = subprocess.run(
        [sys.executable, "-c", WRONG], capture_output=True, text=True, check=True
    )
    assert "usage: python -m pipelines.train" in done.stdout
    assert done.stdout.splitlines()[-1] == "slow: set()"
    answers = done.stderr.splitlines()
    assert answers[:2] == [
        "error: There is no option no-such-flag; --help lists those there are.",
        "train --no-such-flag 2",
    ]
    assert answers.count("error: epochs must be at least 1. Received: 0") == 2
    ends = [line.split() for line in answers if not line.startswith("error:")]
    assert len(ends) == 19
    assert all(end[-1] == ("0" if "--help" in end else "2") for end in ends)


INTERRUPTED = """
import os, signal, time
from pipelines import commands

commands.GRACE = 1

class Torn:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)

@commands.command
def main(argv):
    if argv == ["dies"]:
        Torn()  # whose interrupt Python ignores, with a traceback
        time.sleep(60)
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)
    except KeyboardInterrupt:
        if argv == ["hides"]:
            time.sleep(60)
        if argv == ["changes"]:
            raise SystemError("bad argument to internal function")
        if argv == ["tells"]:
            raise OSError(28, "No space left on device", "a file")
        raise

main([{argv!r}])
"""


@pytest.mark.parametrize("argv", ["raises", "dies", "hides", "changes", "tells"])
def test_an_interrupt_ends_a_command_whatever_becomes_of_it(argv):
    ended = subprocess.run(
        [sys.executable, "-c", INTERRUPTED.format(argv=argv)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert ended.returncode == 130
    assert "Traceback" not in ended.stderr
    assert len(ended.stderr.splitlines()) == (argv == "tells")


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.3, 1.0, 2.0, 3.5])
def test_ctrl_c_while_a_command_starts_is_not_answered(seconds):
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.train", "--epochs", "1000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "XDG_CACHE_HOME": "/nonexistent"},
    )
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode in (130, -signal.SIGINT)
    # On a fast machine it has said already where its data set is.
    assert all(line.startswith("*** DATA SET") for line in err.splitlines())
