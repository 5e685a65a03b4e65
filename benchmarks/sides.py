"""A side of a benchmark, in a process of its own: no thread pool meets another's.

The process makes a function, then calls it with what it is told to, and says how long
that took.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from pipelines.quiet import import_tensorflow

Calls = Callable[[int], None]  # makes a number of calls


@contextlib.contextmanager
def side(
    maker: str, variables: Mapping[str, str] | None = None, /, **options
) -> Iterator[Callable[..., float]]:
    """Starts a side, and ends it.

    Args:
        maker: `module:function`, which makes what is timed from the options.
        variables: Of the environment, beside those of this process.
        **options: Plain enough for JSON.

    Yields:
        From the function's arguments to the seconds that it took.

    Raises:
        RuntimeError: If the process ends before its time.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.sides", maker, json.dumps(options)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **(variables or {})},
        text=True,
    )
    assert process.stdin
    assert process.stdout
    asking, answering = process.stdin, process.stdout

    def seconds(*arguments) -> float:
        with contextlib.suppress(BrokenPipeError):
            asking.write(json.dumps(arguments) + "\n")
            asking.flush()
        answer = answering.readline()
        if not answer:
            raise RuntimeError(
                f"{maker} with {options} ended; its last words are above."
            )
        return float(answer)

    try:
        yield seconds
    finally:
        with contextlib.suppress(BrokenPipeError):
            asking.close()
        process.wait()
        answering.close()


def written(maker: str, /, *arguments, **options) -> dict:
    """Starts a side, and reads the JSON that it writes to its first argument, a file.

    Args:
        maker: As in `side`.
        *arguments: Of the call, after the file.
        **options: As in `side`.
    """
    with tempfile.TemporaryDirectory() as folder, side(maker, **options) as called:
        out = Path(folder) / "written.json"
        called(str(out), *arguments)
        return json.loads(out.read_text())


def repeated(function: Callable[[], object]) -> Calls:
    """Makes of a function one that calls it a number of times."""

    def calls(count: int):
        for _ in range(count):
            function()

    return calls


def main(maker: str, options: str):
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints is no answer
    import_tensorflow()  # every side's module imports it
    module, name = maker.split(":")
    function = getattr(importlib.import_module(module), name)(**json.loads(options))
    for line in sys.stdin:
        started = time.perf_counter()
        function(*json.loads(line))
        print(time.perf_counter() - started, file=answers)


if __name__ == "__main__":
    main(*sys.argv[1:])
