"""YAML files of what JSON can say too: no anchors, tags or repeated keys."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from pipelines.errors import InputError, brief

MAX_BYTES = 2**15
MAX_DEPTH = 16
MAX_DIGITS = 300  # any number of more is infinite as a float

_TYPES = {f"tag:yaml.org,2002:{name}" for name in ("bool", "float", "int", "null")}


class _Loader(yaml.SafeLoader):
    """Loads strings, numbers, booleans, nulls, lists and mappings."""

    depth = 0

    def compose_node(self, parent, index):
        event: Any = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            return super().compose_node(parent, index)  # undefined: there is no anchor
        if event.anchor or (event.tag or "").startswith("tag:yaml.org"):
            _refuse("anchors (&) and tags (!!) are not read", event)
        if self.depth == MAX_DEPTH:
            _refuse(f"at most {MAX_DEPTH} levels are read", event)
        self.depth += 1
        node: Any = super().compose_node(parent, index)
        self.depth -= 1
        if node.tag in _TYPES and len(node.value) > MAX_DIGITS:
            _refuse(f"no number has {len(node.value)} digits", event)
        return node

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:str":
                _refuse("a key must be a string", key)
            if key.value in seen:
                _refuse(f"the key {key.value} stands there twice", key)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


# To YAML 1.1 dates and merge keys are no strings, and 1e-3 is no number.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag in _TYPES]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def _refuse(problem: str, where):
    raise InputError(f"line {where.start_mark.line + 1}: {brief(problem)}.")


def load(text: str) -> Any:
    """Loads a text.

    Raises:
        yaml.YAMLError: If it is no YAML.
        InputError: If it holds what JSON could not.
    """
    return yaml.load(text, _Loader)


def read(path: Path) -> Any:
    """Reads a file.

    Raises:
        InputError: If it cannot be read.
    """
    try:
        if path.exists() and not path.is_file():
            raise InputError("it is no regular file.")  # a pipe may never end
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"it is larger than {MAX_BYTES:,} bytes.")
        return load(path.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        why = brief(error)
        if isinstance(error, OSError) and error.strerror:
            why = f"{error.strerror}."
        if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
            why = f"line {error.problem_mark.line + 1}: {brief(error.problem)}."
        raise InputError(f"{brief(path)} cannot be read: {why}") from error
