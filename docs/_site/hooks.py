"""What MkDocs calls to gather the pages of the site.

They are README, the documents, the results, the tutorials with what they print, the
gallery of heads, and a page for each public module. A page keeps its path in the
repository.
"""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from pipelines import quiet  # noqa: E402

quiet.import_tensorflow()

import gallery  # noqa: E402
import notebooks  # noqa: E402

TUTORIALS = "tutorials/README.md"
# Where a page links to a script; on the site it has a page, with what it prints.
TUTORIAL = re.compile(r"(\(\S*tutorials/\w+)\.py\)")
PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", TUTORIALS)
FOLDERS = ("docs", "results")
CODE = ("benchmarks", "examples", "experiments", "kerasoft", "tests")
SHOWN = {".json", ".md", ".png", ".svg"}
MODULES = (
    "kerasoft",
    "kerasoft.heads",
    "kerasoft.losses",
    "kerasoft.output_layers",
    "kerasoft.schedules",
    "kerasoft.callbacks",
    "kerasoft.optimizers",
    "kerasoft.backbones",
    "kerasoft.ops",
)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fills the parts of the navigation that a folder or a module lists."""
    for section in config.nav or []:
        if "Tutorials" in section:
            pages = [page_of(path) for path in notebooks.scripts()]
            section["Tutorials"] = [TUTORIALS, *pages]
        if "API" in section:
            section["API"] = [{name: reference(name)} for name in MODULES]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the repository's own files, and the pages that are made."""
    paths = [ROOT / name for name in PAGES]
    for folder in FOLDERS:
        paths += sorted(p for p in (ROOT / folder).rglob("*") if p.suffix in SHOWN)
    for folder in CODE:  # which documents link to
        paths += sorted((ROOT / folder).rglob("*.py"))
    paths += sorted((ROOT / "experiments").glob("*.yaml"))
    for path in paths:
        if Path(config.docs_dir) not in path.parents:
            add(files, config, path.relative_to(ROOT), path)
    for path in notebooks.scripts():
        folder = notebooks.executed(path)
        add(files, config, Path(page_of(path)), folder / notebooks.PAGE)
        for picture in sorted(folder.glob("*.png")):
            add(files, config, Path("tutorials", picture.name), picture)
    for name, text in gallery.pictures().items():
        add(files, config, Path("docs", name), text)
    for name in MODULES:
        add(files, config, Path(reference(name)), members(name))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Adds the heads to the page that introduces them; orders what a search finds."""
    if page.file.src_uri == "docs/gallery.md":
        markdown += "\n" + gallery.sections()
    if page.file.src_uri == TUTORIALS:
        markdown = re.sub(r"\((\w+)\.py\)", r"(\1.md)", markdown)
    markdown = TUTORIAL.sub(r"\1.md)", markdown)
    if page.file.src_uri.startswith("results/"):  # tables of numbers
        page.meta["search"] = {"exclude": True}
    if page.file.src_uri.startswith("reference/"):
        page.meta["search"] = {"boost": 3}
    return markdown


def add(files: Files, config: MkDocsConfig, path: Path, source: Path | str) -> None:
    """Adds a file of the repository, or a text, under a path."""
    where = path.as_posix()
    if isinstance(source, Path):
        files.append(File.generated(config, where, abs_src_path=str(source)))
    else:
        files.append(File.generated(config, where, content=source))


def page_of(script: Path) -> str:
    return f"tutorials/{script.stem}.md"


def reference(module: str) -> str:
    return f"reference/{module}.md"


def members(name: str) -> str:
    """The page of a module: what it is for, then each of its public names."""
    parts = [f"# {name}", importlib.import_module(name).__doc__ or ""]
    parts += [f"::: {name}.{public}" for public in public_names(name)]
    return "\n\n".join(parts) + "\n"


def public_names(name: str) -> list[str]:
    """The public names of a module that have no pages of their own."""
    module = importlib.import_module(name)
    names = getattr(module, "__all__", None) or [
        public
        for public, what in vars(module).items()
        if getattr(what, "__module__", None) == name and not public.startswith("_")
    ]
    return [public for public in names if f"{name}.{public}" not in MODULES]
