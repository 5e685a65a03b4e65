"""The comparison's plots: Plotly figures for the page, and the same as PNG."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.colors
import matplotlib.figure
import numpy as np
import plotly.graph_objects as go

from kerasoft.heads import HEADS, takes
from pipelines import metrics
from pipelines.tables import INTERVALS

# Okabe and Ito's colours, those that stand out on white and on black.
COLOURS = ("#3b8fd9", "#e69f00", "#12a883", "#d55e00", "#cc79a7", "#56b4e9", "#9b7fd1",
           "#8c8c8c")  # fmt: skip
DASHES = ("solid", "dash", "dot", "dashdot")
STYLES = ("-", "--", ":", "-.")
CURVES = {
    "val_accuracy": "validation accuracy",
    "val_loss": "validation loss",
    "accuracy": "training accuracy",
    "loss": "training loss",
    "temperature": "temperature",
}
BY_TEMPERATURE = {
    "test accuracy": ("metrics", "accuracy"),
    "NLL": ("metrics", "nll"),
    "ECE": ("metrics", "ece"),
    "NLL, scaled": ("calibrated", "nll"),
    "ECE, scaled": ("calibrated", "ece"),
}
MOST_CONFUSED = 15
MOST_DRAWN = 12  # rows in a PNG; the page has all of them


def figures(table: dict) -> dict[str, dict[str, Any]]:
    """The Plotly figures of a table, as plain data.

    Returns:
        By the figure's name and then by what can be chosen (a row's title, a curve).
    """
    rows = table["rows"]
    made = {
        "accuracy": {"": accuracy(rows)},
        "curves": {
            words: curves(table["runs"], name, words)
            for name, words in CURVES.items()
            if any(name in run["history"] for run in table["runs"].values())
        },
        "reliability": {row["title"]: reliability(row) for row in rows},
        "pairs": {row["title"]: confused(row, table["class_names"]) for row in rows},
        "confusion": {
            row["title"]: confusion(*by_superclass(row, table)) for row in rows
        },
    }
    if temperatures(table):
        made["temperature"] = {
            words: by_temperature(table, words) for words in BY_TEMPERATURE
        }
    if table["superclasses"]:
        made["folded"] = {row["title"]: confusion(*folded(row, table)) for row in rows}
    return {
        name: {choice: json.loads(str(f.to_json())) for choice, f in choices.items()}
        for name, choices in made.items()
    }


def figure(*traces, **layout) -> go.Figure:
    """A figure without a theme of its own: the page lays its colours over it."""
    margin = {"l": 8, "r": 8, "t": 8, "b": 8}
    return go.Figure(traces, {"template": None, "margin": margin, **layout})


def axis(title: str = "", **options) -> dict:
    return {"title": {"text": title}, "automargin": True, **options}


def accuracy(rows: Sequence[dict]) -> go.Figure:
    rows = sorted(rows, key=lambda row: row["metrics"]["accuracy"])
    titles = [row["title"] for row in rows]
    middle, low, high = spans(rows)
    limit = 1.05 * max(row["intervals"]["accuracy"][1] for row in rows)
    return figure(
        captions(titles, lift=True),
        go.Scatter(
            x=middle,
            y=titles,
            error_x={"array": high, "arrayminus": low, "color": COLOURS[0]},
            mode="markers",
            marker={"size": 9, "color": COLOURS[0]},
            hovertemplate="%{y}<br>%{x:.2%}<extra></extra>",
        ),
        xaxis=axis("test accuracy", tickformat="~%", range=[0, limit]),
        yaxis=axis(showticklabels=False, range=[-0.5, len(rows)]),
        showlegend=False,
        height=90 + 34 * len(rows),
    )


def captions(words: Sequence[str], lift: bool = False) -> go.Scatter:
    """The names of the rows of a plot, above them: a phone has no room beside them."""
    below = "<br><span style='font-size:5px'> </span>" if lift else ""
    return go.Scatter(
        x=[0] * len(words),
        y=words,
        text=[text + below for text in words],
        mode="text",
        textposition="top right",
        cliponaxis=False,
        hoverinfo="skip",
        showlegend=False,
    )


def spans(rows: Sequence[dict]) -> tuple[list[float], list[float], list[float]]:
    """Accuracies, and how far their intervals reach below and above them."""
    middle = [row["metrics"]["accuracy"] for row in rows]
    ends = [row["intervals"]["accuracy"] for row in rows]
    low = [m - e[0] for m, e in zip(middle, ends, strict=True)]
    high = [e[1] - m for m, e in zip(middle, ends, strict=True)]
    return middle, low, high


def curves(runs: dict, name: str, words: str) -> go.Figure:
    traces = [
        go.Scatter(
            x=[epoch + 1 for epoch in run["history"]["epoch"]],
            y=run["history"][name],
            name=run["title"],
            mode="lines" if len(run["history"]["epoch"]) > 1 else "markers",
            line={"color": COLOURS[i % len(COLOURS)], "width": 2}
            | {"dash": DASHES[i // len(COLOURS) % len(DASHES)]},
            hovertemplate="%{fullData.name}<br>epoch %{x}: %{y:.4f}<extra></extra>",
        )
        for i, run in enumerate(runs.values())
        if name in run["history"]
    ]
    epochs = max(len(run["history"]["epoch"]) for run in runs.values())
    return figure(
        *traces,
        xaxis=axis("epoch", tick0=1, dtick=-(-epochs // 8)),
        yaxis=axis(words, tickformat="~%" if "accuracy" in name else ""),
        legend={"orientation": "h", "y": -0.2, "yanchor": "top"},
        showlegend=True,
        height=420 + 12 * len(traces),
    )


def temperatures(table: dict) -> list[str]:
    """The temperatures that a head was tried at: numbers in order, then the rest.

    Returns:
        Their names; none if no head was tried at several.
    """
    tried = {
        (run["config"]["head"], name)
        for run in table["runs"].values()
        if (name := name_of_temperature(run))
    }
    if len(tried) == len({head for head, _ in tried}):
        return []

    def order(name):
        number = _number(name)
        return (number is None, number or 0.0, name)

    return sorted({name for _, name in tried}, key=order)


def name_of_temperature(run: dict) -> str:
    """A run's temperature in words; none of a head that has none."""
    match run["config"]:
        case {"temperature": {"kind": kind, "start": start, "end": end}}:
            return f"{start:g} to {end:g} {kind}"
        case {"temperature": str(temperature)}:
            return temperature
        case {"temperature": float() | int() as temperature}:
            return f"{temperature:g}"
        case {"head": head} if head in HEADS and takes(head, "temperature"):
            return "1"
    return ""


def series(table: dict, words: str) -> dict[str, list[tuple]]:
    """A metric by temperature: of each head, loss and noise, what each run came to.

    Returns:
        By the name of the series: temperature, value, and how far its interval
        reaches below and above. No value stands where no line should lead on: between
        the signs, and beside a temperature that is no number.
    """
    part, metric = BY_TEMPERATURE[words]
    order = temperatures(table)
    made: dict[str, list[tuple]] = {}
    for row in table["rows"]:
        run = table["runs"][row["run"]]
        if name := name_of_temperature(run):
            value = row[part][metric]
            low, high = row[INTERVALS[part]].get(metric, (value, value))
            loss = run["config"]["loss"].replace("_", " ")
            noise = f", {row['samples']} samples" if row["samples"] else ""
            points = made.setdefault(f"{run['config']['head']}, {loss}{noise}", [])
            points.append((name, value, max(value - low, 0), max(high - value, 0)))
    for points in made.values():
        points.sort(key=lambda point: order.index(point[0]))
        for i in reversed(range(1, len(points))):
            if _line(points[i - 1][0]) != _line(points[i][0]):
                points.insert(i, (points[i][0], math.nan, math.nan, math.nan))
    return made


def _line(temperature: str) -> str | bool:
    """What a line through temperatures keeps to: a sign, or one that is no number."""
    number = _number(temperature)
    return temperature if number is None else number > 0


def _number(temperature: str) -> float | None:
    """A temperature's number, from its name; none of a schedule and a learned one."""
    try:
        return float(temperature)
    except ValueError:
        return None


def by_temperature(table: dict, words: str) -> go.Figure:
    traces = []
    for i, (name, points) in enumerate(series(table, words).items()):
        x, y, below, above = map(list, zip(*points, strict=True))
        colour = COLOURS[i % len(COLOURS)]
        traces.append(
            go.Scatter(
                x=x,
                y=y,
                error_y={"array": above, "arrayminus": below, "color": colour},
                name=name,
                mode="lines+markers",
                line={"color": colour, "width": 2},
                hovertemplate="%{fullData.name}<br>%{x}: %{y:.4f}<extra></extra>",
            )
        )
    order = {"categoryorder": "array", "categoryarray": temperatures(table)}
    return figure(
        *traces,
        xaxis=axis("temperature", type="category", **order),
        yaxis=axis(words, tickformat="~%" if "accuracy" in words else ""),
        legend={"orientation": "h", "y": -0.3, "yanchor": "top"},
        showlegend=True,
        height=440 + 12 * len(traces),
    )


def reliability(row: dict) -> go.Figure:
    def trace(bins, name, colour):
        filled = [i for i, count in enumerate(bins["count"]) if count]
        return go.Scatter(
            x=[bins["confidence"][i] for i in filled],
            y=[bins["accuracy"][i] for i in filled],
            customdata=[bins["count"][i] for i in filled],
            name=name,
            mode="lines+markers",
            line={"color": colour, "width": 2},
            hovertemplate="confidence %{x:.3f}, accuracy %{y:.3f}<br>"
            "%{customdata} images<extra></extra>",
        )

    diagonal = go.Scatter(
        x=[0, 1],
        y=[0, 1],
        name="perfect",
        mode="lines",
        line={"color": COLOURS[7], "dash": "dot", "width": 1},
        hoverinfo="skip",
    )
    raw, scaled = calibration_words(row)
    return figure(
        diagonal,
        trace(row["reliability"], raw, COLOURS[3]),
        trace(row["calibrated_reliability"], scaled, COLOURS[0]),
        xaxis=axis("confidence", range=[0, 1.02]),
        yaxis=axis("accuracy", range=[0, 1.02]),
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"},
        showlegend=True,
        height=440,
    )


def calibration_words(row: dict) -> tuple[str, str]:
    raw = "softmax of its scores" if row.get("scores") else "as it is"
    return (
        f"{raw}, ECE {row['metrics']['ece']:.4f}",
        f"at temperature {row['temperature']:.3f}, ECE {row['calibrated']['ece']:.4f}",
    )


def confused(row: dict, names: Sequence[str]) -> go.Figure:
    found = metrics.confused_pairs(row["confusion"], MOST_CONFUSED)[::-1]
    counts = [count for _, _, count in found]
    words = [f"{names[true]} → {names[predicted]}" for true, predicted, _ in found]
    return figure(
        captions(words),
        go.Bar(
            x=counts,
            y=words,
            orientation="h",
            width=0.3,
            offset=-0.3,
            marker={"color": COLOURS[0]},
            hovertemplate="%{y}: %{x} images<extra></extra>",
        ),
        xaxis=axis("test images", range=[0, 1.1 * max(counts, default=1)]),
        yaxis=axis(showticklabels=False, showgrid=False),
        showlegend=False,
        height=90 + 30 * len(found),
    )


def by_superclass(row: dict, table: dict) -> tuple[np.ndarray, list[str]]:
    """The confusion matrix and its names, the classes of a superclass side by side."""
    names, matrix = table["class_names"], row["confusion"]
    if not table["superclasses"]:
        return matrix, names
    order = np.argsort(table["superclasses"], kind="stable")
    return matrix[np.ix_(order, order)], [names[i] for i in order]


def folded(row: dict, table: dict) -> tuple[np.ndarray, list[str]]:
    matrix = metrics.fold(row["confusion"], table["superclasses"])
    return matrix, table["superclass_names"]


def confusion(matrix: np.ndarray, names: Sequence[str]) -> go.Figure:
    # The colour goes with the square root of the count, or errors would not be seen.
    steps = np.linspace(0, 1, 9)
    r, g, b = (int(COLOURS[0][i : i + 2], 16) for i in (1, 3, 5))
    scale = [[step**2, f"rgba({r},{g},{b},{step:.3f})"] for step in steps.tolist()]
    labelled = {"showticklabels": len(names) <= 20, "showgrid": False}
    return figure(
        go.Heatmap(
            z=matrix.tolist(),
            x=names,
            y=names,
            colorscale=scale,
            zmin=0,
            showscale=False,
            hovertemplate="true %{y}<br>predicted %{x}<br>%{z} images<extra></extra>",
        ),
        xaxis=axis("predicted", constrain="domain", tickangle=-60, **labelled),
        yaxis=axis("true", autorange="reversed", scaleanchor="x", **labelled)
        | {"constrain": "domain"},
        height=720,
    )


def drawn(table: dict) -> list[dict]:
    """The rows that a PNG shows: a dozen, from the least to the most accurate."""
    rows = sorted(table["rows"], key=lambda row: row["metrics"]["accuracy"])
    if len(rows) <= MOST_DRAWN:
        return rows
    places = np.linspace(0, len(rows) - 1, MOST_DRAWN).round().astype(int)
    return [rows[place] for place in places]


def save(table: dict, folder: Path, prefix: str):
    """Writes the plots of a table as PNG."""
    rows = drawn(table)
    runs = {row["run"]: table["runs"][row["run"]] for row in rows}

    def write(made: matplotlib.figure.Figure, name: str):
        path = folder / f"{prefix}-{name}.png"
        made.savefig(path, dpi=120, metadata={"Software": None})

    write(draw_accuracy(rows), "test_accuracy")
    write(draw_reliability(rows), "reliability")
    for name, words in CURVES.items():
        if any(name in run["history"] for run in runs.values()):
            write(draw_curves(runs, name, words), name)
    if temperatures(table):
        write(draw_by_temperature(table), "temperature")
    for row in table["rows"]:
        if not row["samples"]:
            name = row["id"].replace("/", "-")
            write(draw_confusion(row, table), f"confusion-{name}")


def draw_accuracy(rows: Sequence[dict]) -> matplotlib.figure.Figure:
    middle, low, high = (100 * np.array(values) for values in spans(rows))
    made = matplotlib.figure.Figure((9, 1 + 0.22 * len(rows)), layout="constrained")
    axes = made.subplots()
    titles = [row["title"] for row in rows]
    axes.errorbar(middle, titles, xerr=[low, high], fmt="o", ms=4, color=COLOURS[0])
    axes.set(xlabel="test accuracy (%), with its 95 % interval", xlim=(0, None))
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.grid(axis="x", alpha=0.3)
    return made


def draw_curves(runs: dict, name: str, words: str) -> matplotlib.figure.Figure:
    size = (10, max(5, 0.4 + 0.2 * len(runs)))  # a line of the legend for each run
    made = matplotlib.figure.Figure(size, layout="constrained")
    axes = made.subplots()
    for i, run in enumerate(runs.values()):
        if name in run["history"]:
            axes.plot(
                [epoch + 1 for epoch in run["history"]["epoch"]],
                run["history"][name],
                label=run["title"],
                color=COLOURS[i % len(COLOURS)],
                linestyle=STYLES[i // len(COLOURS) % len(STYLES)],
                marker="o",
                markersize=3,
            )
    axes.set(xlabel="epoch", ylabel=words)
    axes.grid(alpha=0.3)
    made.legend(loc="outside right upper", fontsize="small", frameon=False)
    return made


def draw_by_temperature(table: dict) -> matplotlib.figure.Figure:
    order = temperatures(table)
    shown = ("test accuracy", "NLL", "ECE")
    made = matplotlib.figure.Figure((14, 5.5), layout="constrained")
    panels = made.subplots(1, len(shown))
    for axes, words in zip(panels, shown, strict=True):
        for i, (name, points) in enumerate(series(table, words).items()):
            x, y, below, above = zip(*points, strict=True)
            axes.errorbar(
                [order.index(temperature) for temperature in x],
                y,
                yerr=[below, above],
                label=name,
                color=COLOURS[i % len(COLOURS)],
                marker="o",
                markersize=3,
            )
        axes.set_xticks(range(len(order)), order, rotation=45, ha="right")
        axes.set(xlabel="temperature", ylabel=words)
        if words == "NLL":  # a wrong loss costs ten times the right one's
            axes.set_yscale("log")
        axes.grid(alpha=0.3)
    handles, labels = panels[0].get_legend_handles_labels()
    made.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=4,
        frameon=False,
        fontsize="small",
    )
    return made


def draw_reliability(rows: Sequence[dict]) -> matplotlib.figure.Figure:
    columns = min(4, len(rows))
    lines = -(-len(rows) // columns)
    size = (0.3 + 3 * columns, 0.3 + 3.2 * lines)
    made = matplotlib.figure.Figure(size, layout="constrained")
    grid = list(made.subplots(lines, columns, squeeze=False).flat)
    for row, axes in zip(rows, grid, strict=False):
        axes.plot([0, 1], [0, 1], ":", color=COLOURS[7])
        parts = ("reliability", COLOURS[3]), ("calibrated_reliability", COLOURS[0])
        for (part, colour), label in zip(parts, calibration_words(row), strict=True):
            x, y = (np.array(row[part][k], float) for k in ("confidence", "accuracy"))
            filled = ~np.isnan(x)
            axes.plot(x[filled], y[filled], "o-", ms=3, color=colour, label=label)
        axes.set_title(row["title"], fontsize="small", wrap=True)
        axes.legend(fontsize="xx-small", loc="upper left")
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy")
    for axes in grid[len(rows) :]:
        axes.set_axis_off()
    return made


def draw_confusion(row: dict, table: dict) -> matplotlib.figure.Figure:
    panels = [by_superclass(row, table)]
    if table["superclasses"]:
        panels.append(folded(row, table))
    made = matplotlib.figure.Figure((6.5 * len(panels), 6.5), layout="constrained")
    for axes, (matrix, names) in zip(
        made.subplots(1, len(panels), squeeze=False).flat, panels, strict=True
    ):
        norm = matplotlib.colors.PowerNorm(0.5, vmin=0)
        image = axes.imshow(matrix, cmap="Blues", norm=norm)
        made.colorbar(image, ax=axes, shrink=0.7, label="test images")
        axes.set(xlabel="predicted", ylabel="true")
        if len(names) <= 20:
            ticks = range(len(names))
            axes.set_xticks(ticks, names, rotation=90, fontsize="x-small")
            axes.set_yticks(ticks, names, fontsize="x-small")
    made.suptitle(row["title"])
    return made
