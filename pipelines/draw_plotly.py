"""The comparison's plots as Plotly figures, plain data that the page draws.

The page lays its own colours over them, and chooses the rows that they show: `meta`
holds a line's row or run.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pipelines.plots import COLOURS, Bars, Dots, Heatmap, Lines, Series

Figure = dict[str, Any]


def draw(plot: Lines | Dots | Bars | Heatmap) -> Figure:
    """Any plot, as Plotly's `data` and `layout`."""
    match plot:
        case Lines():
            return lines(plot)
        case Dots():
            return dots(plot)
        case Bars():
            return bars(plot)
        case Heatmap():
            return heatmap(plot)


def figure(data: list[dict], **layout) -> Figure:
    margin = {"l": 8, "r": 8, "t": 8, "b": 8}
    return {"data": data, "layout": {"margin": margin, **layout}}


def axis(title: str = "", **options) -> dict:
    return {"title": {"text": title}, "automargin": True, **options}


def rounded(values) -> list[float | None]:
    """Numbers as JSON has them, to six digits: a page need not hold more."""
    return [None if math.isnan(value) else float(f"{value:.6g}") for value in values]


def errors(series: Series) -> dict:
    return {"array": rounded(series.above), "arrayminus": rounded(series.below)}


def dots(plot: Dots) -> Figure:
    data = [
        {
            "type": "scatter",
            "mode": "markers",
            "meta": series.id,
            "x": rounded(series.x),
            "y": [series.name],
            "error_x": {**errors(series), "color": COLOURS[0]},
            "marker": {"size": 9, "color": COLOURS[0]},
            "hovertemplate": "%{y}<br>%{x:.2%}<extra></extra>",
        }
        for series in plot.series
    ]
    ends = [series.x[0] + series.above[0] for series in plot.series]
    return figure(
        data,
        xaxis=axis(plot.x, tickformat="~%", range=[0, 1.05 * max(ends)]),
        yaxis=axis(),
        showlegend=False,
        height=70,  # and a line for each row
    )


def lines(plot: Lines) -> Figure:
    data = []
    if plot.unit:
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": [0, 1],
                "y": [0, 1],
                "name": "perfect",
                "line": {"color": COLOURS[7], "dash": "dot", "width": 1},
                "hoverinfo": "skip",
            }
        )
    colours = (COLOURS[3], COLOURS[0]) if plot.unit else COLOURS
    for i, series in enumerate(plot.series):
        colour = colours[i % len(colours)]
        line = {
            "type": "scatter",
            "mode": "lines+markers",
            "meta": series.id,
            "name": series.name,
            "x": list(series.x) if plot.names else rounded(series.x),
            "y": rounded(series.y),
            "line": {"color": colour, "width": 2},
            "marker": {"size": 5},
            "hovertemplate": "%{fullData.name}<br>%{x}: %{y:.4f}"
            + "<br>%{text}" * bool(series.notes)
            + "<extra></extra>",
        }
        if series.notes:
            line["text"] = list(series.notes)
        if series.below:
            line["error_y"] = {**errors(series), "color": colour}
        data.append(line)
    share = {"range": [0, 1.02]} if plot.unit else {}
    x: dict[str, Any] = dict(share)
    if plot.names:
        x |= {"type": "category", "categoryorder": "array"}
        x["categoryarray"] = list(plot.names)
    elif not plot.unit:
        longest = max((len(series.x) for series in plot.series), default=1)
        x |= {"tick0": 1, "dtick": -(-longest // 8)}
    y = share | ({"tickformat": "~%"} if "accuracy" in plot.y and not share else {})
    return figure(
        data,
        xaxis=axis(plot.x, **x),
        yaxis=axis(plot.y, **y),
        legend={"orientation": "h", "y": -0.2, "yanchor": "top"},
        showlegend=True,
        height=440,
    )


def bars(plot: Bars) -> Figure:
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "x": plot.counts,
            "y": plot.names,
            "marker": {"color": COLOURS[0]},
            "hovertemplate": "%{y}: %{x} images<extra></extra>",
        }
    ]
    return figure(
        data,
        xaxis=axis(plot.x),
        yaxis=axis(showgrid=False),
        showlegend=False,
        height=90 + 24 * len(plot.counts),
    )


def heatmap(plot: Heatmap) -> Figure:
    # The colour goes with the square root of the count, or errors would not be seen.
    steps = np.linspace(0, 1, 9)
    r, g, b = (int(COLOURS[0][i : i + 2], 16) for i in (1, 3, 5))
    scale = [[step**2, f"rgba({r},{g},{b},{step:.3f})"] for step in steps.tolist()]
    labelled = {"showticklabels": len(plot.names) <= 20, "showgrid": False}
    data = [
        {
            "type": "heatmap",
            "z": plot.matrix.tolist(),
            "x": list(plot.names),
            "y": list(plot.names),
            "colorscale": scale,
            "zmin": 0,
            "showscale": False,
            "hovertemplate": "true %{y}<br>predicted %{x}<br>%{z} images"
            "<extra></extra>",
        }
    ]
    square = {"constrain": "domain", **labelled}
    return figure(
        data,
        xaxis=axis("predicted", tickangle=-60, **square),
        yaxis=axis("true", autorange="reversed", scaleanchor="x", **square),
        height=720,
    )
