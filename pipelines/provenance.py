"""Where a number comes from: versions, commit and machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import tensorflow as tf

import kerasoft


def provenance() -> dict:
    """What a number depends on beside the config: versions, commit, machine."""
    packages = ("keras", "tensorflow", "tensorflow-datasets", "numpy")
    try:
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = None
    gpus = tf.config.list_physical_devices("GPU")
    return {
        "versions": {
            "kerasoft": kerasoft.__version__,
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in packages},
        },
        "commit": commit,
        "device": {
            "kind": "GPU" if gpus else "CPU",
            "name": (
                tf.config.experimental.get_device_details(gpus[0]).get("device_name")
                if gpus
                else platform.processor() or platform.machine()
            ),
            "cores": len(all_cores()),
        },
    }


def all_cores() -> list[int]:
    """The processor's cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
