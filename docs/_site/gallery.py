"""The gallery of heads: the formula, source, cost and accuracy of each.

What it says of a head comes from its docstring and from results/; its pictures are
drawn with the library, and its sliders are static/gallery.js.
"""

from __future__ import annotations

import functools
import inspect
import io
import json
import re
import statistics
from pathlib import Path

import keras
import matplotlib as mpl
import matplotlib.figure
import numpy as np
from scipy.stats import t

from kerasoft import heads, losses
from pipelines.comparison import Row, Table
from pipelines.keeping import read

RESULTS = Path(__file__).parents[2] / "results"
COLOURS = ("#4c6ef5", "#e8590c", "#2b8a3e")
OTHERS = (0.5, -1.0)  # the second and the third logit of the pictures
CLASSES = 1_000  # of the times
# Which runs an accuracy is of: those of the write-up's protocol where there are any.
COMPARED = {"spherical_softmax": "z", "z_loss": "z"}
TEMPERATURES = {"gumbel_softmax": 1.0, "log_gumbel_softmax": 3.0}
NOTES = {
    "writeup": "8 epochs",
    "z": "with learning rates chosen on validation images",
}


def sections() -> str:
    return "\n\n".join(section(name) for name in heads.HEADS) + "\n"


def section(name: str) -> str:
    """What the page says of a head."""
    layer = heads.HEADS[name]
    summary, formula, reference = of_docstring(layer)
    loss = losses.matched_loss(name)
    facts = {
        "in a model": f"`kerasoft.heads.{layer.__name__}()`",
        "in the laboratory": f"`--head {name}`",
        "puts out": heads.get(name).outputs.replace("_", "-"),
        "matched loss": f"`{type(loss).__name__}`, that of `matched_loss(head)`",
        "time": time(name),
        "accuracy": accuracy(name),
        "source": reference or "base e: the usual softmax",
    }
    rows = "".join(f"| {key} | {value} |\n" for key, value in facts.items())
    return (
        f"## {layer.__name__} {{ #{name} }}\n\n{summary}\n\n"
        f"```python\n{formula}\n```\n\n"
        f'<div class="head" data-head="{name}" markdown="1">\n\n'
        f"![What {layer.__name__} puts out for three classes, by the first logit]"
        f"(gallery-{name}.svg)\n\n| | |\n|---|---|\n{rows}\n</div>"
    )


def of_docstring(layer: type) -> tuple[str, str, str]:
    """The first line, the formula and the reference of a docstring."""
    text = inspect.cleandoc(layer.__doc__ or "")
    formula = re.search(r"```python\n(.*?)\n```", text, re.DOTALL)
    assert formula, layer
    reference = re.search(r"^Reference:\n((?:    .*\n?)+)", text, re.MULTILINE)
    source = " ".join(reference[1].split()) if reference else ""
    return text.partition("\n")[0], formula[1], source


@functools.cache
def times() -> dict[str, dict]:
    measured = json.loads((RESULTS / "benchmarks" / "heads.json").read_text("utf-8"))
    return {row["name"]: row for row in measured["times"] if row["classes"] == CLASSES}


def time(name: str) -> str:
    row = times()[name]
    low, high = row["to torch, from"], row["to torch, to"]
    return (
        f"{1000 * row['seconds']:.2f} ms, {row['to torch']:.2f} ({low:.2f} to "
        f"{high:.2f}) of PyTorch's `gumbel_softmax`"
    )


@functools.cache
def compared(name: str) -> Table:
    (table,) = read(RESULTS / name).comparison.tables
    return table


def accuracy(name: str) -> str:
    """The accuracy of a head's runs, with its 95 % interval."""
    where = COMPARED.get(name, "writeup")
    rows = [row for row in compared(where).rows if _is_of(row, name, compared(where))]
    if not rows:
        return "no run on CIFAR-100"
    mean = statistics.fmean(row.accuracy for row in rows)
    seeds = f"{len(rows)} seeds" if len(rows) > 1 else "one seed"
    if len(rows) > 1:
        spread = statistics.stdev(row.accuracy for row in rows) / len(rows) ** 0.5
        reach = float(t.ppf(0.975, len(rows) - 1)) * spread
        low, high = mean - reach, mean + reach
    else:
        low, high = rows[0].as_is.intervals["accuracy"]
    at = f" at temperature {TEMPERATURES[name]:g}" if name in TEMPERATURES else ""
    return (
        f"{100 * mean:.1f} % ({100 * low:.1f} to {100 * high:.1f}; {seeds}; "
        f"[{NOTES[where]}{at}](../results/{where}/comparison.md))"
    )


def _is_of(row: Row, name: str, table: Table) -> bool:
    config = table.runs[row.run].config
    return (
        not row.samples
        and config.head == name
        and config.loss == "matched"
        and config.backbone == "resnet12"
        and config.temperature == TEMPERATURES.get(name)
    )


def pictures() -> dict[str, str]:
    """Of each head, a picture of its output, in SVG."""
    return {f"gallery-{name}.svg": picture(name) for name in heads.HEADS}


def picture(name: str) -> str:
    first = np.linspace(-5, 5, 201)
    logits = np.stack([first, *(np.full(first.shape, x) for x in OTHERS)], axis=-1)
    head = heads.get(name)
    output = keras.ops.convert_to_numpy(head(logits))
    figure = matplotlib.figure.Figure(figsize=(6, 2.6), layout="constrained")
    axes = figure.subplots()
    for k, colour in enumerate(COLOURS):
        axes.plot(first, output[:, k], color=colour, label=f"class {k + 1}")
    axes.set_xlabel(f"first logit; the others are {OTHERS[0]:g} and {OTHERS[1]:g}")
    axes.set_ylabel(head.outputs.replace("_", "-"))
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    drawn = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    return drawn.getvalue()
