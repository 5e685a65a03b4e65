"""What every benchmark shares: how time is taken, and how a result is published."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import json
import os
import platform
import shlex
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import jsonargparse
import matplotlib.figure
import numpy as np

from benchmarks.sides import side
from pipelines import datasets
from pipelines.provenance import provenance
from pipelines.run import all_cores

Name = TypeVar("Name")
IMAGES = 50_000  # as many as CIFAR-100 has to train on
ROUND_SECONDS = 0.02  # calls are repeated until a measurement takes as long


def parser(
    name: str, description: str, rounds: int | None
) -> jsonargparse.ArgumentParser:
    """A parser of what every benchmark takes; `rounds` where it repeats itself."""
    made = jsonargparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=description,
        exit_on_error=False,
    )
    if rounds:
        made.add_argument(
            "--rounds", type=int, default=rounds, help="Measurements of each."
        )
    made.add_argument("--out", type=Path, default="results/benchmarks")
    return made


def begun(parser: jsonargparse.ArgumentParser, given: jsonargparse.Namespace) -> dict:
    """What a result begins with: its command, with options, and the idle machine."""
    options = {k: v for k, v in given.as_dict().items() if k != "out"}
    plain = {k: str(v) if isinstance(v, Path) else v for k, v in options.items()}
    words = {k: v if isinstance(v, str) else json.dumps(v) for k, v in plain.items()}
    usual = parser.get_defaults()
    told = [
        f"--{name} {shlex.quote(words[name])}"
        for name, value in options.items()
        if value != usual[name]
    ]
    return {"made_by": " ".join([parser.prog, *told]), "machine": machine(), **plain}


def in_turn(
    functions: Mapping[Name, Callable[[], object]], rounds: int
) -> dict[Name, list[float]]:
    """Times functions in turn, so that a slow moment of the machine meets them all.

    Args:
        functions: What to time, by name. Each returns when its work is done.
        rounds: How often to go through them all.

    Returns:
        Seconds per call, one number a round, by name.
    """
    calls = {}
    for name, function in functions.items():
        function()  # the first call compiles
        started = time.perf_counter()
        function()
        taken = time.perf_counter() - started
        calls[name] = max(1, round(ROUND_SECONDS / taken))
    times: dict[Name, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            started = time.perf_counter()
            for _ in range(calls[name]):
                function()
            times[name].append((time.perf_counter() - started) / calls[name])
    return times


def sides_in_turn(
    sides: Mapping[str, tuple[str, dict, int]],
    rounds: int,
    variables: Mapping[str, Mapping[str, str]] | None = None,
) -> dict[str, list[float]]:
    """Starts sides, times a call of each in turn, and ends them.

    Args:
        sides: By name, a side's maker, the maker's options, and what to call it with.
        rounds: How often to go through them all.
        variables: By name, those of the environment that a side has of its own.

    Returns:
        Seconds per call, one number a round, by name.
    """
    with contextlib.ExitStack() as stack:
        calls = {}
        for name, (maker, options, count) in sides.items():
            started = side(maker, (variables or {}).get(name), **options)
            calls[name] = functools.partial(stack.enter_context(started), count)
        return in_turn(calls, rounds)


def pixels(count: int) -> datasets.Split:
    """Random images of CIFAR-100's size, with labels."""
    draws = np.random.default_rng(count)
    images = draws.integers(0, 256, (count, 32, 32, 3), dtype="uint8")
    return datasets.Split(images, draws.integers(0, 100, count).astype("int32"))


def ratio(times: list[float], reference: list[float]) -> float:
    """The median over rounds of a time's ratio to that of a reference."""
    pairs = zip(times, reference, strict=True)
    return statistics.median(one / other for one, other in pairs)


def machine() -> dict:
    """The machine and the versions that times belong to."""
    made = provenance()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":")[1].strip() for line in lines if "model name" in line]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": len(all_cores()),
        "load_before": round(os.getloadavg()[0], 2),
        "versions": made["versions"] | _installed("torch", "onnxruntime"),
        "commit": made["commit"],
        "device": made["device"],
    }


def _installed(*packages: str) -> dict[str, str]:
    found = {}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def publish(
    folder: Path, name: str, result: dict, markdown: str, plot: matplotlib.figure.Figure
):
    """Writes a result as JSON, Markdown and plot, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    writers = {
        "json": lambda path: path.write_text(json.dumps(result, indent=1) + "\n"),
        "md": lambda path: path.write_text(markdown, "utf-8"),
        "png": lambda path: plot.savefig(
            path, dpi=120, format="png", metadata={"Software": None}
        ),
    }
    for suffix, write in writers.items():
        partial = folder / f".{name}.{suffix}.partial"
        write(partial)
        partial.replace(folder / f"{name}.{suffix}")
    print(f"next: read {folder / name}.md")


def described(machine: dict) -> str:
    """The machine in a line of Markdown."""
    versions = ", ".join(f"{k} {v}" for k, v in machine["versions"].items())
    return (
        f"{machine['cores']} cores of {machine['processor']}; {versions}; commit "
        f"{machine['commit']}; load before the first measurement "
        f"{machine['load_before']}"
    )
