"""The extra `bench`: without it a benchmark's test is skipped, and in CI fails."""

import importlib
import os

import pytest


def needed(package: str):
    """The package of that name, of the extra `bench`."""
    if "KERASOFT_REQUIRE_BENCH" in os.environ:
        return importlib.import_module(package)
    return pytest.importorskip(package, reason="it comes with the extra `bench`")
