"""Shows the examples of docstrings as code: an extension of Griffe, their reader."""

import re
import textwrap
from typing import Any

import griffe

# From the first prompt to an empty line; a docstring has no fence of its own there.
EXAMPLE = re.compile(r"^( *)>>> .*\n?(?:.*\S.*\n?)*", re.MULTILINE)
HEADING = re.compile(r"^(Formula|Example):$", re.MULTILINE)
INDENTED = re.compile(r"^Reference:\n((?:    .*\n?)+)", re.MULTILINE)


class Examples(griffe.Extension):
    """Fences the runnable examples, and sets the headings that Griffe does not know."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring:
            text = EXAMPLE.sub(_fenced, obj.docstring.value)
            text = HEADING.sub(r"**\1:**\n", text)
            text = INDENTED.sub(lambda found: _after("Reference", found[1]), text)
            obj.docstring.value = text.replace(
                "\nCall arguments:\n", "\nArgs: Call arguments:\n"
            )


def _fenced(found: re.Match[str]) -> str:
    indent, text = found[1], found[0].rstrip("\n")
    return f"{indent}```pycon\n{text}\n{indent}```\n"


def _after(title: str, text: str) -> str:
    return f"**{title}:** {textwrap.dedent(text)}\n"
