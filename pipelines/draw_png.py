"""The comparison's plots as PNG, by matplotlib."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib.colors
import matplotlib.figure
import numpy as np
import PIL.Image
from matplotlib.axes import Axes

from pipelines import plots
from pipelines.comparison import Results, Row, Table
from pipelines.plots import COLOURS, Dots, Heatmap, Lines

STYLES = ("-", "--", ":", "-.")


def save(figure: matplotlib.figure.Figure, path: Path):
    """Writes a figure as PNG: the same figure, the same bytes.

    With 256 colours it takes a third of the bytes, and looks the same.
    """
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=120, format="png")
    image = PIL.Image.open(drawn).convert("RGB")
    few = image.quantize(256, dither=PIL.Image.Dither.NONE)
    few.save(path, "png", optimize=True, dpi=(120, 120))


def save_all(table: Table, results: Results, folder: Path, prefix: str):
    """Writes the plots of a table, of a dozen rows at most."""
    rows = plots.drawn(table.rows)
    runs = list(dict.fromkeys(row.run for row in rows))
    drawn = {
        "test_accuracy": dots(plots.accuracy(rows)),
        "reliability": reliability(rows),
    }
    for name in plots.logged(table.runs[run] for run in runs):
        drawn[name] = curves(plots.curves(table, runs, name))
    if plots.temperatures(table):
        drawn["by_temperature"] = by_temperature(table)
    for row in table.rows:
        if not row.samples and (plots.has_matrix(table) or table.superclasses):
            name = row.id.replace("/", "-")
            drawn[f"confusion-{name}"] = confusion(row, table, results)
    for name, figure in drawn.items():
        save(figure, folder / f"{prefix}-{name}.png")


def plain(text: str) -> str:
    """Text without formulas, which matplotlib would read between dollar signs."""
    return text.replace("$", r"\$")


def dots(plot: Dots) -> matplotlib.figure.Figure:
    """Accuracies in per cent, a name a line."""
    size = (9, 1 + 0.22 * len(plot.series))
    figure = matplotlib.figure.Figure(size, layout="constrained")
    axes = figure.subplots()

    def percents(part):
        return [100 * getattr(series, part)[0] for series in plot.series]

    axes.errorbar(
        percents("x"),
        [plain(series.name) for series in plot.series],
        xerr=[percents("below"), percents("above")],
        fmt="o",
        ms=4,
        color=COLOURS[0],
    )
    axes.set(xlabel=f"{plot.x} (%), with its 95 % interval", xlim=(0, None))
    axes.set_ylim(-0.7, len(plot.series) - 0.3)
    axes.grid(axis="x", alpha=0.3)
    return figure


def draw_lines(plot: Lines, axes: Axes):
    """Draws lines into axes, with what the axes show."""
    if plot.unit:
        axes.plot([0, 1], [0, 1], ":", color=COLOURS[7])
        axes.set(xlim=(0, 1), ylim=(0, 1))
    colours = (COLOURS[3], COLOURS[0]) if plot.unit else COLOURS
    for i, series in enumerate(plot.series):
        x = [plot.names.index(name) for name in series.x] if plot.names else series.x
        style = {
            "label": plain(series.name),
            "color": colours[i % len(colours)],
            "linestyle": STYLES[i // len(colours) % len(STYLES)],
            "marker": "o",
            "markersize": 3,
        }
        if series.below:
            axes.errorbar(x, series.y, yerr=[series.below, series.above], **style)
        else:
            axes.plot(x, series.y, **style)
    if plot.names:
        axes.set_xticks(range(len(plot.names)), plot.names, rotation=45, ha="right")
    axes.set(xlabel=plot.x, ylabel=plot.y)


def curves(plot: Lines) -> matplotlib.figure.Figure:
    size = (10, max(5, 0.4 + 0.2 * len(plot.series)))  # a line of the legend for each
    figure = matplotlib.figure.Figure(size, layout="constrained")
    axes = figure.subplots()
    draw_lines(plot, axes)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize="small", frameon=False)
    return figure


def by_temperature(table: Table) -> matplotlib.figure.Figure:
    shown = ("test accuracy", "NLL", "ECE")
    figure = matplotlib.figure.Figure((14, 5.5), layout="constrained")
    panels = figure.subplots(1, len(shown))
    for axes, words in zip(panels, shown, strict=True):
        draw_lines(plots.by_temperature(table, words), axes)
        if words == "NLL":  # a wrong loss costs ten times the right one's
            axes.set_yscale("log")
        axes.grid(alpha=0.3)
    figure.legend(
        *panels[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=4,
        frameon=False,
        fontsize="small",
    )
    return figure


def reliability(rows: Sequence[Row]) -> matplotlib.figure.Figure:
    columns = min(4, len(rows))
    lines = -(-len(rows) // columns)
    size = (0.3 + 3 * columns, 0.3 + 3.2 * lines)
    figure = matplotlib.figure.Figure(size, layout="constrained")
    grid = list(figure.subplots(lines, columns, squeeze=False).flat)
    for row, axes in zip(rows, grid, strict=False):
        draw_lines(plots.reliability(row), axes)
        axes.set_title(plain(row.title), fontsize="small", wrap=True)
        axes.legend(fontsize="xx-small", loc="upper left")
    for axes in grid[len(rows) :]:
        axes.set_axis_off()
    return figure


def confusion(row: Row, table: Table, results: Results) -> matplotlib.figure.Figure:
    matrix = results.confusions[row.id]
    panels = [plots.confusion(matrix, table)] if plots.has_matrix(table) else []
    if table.superclasses:
        panels.append(plots.folded(matrix, table))
    size = (6.5 * len(panels), 6.5)
    figure = matplotlib.figure.Figure(size, layout="constrained")
    grid = figure.subplots(1, len(panels), squeeze=False).flat
    for axes, panel in zip(grid, panels, strict=True):
        draw_heatmap(panel, axes)
    figure.suptitle(plain(row.title))
    return figure


def draw_heatmap(plot: Heatmap, axes: Axes):
    # The colour goes with the square root of the count, or errors would not be seen.
    norm = matplotlib.colors.PowerNorm(0.5, vmin=0)
    image = axes.imshow(np.asarray(plot.matrix), cmap="Blues", norm=norm)
    axes.figure.colorbar(image, ax=axes, shrink=0.7, label="test images")
    axes.set(xlabel="predicted", ylabel="true")
    if len(plot.names) <= 20:
        ticks, names = range(len(plot.names)), list(map(plain, plot.names))
        axes.set_xticks(ticks, names, rotation=90, fontsize="x-small")
        axes.set_yticks(ticks, names, fontsize="x-small")
