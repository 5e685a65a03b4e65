"""A table and the pictures of docs/many-classes.md on Han characters.

    python experiments/many_classes.py

It draws results/many-classes/accuracy.png, from results/many-classes/comparison.json,
which `python -m pipelines.run experiments/many-classes.yaml` wrote. With `--sheet` it
draws characters.png too, some of the characters in the typefaces that are installed.
With `--search` it writes search.json, from the runs of
experiments/many-classes-search.yaml in saved_models/. document_tables.py writes the
table.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import matplotlib.figure
import numpy as np

from pipelines import datasets, document, draw_png, experiment, markdown, run_folder
from pipelines.comparison import Comparison, Row, Table
from pipelines.config import Config
from pipelines.keeping import read
from pipelines.plots import COLOURS

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results" / "many-classes"
SEARCH = ROOT / "experiments" / "many-classes-search.yaml"
LAYERS = {
    None: "dense, log-softmax",
    "two_level": "two-level",
    "sampled": "sampled",
    "adaptive": "adaptive",
    "z_loss": "factored, Z-loss",
    "spherical_softmax": "factored, spherical",
}
CHARACTERS = "人永春龍鳥魚語鬱灣爨"


def layers(table: Table) -> Iterator[tuple[str, list[Row]]]:
    """The rows of a table by output layer, the seeds of one together."""
    for kind, words in LAYERS.items():
        rows = [
            row
            for row in table.rows
            if kind == _kind(table.runs[row.run].config) and not row.samples
        ]
        if rows:
            yield words, rows


def _kind(config: Config) -> str | None:
    output = config.output and config.output.partition(":")[0]
    return config.head if output == "factored" else output


def by_size(found: Comparison) -> list[Table]:
    return sorted(found.tables, key=lambda table: len(table.class_names))


def table_of_runs(found: Comparison) -> str:
    """Accuracies on unseen typefaces by the number of classes and output layer."""

    def mean(rows: list[Row], metric: str, words: str, factor=1.0):
        values = [row.as_is.metrics[metric] for row in rows]
        return document.mean(values, words, factor)

    lines = []
    for table in by_size(found):
        for words, rows in layers(table):
            scores = any(row.scores for row in rows)
            lines.append(
                {
                    "classes": f"{len(table.class_names):,}",
                    "output layer": words,
                    "seeds": len(rows),
                    "accuracy, %": mean(rows, "accuracy", ".1f", 100),
                    "top-5, %": mean(rows, "top5", ".1f", 100),
                    "harder images, %": mean(rows, "harder_accuracy", ".1f", 100),
                    "NLL": "" if scores else mean(rows, "nll", ".2f"),
                }
            )
    return markdown.table(lines, "output layer")


def draw(found: Comparison) -> matplotlib.figure.Figure:
    """Accuracy on unseen typefaces by the number of classes."""
    figure = matplotlib.figure.Figure((10, 4.2), layout="constrained")
    panels = figure.subplots(1, 2)
    shown = {
        "accuracy": "accuracy on unseen typefaces, %",
        "harder_accuracy": "accuracy on harder images of them, %",
    }
    for axes, (metric, ylabel) in zip(panels, shown.items(), strict=True):
        for colour, words in zip(COLOURS, LAYERS.values(), strict=False):
            points = [
                (len(table.class_names), row.as_is.metrics[metric])
                for table in by_size(found)
                for name, rows in layers(table)
                for row in rows
                if name == words
            ]
            sizes = sorted({size for size, _ in points})
            values = [[100 * v for n, v in points if n == size] for size in sizes]
            axes.plot(sizes, [np.mean(v) for v in values], color=colour, label=words)
            for size, of_seeds in zip(sizes, values, strict=True):
                axes.plot([size] * len(of_seeds), of_seeds, "o", color=colour, ms=4)
        axes.set(xscale="log", xlabel="classes", ylabel=ylabel, ylim=(0, 102))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.grid(alpha=0.3)
    panels[0].legend(fontsize=8, frameon=False, loc="lower left")
    return figure


def sheet(data: datasets.Data) -> matplotlib.figure.Figure:
    """Some characters: in faces to train, to validate and to test, and harder."""
    assert data.harder
    wanted = [data.class_names.index(character) for character in CHARACTERS]
    train = [np.flatnonzero(data.train.labels == label) for label in wanted]
    faces = len(train[0])
    rows = {
        f"training typeface {i + 1}": [data.train.images[at[face]] for at in train]
        for i, face in enumerate(np.linspace(0, faces - 1, 4).astype(int))
    }
    rows["validation typeface"] = [data.validation.images[label] for label in wanted]
    harder, size = data.harder(), len(data.class_names)
    for i in range(len(data.test.labels) // size):
        rows[f"test typeface {i + 1}"] = [
            data.test.images[i * size + label] for label in wanted
        ]
        rows[f"test typeface {i + 1}, harder"] = [
            harder[i * size + label] for label in wanted
        ]
    picture = np.concatenate([np.concatenate(row, axis=1) for row in rows.values()])
    figure = matplotlib.figure.Figure((8, 5), layout="constrained")
    axes = figure.subplots()
    axes.imshow(picture[..., 0], cmap="gray_r", interpolation="nearest")
    axes.set_yticks([32 * i + 16 for i in range(len(rows))], list(rows), fontsize=8)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def search(saved_models: Path) -> list[dict]:
    """The runs of the search that are there, with their validation accuracy."""
    told = ("head", "output", "classes", "optimizer", "learning_rate", "weight_decay")
    found = []
    for config, _ in experiment.read(SEARCH).runs:
        path = saved_models / config.run_name
        if path.is_dir():
            history = run_folder.read_history(path)
            steps = config.epochs * (config.steps_per_epoch or 0)
            accuracy = round(history["val_accuracy"][-1], 4)
            options = {name: getattr(config, name) for name in told}
            found.append(options | {"steps": steps, "validation_accuracy": accuracy})
    return found


if __name__ == "__main__":
    if "--search" in sys.argv[1:]:
        words = json.dumps(search(ROOT / "saved_models"), indent=1)
        (RESULTS / "search.json").write_text(words + "\n", "utf-8")
        sys.exit()
    if "--sheet" in sys.argv[1:]:
        drawn = sheet(datasets.load("glyphs"))
        draw_png.save(drawn, RESULTS / "characters.png")
    draw_png.save(draw(read(RESULTS).comparison), RESULTS / "accuracy.png")
