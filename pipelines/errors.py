"""What is said when the user's input, or a package, cannot be used."""

import importlib
from typing import Any


class InputError(ValueError):
    """What the user gave cannot be used. The message says what, and the way out."""


def one_line(what: object) -> str:
    """Another library's error, or anything else, in words on one line."""
    return " ".join(str(what).split())


def brief(what: object, most: int = 120) -> str:
    """Anything in printable words on one line, without its middle where it is long."""
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in one_line(what))
    if len(text) <= most:
        return text
    return f"{text[: most // 2]} ... {text[-(most // 2) :]}"


def package(name: str, extra: str) -> Any:
    """Imports a package that only some need.

    Args:
        name: Its name, or a module's of it.
        extra: The extra of this project that installs it.

    Raises:
        InputError: If it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            f"{name.partition('.')[0]} is not installed; `pip install -e '.[{extra}]'` "
            "installs it."
        ) from error
