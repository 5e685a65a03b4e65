"""JSON files that are read back as the frozen dataclasses they were written from."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any, TypeVar, dataclass_transform

import pydantic

from pipelines import publishing
from pipelines.errors import brief

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def record(cls: type[T]) -> type[T]:
    """A frozen dataclass that a file may hold: no unknown field, no wrong type."""
    options = pydantic.ConfigDict(extra="forbid", strict=True)
    cls.__pydantic_config__ = options  # pyright: ignore[reportAttributeAccessIssue]
    return dataclasses.dataclass(frozen=True)(cls)


_adapter = functools.cache(pydantic.TypeAdapter)


def parse(kind: type[T], text: str | bytes) -> T:
    """Reads a value of a dataclass from JSON.

    Raises:
        ValueError: What is wrong, and where, on one line.
    """
    try:
        return _adapter(kind).validate_json(text)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = brief(".".join(map(str, first["loc"])))
        words = first["msg"].removeprefix("Value error, ")
        raise ValueError(f"{where}: {words}" if where else words) from error


def write(path: Path, value: Any, indent: int | None = 1):
    """Writes a dataclass or plain data as JSON, whole or not at all.

    Without `indent`, on one line, which is a third smaller.
    """
    plain = value if isinstance(value, dict) else dataclasses.asdict(value)
    separators = (",", ":") if indent is None else None
    text = json.dumps(plain, indent=indent, separators=separators, ensure_ascii=False)
    write_text(path, text + "\n")


def write_text(path: Path, text: str):
    """Writes a file whole or not at all: under another name, which is then renamed."""
    with publishing.whole(path) as partial:
        partial.write_text(text, "utf-8")
