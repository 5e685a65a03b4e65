"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence


def table(
    rows: Iterable[Mapping[str, object]], *words: str, names: Sequence[str] = ()
) -> str:
    """A table in Markdown.

    Args:
        rows: Of each, the cells by column.
        *words: The columns of words, set to the left, if not the first column alone;
            numbers are set to the right.
        names: What the columns are called, if not by their keys.
    """
    rows = list(rows)
    keys = list(rows[0])
    rule = "|".join("---" if key in (words or keys[:1]) else "---:" for key in keys)
    header, *cells = (
        f"| {' | '.join(map(str, line))} |"
        for line in [names or keys, *(row.values() for row in rows)]
    )
    return "\n".join([header.replace("|  |", "| |"), f"|{rule}|", *cells])
