"""Commands in processes of their own, forked from one that has imported TensorFlow.

As a script it reads jobs from standard input and answers how they ended, both as a
line of JSON. `forks` starts it: the process of pytest has run TensorFlow, whose
threads do not survive a fork.
"""

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import NamedTuple

from pipelines.quiet import import_tensorflow

COMMANDS = ("train", "tune", "evaluate", "report", "run", "predict", "export")
WORK = ("training", "tuning", "evaluation", "files", "running", "formats")
WRITES = {
    "os.rename",
    "os.remove",
    "os.mkdir",
    "os.rmdir",
    "os.link",
    "os.truncate",
    "shutil.rmtree",
    "shutil.copytree",
    "shutil.copyfile",
}


class Job(NamedTuple):
    """A command to run, and when it is to die.

    Attributes:
        command: A module of `pipelines`.
        argv: Its arguments.
        at: The number of the change of a file at which it gets the signal, if any.
        after: After how many seconds it gets the signal, if at all.
        signal: The signal.
        delay: Seconds to wait before the command.
    """

    command: str
    argv: list[str]
    at: int | None = None
    after: float | None = None
    signal: int = signal.SIGKILL
    delay: float = 0.0


class Ended(NamedTuple):
    """How a command ended: its status as Python gives it, and how it came there.

    Attributes:
        status: Minus the signal of which it died, if it did.
        out: What it wrote to standard output.
        err: What it wrote to standard error.
        events: How often it changed a file; 0 if it died.
        seconds: How long it took.
    """

    status: int
    out: str
    err: str
    events: int
    seconds: float


@contextlib.contextmanager
def forks():
    """A function that runs jobs at the same time and returns how each ended."""
    with subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    ) as server:
        stdin, stdout = server.stdin, server.stdout
        assert stdin
        assert stdout

        def run(*jobs: Job) -> list[Ended]:
            print(json.dumps(jobs), file=stdin, flush=True)
            return [Ended(*ended) for ended in json.loads(stdout.readline())]

        yield run


def _serve():
    import_tensorflow()
    for name in (*COMMANDS, *WORK):
        importlib.import_module(f"pipelines.{name}")
    for line in sys.stdin:
        print(json.dumps(_together([Job(*job) for job in json.loads(line)])))
        sys.stdout.flush()


def _together(jobs: list[Job]) -> list[Ended]:
    with tempfile.TemporaryDirectory() as folder:
        places = [Path(folder, str(number)) for number in range(len(jobs))]
        started = time.monotonic()
        running = [_start(*pair) for pair in zip(jobs, places, strict=True)]
        for job, pid in zip(jobs, running, strict=True):
            if job.after is not None:
                time.sleep(job.after)
                os.kill(pid, job.signal)
        ended = []
        for place, pid in zip(places, running, strict=True):
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            out, err, events = (
                place.with_suffix(kind).read_text("utf-8", "backslashreplace")
                for kind in (".out", ".err", ".events")
            )
            seconds = time.monotonic() - started
            ended.append(Ended(status, out, err, int(events or 0), seconds))
        return ended


def _start(job: Job, place: Path) -> int:
    """Forks a command. Returns the number of its process."""
    streams = [
        os.open(place.with_suffix(kind), os.O_CREAT | os.O_WRONLY)
        for kind in (".out", ".err", ".events")
    ]
    pid = os.fork()
    if not pid:
        os.dup2(streams[0], 1)
        os.dup2(streams[1], 2)
        status, events = 70, _watch(job)
        try:
            time.sleep(job.delay)
            importlib.import_module(f"pipelines.{job.command}").main(job.argv)
        except SystemExit as exit:
            status = exit.code if isinstance(exit.code, int) else 0
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(streams[2], str(len(events)).encode())
        os._exit(status)
    for stream in streams:
        os.close(stream)
    return pid


def _watch(job: Job) -> list[str]:
    """Kills this process at a change in the folders around those of its arguments."""
    folders = tuple(str(Path(w).parent) for w in job.argv if w.startswith("/"))
    events = []

    def hook(event, args):
        if event == "open":
            _, mode, flags = args
            writes = mode is None or flags & (os.O_WRONLY | os.O_RDWR)
            if not writes:
                return
        elif event not in WRITES:
            return
        path = args[0]
        if isinstance(path, int) or not os.fsdecode(path).startswith(folders):
            return
        if len(events) == job.at:
            os.kill(os.getpid(), job.signal)
        events.append(event)

    sys.addaudithook(hook)
    return events


if __name__ == "__main__":
    _serve()
