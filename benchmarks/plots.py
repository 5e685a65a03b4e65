"""One style for the benchmarks' plots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from benchmarks.runner import by
from pipelines.draw_png import STYLES
from pipelines.plots import COLOURS

GREY = COLOURS[7]


def figure(width: float, height: float, **grid) -> tuple[Figure, Any]:
    """A figure of a size in inches, and its axes: one, or those of a grid."""
    drawn = Figure((width, height), layout="constrained")
    return drawn, drawn.subplots(**grid)


def by_classes(axes, rows: Sequence[dict], name: str, key: str, scale=1.0, **settings):
    """Draws a line for each name in the rows, of a value by the number of classes."""
    for i, (label, points) in enumerate(by(name, rows).items()):
        axes.plot(
            [row["classes"] for row in points],
            [scale * row[key] for row in points],
            color=COLOURS[i % len(COLOURS)],
            linestyle=STYLES[i // len(COLOURS)],
            marker="o",
            markersize=3,
            label=label,
        )
    axes.set(xscale="log", yscale="log", xlabel="classes", **settings)
    axes.grid(alpha=0.3)


def bars(axes, lengths: dict, words: Sequence[str], color: Any = COLOURS[0]):
    """Draws bars from left to right, by name, with words at their ends."""
    drawn = axes.barh(list(lengths), list(lengths.values()), color=color)
    axes.bar_label(drawn, words, padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.12)


def groups(axes, rows: Sequence[dict], group: str, key: str, words: str):
    """Draws a bar for each row, in groups, coloured by `side`.

    Args:
        axes: To draw on.
        rows: What is drawn.
        group: The group of a row, as a format.
        key: Of a row's height.
        words: Above a bar, as a format.
    """
    places = list(dict.fromkeys(group.format_map(row) for row in rows))
    sides = by("side", rows)
    width = 0.8 / len(sides)
    for i, (side, of_side) in enumerate(sides.items()):
        off = width * (i - (len(sides) - 1) / 2)
        at = [places.index(group.format_map(row)) + off for row in of_side]
        heights = [row[key] for row in of_side]
        drawn = axes.bar(at, heights, 0.95 * width, label=side, color=COLOURS[i])
        axes.bar_label(drawn, [*map(words.format_map, of_side)], fontsize="small")
    axes.set_xticks(range(len(places)), places)
    axes.margins(y=0.1)
    axes.legend(fontsize="small")
