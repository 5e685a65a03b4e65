"""The measured tables of the documents, from the files of results/.

    python experiments/document_tables.py

It writes every table anew that stands after a line `<!-- table: NAME -->` in README and
in docs/, NAME being one of `TABLES`.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import many_classes
import mechanism
import numpy as np
import temperature
import writeup_table
from scipy.special import logsumexp
from scipy.stats import sem, t

from benchmarks import output_share
from benchmarks.many_classes import MIB
from benchmarks.runner import apart, by, ratio
from pipelines import document, markdown
from pipelines.between_runs import MARGIN, judged
from pipelines.comparison import Comparison, Contrast, Table
from pipelines.config import Config
from pipelines.contrasts import estimate_over_seeds
from pipelines.keeping import read

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
MARKED = re.compile(r"(<!-- table: (.+) -->\n\n)((?:\|.*\n)*)")


@functools.cache
def comparison(name: str) -> Comparison:
    return read(RESULTS / name).comparison


def compared(name: str) -> Table:
    """The one table of a comparison."""
    (table,) = comparison(name).tables
    return table


@functools.cache
def loaded(path: str) -> Any:
    return json.loads((RESULTS / path).read_text("utf-8"))


def log_sum_exps() -> str:
    """What the log-sum-exp of a distribution over n classes can be."""
    rows = []
    for n in (2, 10, 20, 100, 1000):
        uniform, one_hot = (logsumexp(p) for p in (np.full(n, 1 / n), np.eye(n)[0]))
        left = 100 * math.exp(1 - one_hot)
        rows.append(
            {
                "classes": f"{n:,}",
                "log-sum-exp of p, uniform": f"{uniform:.3f}",
                "one-hot": f"{one_hot:.3f}",
                "smallest loss": f"{one_hot - 1:.3f}",
                "probability of the true class there": (
                    f"{left:.1f} %" if left > 1 else f"{left:.2f} %"
                ),
            }
        )
    return markdown.table(rows, "")


def example() -> str:
    """Losses and gradients of the write-up's example."""
    rows = []
    for label in loaded("why-softmax/figures.json")["example"]["labels"]:
        row = {"true class": label["label"]}
        kinds = {"matched": "matched", "as_logits": "softmax as logits"}
        for kind, words in kinds.items():
            found = label[f"softmax, {kind}"]
            # Adding 0 makes -0.0 a 0.
            gradient = (f"{round(g, 4) + 0.0:.4f}" for g in found["gradient"])
            row[f"loss, {words}"] = f"{found['loss']:.4f}"
            row[f"gradient, {words}"] = f"[{', '.join(gradient)}]"
        rows.append(row)
    return markdown.table(rows, "gradient, matched", "gradient, softmax as logits")


def first_epochs() -> str:
    """The gradient in the first two epochs of heads and losses."""
    names = {
        "softmax, matched": "softmax, matched",
        "log_softmax, as_logits": "log-softmax, as logits",
        "softmax, as_logits": "softmax, as logits",
        "sin_softmax, as_logits": "sin, as logits",
        "spherical_softmax, as_logits": '"Z", as logits',
    }
    curves = loaded("why-softmax/figures.json")["over_training"]
    rows = []
    for name, words in names.items():
        norms, history = curves[name]["gradient_norm"], curves[name]["history"]
        rows.append(
            {
                "head and loss": words,
                "gradient norm, first step": f"{norms[0]:.3f}",
                "after 2 epochs": f"{norms[-1]:.3f}",
                "training loss, epoch 2": f"{history['loss'][-1]:.3f}",
                "validation accuracy": f"{100 * history['val_accuracy'][-1]:.1f} %",
            }
        )
    return markdown.table(rows)


def noise() -> str:
    """The gradient under Gumbel noise, at the start of a training."""
    rows = []
    for found in loaded("why-softmax/figures.json")["noise"]:
        if found["head"] == "gumbel_softmax" and not found["margin"]:
            matched, as_logits = found["matched"], found["as_logits"]
            rows.append(
                [
                    f"{found['temperature']:g}",
                    *(f"{matched[k]:.3f}" for k in ("noise_free", "mean", "spread")),
                    *(f"{as_logits[k]:.4f}" for k in ("noise_free", "mean", "spread")),
                ]
            )
    parts = ["mean with noise", "standard deviation of one draw"]
    names = ["temperature", "matched: without noise", *parts]
    names += ["as logits: without noise", *parts]
    return markdown.table(_numbered(rows), "", names=names)


def _numbered(rows: list[list[str]]) -> list[dict[str, object]]:
    """Rows with numbers for keys: their columns' names are not all different."""
    return [{str(i): cell for i, cell in enumerate(row)} for row in rows]


def times_of_heads() -> str:
    """Milliseconds of a head with its loss and gradient, and the ratio to softmax."""
    names = {
        "softmax": "softmax",
        "log_softmax": "log-softmax",
        "softmax2": "base-2 softmax",
        "gumbel_softmax": "Gumbel-softmax",
        "sparsemax": "sparsemax",
    }
    found = {
        (row["head"], row["classes"]): row
        for row in loaded("benchmarks/classes.json")["times"]
        if row["pass"] == "with gradient"
    }

    return markdown.table(
        {"head": name}
        | {
            f"{n:,}": milliseconds(found[head, n], "to softmax", head == "softmax")
            for n in (100, 10_000, 100_000, 1_000_000)
        }
        for head, name in names.items()
    )


def heads_beside_others() -> str:
    """Milliseconds of samples and log-softmax, and the ratio to PyTorch's samples."""
    torch = "torch gumbel_softmax"
    names = {
        "gumbel_softmax": "`GumbelSoftmax`",
        torch: "PyTorch's `gumbel_softmax`",
        "tfp RelaxedOneHotCategorical": "TensorFlow Probability's "
        "`RelaxedOneHotCategorical`",
        "log_softmax": "`LogSoftmax`",
        "keras.ops.log_softmax": "`keras.ops.log_softmax`",
    }
    times = loaded("benchmarks/heads.json")["times"]
    found = {(row["name"], row["classes"]): row for row in times}
    return markdown.table(
        {"": words}
        | {
            f"{n:,}": milliseconds(found[name, n], "to torch", name == torch)
            for n in sorted({row["classes"] for row in times})
        }
        for name, words in names.items()
    )


def milliseconds(row: dict, name: str, alone: bool) -> str:
    """A time in three digits, and unless it stands alone its ratio of that name."""
    time = 1000 * row["seconds"]
    digits = max(0, 2 - max(0, math.floor(math.log10(time))))
    return f"{time:.{digits}f}" + ("" if alone else f"; {ratio(row, name)}")


def factored() -> str:
    """Milliseconds of a step, and how many times longer Keras's dense layer takes."""
    found = {
        (row["classes"], row["side"]): row
        for row in loaded("benchmarks/factored.json")["rows"]
    }
    rows = []
    for side in ("Z-loss", "spherical", "Taylor"):
        few, some, many = (
            found[n, f"kerasoft, {side}"] for n in (10_000, 109_031, 10**6)
        )
        dense = [found[n, "Keras, Dense and softmax"] for n in (109_031, 10**6)]
        rows.append(
            {
                "loss": side,
                "10,000 classes": f"{1000 * few['seconds']:.2f}",
                "109,031": f"{1000 * some['seconds']:.2f}",
                "1,000,000": f"{1000 * many['seconds']:.2f}",
                "1,000,000 to 10,000": apart(many, few),
                "softmax, 109,031": apart(dense[0], some, ".0f"),
                "softmax, 1,000,000": apart(dense[1], many, ".0f"),
            }
        )
    return markdown.table(rows)


def times_of_layers() -> str:
    """How many times as long Keras's dense layer and softmax take as a layer."""
    result = loaded("benchmarks/many_classes.json")
    found = [*result["rows"], *result["skewed"]]

    def shape(row: dict) -> tuple:
        names = ("batch", "classes", "labels", "optimizer")
        return tuple(row.get(name) for name in names)

    reference = {
        shape(row): row for row in found if row["side"] == "Keras, Dense and softmax"
    }
    laws = {None: "alike frequent", "zipf": "Zipf's law"}
    rows = []
    for row in found:
        dense = reference.get(shape(row))  # none of too many logits for the machine
        if dense and row["side"].startswith("kerasoft"):
            rows.append(
                {
                    "layer": row["side"].removeprefix("kerasoft, "),
                    "rows": f"{row['batch']:,}",
                    "classes": f"{row['classes']:,}",
                    "labels": laws.get(row.get("labels"), "words"),
                    "optimiser": row.get("optimizer", "sgd"),
                    "dense and softmax take": apart(dense, row, ".1f"),
                    "memory, of theirs": f"{row['bytes'] / dense['bytes']:.2f}",
                }
            )
    return markdown.table(rows, "layer", "labels", "optimiser")


def settings() -> str:
    """The time of a training step under TensorFlow's settings."""
    rows = loaded("benchmarks/settings.json")["rows"]
    return markdown.table(
        {
            "setting": row["settings"],
            "time of a step, to the default's": ratio(row, "to none"),
        }
        for row in rows[1:]
    )


def serving() -> str:
    """The times of calls in each format, beside PyTorch's export for ONNX Runtime."""
    result = loaded("benchmarks/serving.json")
    calls = by("side", result["times"])
    rows = []
    for side, (one, many) in calls.items():
        size = result["bytes"].get(side.removeprefix("export, "))
        rows.append(
            {
                "what is served": side,
                "MB": f"{size / 1e6:.1f}" if size else "",
                **{
                    f"{call['images']} image{'s' * (call['images'] > 1)}, "
                    f"{words}": format(call)
                    for call in (one, many)
                    for words, format in (
                        ("ms", lambda call: f"{1000 * call['seconds']:.3g}"),
                        (
                            "speed to PyTorch's ONNX",
                            lambda call: ratio(call, "to PyTorch's ONNX"),
                        ),
                    )
                },
            }
        )
    return markdown.table(rows, "what is served")


def drift() -> str:
    """The largest errors of a factored layer over many steps."""
    names = ["Q", "U U⁻¹", "loss", "gradient of the features"]
    names.append("condition number of U at the end")
    rows = []
    for run in loaded("benchmarks/drift.json")["runs"]:
        errors = [f"{max(v):.1e}" for k, v in run["errors"].items() if k != "step"]
        every = "never" if run["every"] > 10**6 else f"{run['every']:,}"
        rows.append([run["head"], every, *errors, f"{run['condition']:.1f}"])
    return markdown.table(
        _numbered(rows),
        names=["loss", "W recomputed every (steps)", *names],
    )


def train_steps() -> str:
    """The speed of a training step, as a ratio to PyTorch's better mode."""
    found = {
        (row["width"], row["precision"], row["side"]): row
        for row in loaded("benchmarks/train_step.json")["rows"]
    }
    sides = {
        "Keras": "Keras with kerasoft",
        "Keras, its own layers": "Keras's own layers and SGD",
        "Keras, without oneDNN": "without oneDNN",
    }
    rows = []
    for width, precision in dict.fromkeys(key[:2] for key in found):
        row = {"width": width, "precision": precision}
        for side, words in sides.items():
            ours = found.get((width, precision, side))
            row[words] = ""
            if ours:
                speed = f"{ours['images a second']:,.0f}"
                row[words] = f"{ratio(ours, 'to the better')}; {speed}"
        rows.append(row)
    return markdown.table(rows, "precision")


def speedrun() -> str:
    """Time and accuracy of the speedrun, with the interval of the mean over seeds."""
    rows = []
    for side, runs in by("side", loaded("benchmarks/speedrun.json")["runs"]).items():
        accuracies = [100 * run["test accuracy"] for run in runs]
        mean, error = np.mean(accuracies), sem(accuracies)
        low, high = t.interval(0.95, len(runs) - 1, mean, error)
        rows.append(
            {
                "side": side,
                "seeds": len(runs),
                "seconds of training": document.mean(
                    [run["seconds"] for run in runs], ".0f"
                ),
                "test accuracy": f"{document.mean(accuracies, '.2f')} %",
                "interval of the mean": f"{low:.1f} to {high:.1f} %",
            }
        )
    return markdown.table(rows)


def speedrun_search() -> str:
    """The trials by which the speedrun's recipe was chosen."""
    shared = {"batch size": "batch", "epochs": "epochs", "seed": "seed"}
    parts = ("validation accuracy", "training accuracy")
    return markdown.table(
        (
            {"recipe": trial["change"]}
            | {words: trial[name] for name, words in shared.items()}
            | {part: f"{100 * trial[part][-1]:.1f} %" for part in parts}
            for trial in loaded("speedrun/search.json")["trials"]
        ),
        "recipe",
    )


def speedrun_contrast() -> str:
    """The difference in accuracy between the sides of the speedrun, over seeds."""
    accuracies = {
        side: {run["seed"]: run["test accuracy"] for run in runs}
        for side, runs in by("side", loaded("benchmarks/speedrun.json")["runs"]).items()
    }
    ours, theirs = accuracies
    return document.contrasts(over_seeds([(ours, theirs)], accuracies))


def over_seeds(
    pairs: Sequence[tuple[str, str]], numbers: Mapping[str, Mapping[int, float]]
) -> list[Contrast]:
    """Compares configurations of which each seed has a number, a share of 1.

    Args:
        pairs: The names of those to compare.
        numbers: By the names, a number for each seed.
    """
    estimates = [
        estimate_over_seeds(*(list(numbers[name].values()) for name in pair))
        for pair in pairs
    ]
    compared = [
        Contrast(
            a=a,
            b=b,
            runs_a=[str(seed) for seed in numbers[a]],
            runs_b=[str(seed) for seed in numbers[b]],
            margin=MARGIN,
            declared=True,
            difference=estimate.difference,
        )
        for (a, b), estimate in zip(pairs, estimates, strict=True)
    ]
    return judged(compared, estimates)


def of_seeds(
    name: str, metric: str, told: Callable[[Config], str | None]
) -> dict[str, dict[int, float]]:
    """A metric of a comparison's runs without noise, by configuration and seed.

    Args:
        name: The comparison.
        metric: As predicted, not scaled.
        told: What a configuration is called, or `None` if it is left out.
    """
    table, found = compared(name), {}
    for row in table.rows:
        config = table.runs[row.run].config
        if not row.samples and (words := told(config)):
            found.setdefault(words, {})[config.seed] = row.as_is.metrics[metric]
    return found


def top5_of_z() -> str:
    """The difference in top-5 accuracy between softmax and the Z-loss."""
    found = of_seeds("z", "top5", lambda config: f"{config.head}, top-5")
    return document.contrasts(
        over_seeds([("log_softmax, top-5", "z_loss, top-5")], found)
    )


def calibration_by_temperature() -> str:
    """How ECE differs between temperatures of log-Gumbel-softmax."""

    def told(config: Config) -> str | None:
        matched = config.head == "log_gumbel_softmax" and config.loss == "matched"
        return f"ECE at {config.temperature:g}" if matched else None

    found = of_seeds("temperature", "ece", told)
    pairs = [(0.25, 1), (1, 3), (10, 3)]
    return document.contrasts(
        over_seeds([(f"ECE at {a:g}", f"ECE at {b:g}") for a, b in pairs], found)
    )


def next_word_runs(layer: str) -> list[dict]:
    """The runs of an output layer, one a seed."""
    paths = sorted((RESULTS / "next-word").glob(f"{layer}-*.json"))
    return [loaded(str(path.relative_to(RESULTS))) for path in paths]


def next_words() -> str:
    """How often the next word is among the ten likeliest, by minutes of training."""
    rows = []
    for name in ("z_loss", "adaptive", "sampled", "full"):
        runs = next_word_runs(name)

        def mean(of: Callable[[dict], float], words=".1f", factor=100, runs=runs):
            return document.mean([of(run) for run in runs], words, factor)

        row: dict[str, object] = {"layer": name, "seeds": len(runs)}
        for i, point in enumerate(runs[0]["curve"]):
            minutes = point["minutes"]
            if minutes in (0.25, 1, 2, 3, 5, 10):
                words = "0.25 min" if minutes == 0.25 else f"{minutes:g}"
                row[words] = mean(lambda run, i=i: run["curve"][i]["top_10"])
        for k in (10, 1):
            row[f"test, top-{k}"] = mean(lambda run, k=k: run["test"][f"top_{k}"])
        known = "perplexity" in runs[0]["test"]
        row["test perplexity"] = (
            mean(lambda run: run["test"]["perplexity"], ".0f", 1) if known else ""
        )
        rows.append(row)
    return markdown.table(rows)


def next_word_contrasts() -> str:
    """How the layers differ, over seeds: on one text, the same for all."""

    def after(minutes: int) -> Callable[[dict], float]:
        def of(run: dict) -> float:
            (at,) = (at for at in run["curve"] if at["minutes"] == minutes)
            return at["top_10"]

        return of

    numbers: dict[str, Callable[[dict], float]] = {
        "top-10 after 1 min": after(1),
        "top-10 after 5 min": after(5),
        "test, top-10": lambda run: run["test"]["top_10"],
        "test, top-1": lambda run: run["test"]["top_1"],
    }
    layers = ("z_loss", "full", "sampled", "adaptive")
    found = {
        f"{layer}, {words}": {run["seed"]: of(run) for run in next_word_runs(layer)}
        for layer in layers
        for words, of in numbers.items()
    }
    pairs = [("z_loss", other, words) for words in numbers for other in layers[1:]]
    pairs += [
        (*two, "test, top-10")
        for two in (("adaptive", "sampled"), ("adaptive", "full"), ("sampled", "full"))
    ]
    return document.contrasts(
        over_seeds([(f"{a}, {words}", f"{b}, {words}") for a, b, words in pairs], found)
    )


def which_z() -> str:
    """What the write-up's Z could have been, over seeds."""
    table = compared("z")
    rows = []
    for group in sorted(table.groups, key=lambda g: -g.as_is["accuracy"].mean):
        accuracy, top5 = (group.as_is[name] for name in ("accuracy", "top5"))
        rows.append(
            {
                "head": table.runs[group.runs[0]].config.head,
                "seeds": len(group.runs),
                "accuracy": f"{100 * accuracy.mean:.2f} ± {100 * accuracy.std:.2f} %",
                "top-5": f"{100 * top5.mean:.2f} ± {100 * top5.std:.2f} %",
                "NLL, temperature-scaled": f"{group.scaled['nll'].mean:.3f}",
                "ECE, temperature-scaled": f"{group.scaled['ece'].mean:.3f}",
            }
        )
    return markdown.table(rows)


def search_for_z() -> str:
    """The best learning rate of the search, by head and epsilon, on one seed."""
    tried: dict[tuple, list[dict]] = {}
    for run in loaded("z/search.json"):
        tried.setdefault((run["head"], run["epsilon"]), []).append(run)
    rows = []
    for (head, epsilon), runs in tried.items():
        best = max(runs, key=lambda run: run["validation_accuracy"])
        rows.append(
            {
                "head": head,
                "ε": "" if epsilon is None else f"{epsilon:g}",
                "rates tried": ", ".join(f"{run['learning_rate']:g}" for run in runs),
                "best rate": f"{best['learning_rate']:g}",
                "validation accuracy": f"{100 * best['validation_accuracy']:.1f} %",
            }
        )
    return markdown.table(rows, "head", "rates tried")


def search_for_many_classes() -> str:
    """What short runs on Han characters reached, on the validation typeface."""
    return markdown.table(
        (
            {
                "classes": f"{run['classes'] or 20902:,}",
                "head": run["head"],
                "output layer": run["output"] or "dense",
                "steps": f"{run['steps']:,}",
                "optimiser": mechanism.SHORT[run["optimizer"]],
                "rate": f"{run['learning_rate'] or 0.2:g}",
                "weight decay": f"{run['weight_decay']:g}",
                "validation accuracy": f"{100 * run['validation_accuracy']:.1f} %",
            }
            for run in loaded("many-classes/search.json")
        ),
        "head",
        "output layer",
        "optimiser",
    )


def of_contrasts(name: str, classes: int | None = None) -> Callable[[], str]:
    """The contrasts of a comparison, or of its table of so many classes."""

    def contrasts() -> str:
        tables = comparison(name).tables
        (table,) = (t for t in tables if classes in (None, len(t.class_names)))
        return document.contrasts(table.contrasts)

    return contrasts


def two_levels() -> str:
    """Two levels less softmax on CIFAR-100: the classes, and the superclasses."""
    measures = {
        "superclass of the predicted class": "superclass_accuracy",
        "superclass, summed": "summed_superclass_accuracy",
    }
    found, pairs = {}, []
    for words, metric in measures.items():

        def told(config: Config, words=words) -> str:
            output = f", {config.output}" if config.output else ""
            return f"{config.head}{output}: {words}"

        found |= of_seeds("two-level", metric, told)
        pairs.append((f"log_softmax, two_level: {words}", f"log_softmax: {words}"))
    return document.contrasts(
        [*compared("two-level").contrasts, *over_seeds(pairs, found)]
    )


def output_shares() -> str:
    """What a step takes by output layer and number of classes."""
    return markdown.table(
        (
            {
                "classes": f"{row['classes']:,}",
                "output layer": row["side"],
                "ms a step": f"{1000 * row['seconds']:.1f}",
                "the layer's share": output_share.share(row),
                "memory, MiB": f"{row['bytes'] / MIB:,.0f}",
            }
            for row in loaded("benchmarks/output_share.json")["rows"]
        ),
        "output layer",
    )


TABLES: dict[str, Callable[[], str]] = {
    "write-up": lambda: writeup_table.table(comparison("writeup")),
    "write-up, losses": lambda: writeup_table.table_of_losses(comparison("writeup")),
    "write-up, contrasts": of_contrasts("writeup"),
    "mechanism": lambda: mechanism.table_of_runs(compared("mechanism")),
    "mechanism, contrasts": of_contrasts("mechanism"),
    "temperature": lambda: temperature.table(compared("temperature"), "matched"),
    "temperature, as logits": lambda: temperature.table(
        compared("temperature"), "as_logits"
    ),
    "temperature, contrasts": of_contrasts("temperature"),
    "temperature, ECE": calibration_by_temperature,
    "temperature, estimators": lambda: temperature.table_of_estimators(
        loaded("temperature/estimators.json")
    ),
    "log-sum-exp": log_sum_exps,
    "example": example,
    "first epochs": first_epochs,
    "noise": noise,
    "times of heads": times_of_heads,
    "heads": heads_beside_others,
    "factored": factored,
    "drift": drift,
    "train step": train_steps,
    "settings": settings,
    "serving": serving,
    "times of layers": times_of_layers,
    "speedrun": speedrun,
    "speedrun, search": speedrun_search,
    "speedrun, contrast": speedrun_contrast,
    "next word": next_words,
    "next word, contrasts": next_word_contrasts,
    "many classes": lambda: many_classes.table_of_runs(comparison("many-classes")),
    "many-classes, 1,000 classes, contrasts": of_contrasts("many-classes", 1000),
    "many-classes, 20,902 classes, contrasts": of_contrasts("many-classes", 20902),
    "many classes, search": search_for_many_classes,
    "two-level, contrasts": two_levels,
    "output share": output_shares,
    "z": which_z,
    "z, search": search_for_z,
    "z, contrasts": of_contrasts("z"),
    "z, top-5": top5_of_z,
}


def renew(text: str) -> str:
    """A document with its marked tables as the results have them."""
    return MARKED.sub(lambda found: f"{found[1]}{TABLES[found[2]]()}\n", text)


def documents() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


if __name__ == "__main__":
    for path in documents():
        old = path.read_text("utf-8")
        new = renew(old)
        if new != old:
            path.write_text(new, "utf-8")
            print(path.relative_to(ROOT))
