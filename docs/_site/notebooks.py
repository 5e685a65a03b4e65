"""Runs the tutorials, and makes a page of each, with what it prints and draws.

A tutorial is a script of cells, in the percent format of Jupytext. It runs as a
notebook in an empty folder. Its page is kept under build/tutorials until the tutorial,
the code that it uses or the installed backends change.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import jupytext
from nbclient import NotebookClient
from nbconvert import MarkdownExporter

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "build" / "tutorials"
PAGE, SECONDS = "page.md", "seconds.txt"  # what it shows, and how long it took


def scripts() -> list[Path]:
    return sorted((ROOT / "tutorials").glob("*.py"))


def executed(script: Path) -> Path:
    """The folder with a tutorial's page and pictures, after it has run."""
    folder = KEPT / f"{script.stem}-{_code(script)}"
    if folder.is_dir():
        return folder
    notebook = jupytext.read(script)
    paths = (str(ROOT), os.environ.get("PYTHONPATH"))
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_ENABLE_ONEDNN_OPTS": "1",
    }
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as empty:
        NotebookClient(
            notebook,
            timeout=None,
            kernel_name="python3",
            resources={"metadata": {"path": empty}},
        ).execute(env=environment)
    seconds = time.monotonic() - started
    for cell in notebook.cells:
        outputs = cell.get("outputs", [])
        for output in outputs:
            if output.get("name") == "stderr" and "Warning" in output["text"]:
                raise RuntimeError(f"{script.name} warns: {output['text']}")
        cell["outputs"] = [one for one in outputs if one.get("name") != "stderr"]
    text, resources = MarkdownExporter().from_notebook_node(
        notebook, {"unique_key": script.stem}
    )
    for old in KEPT.glob(f"{script.stem}-*"):
        shutil.rmtree(old)
    KEPT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=KEPT) as part:
        for name, data in resources["outputs"].items():
            Path(part, name).write_bytes(data)
        footer = f"*This page is the output of `tutorials/{script.name}`.*"
        Path(part, PAGE).write_text(f"{text}\n{footer}\n", "utf-8")
        Path(part, SECONDS).write_text(f"{seconds:.1f}\n")
        Path(part).rename(folder)  # whole or not at all
        Path(part).mkdir()  # for the temporary folder to remove
    return folder


def _code(script: Path) -> str:
    """A short hash of a tutorial, of the code that it may use, and of the backends."""
    digest = hashlib.sha256(script.read_bytes())
    backends = ("tensorflow", "jax", "torch")
    digest.update(repr([find_spec(name) is not None for name in backends]).encode())
    for folder in ("kerasoft", "pipelines"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
