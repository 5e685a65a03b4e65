"""The speedrun beside PyTorch: `python -m benchmarks.speedrun`.

Trains the recipe of experiments/speedrun.yaml on CIFAR-100, each seed in Keras, as
`pipelines.train` does, and in PyTorch, each run in a process of its own and in turn.
Writes the time, the test accuracy and the history of every run to
results/benchmarks/speedrun.*. Needs `pip install -e '.[bench]'`.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import plots, runner
from benchmarks.sides import written
from pipelines import batching, run_folder, training
from pipelines.config import Config
from pipelines.experiment import read
from pipelines.plots import COLOURS

SIDES = {
    "Keras": "benchmarks.speedrun:ours",
    "PyTorch": "benchmarks.pytorch:speedrun",
}
TARGET = 0.6104  # the write-up's best


def ours(config: dict) -> Callable[[str], None]:
    """Makes a function that trains a run and writes what came of it to a file.

    Args:
        config: The fields of the run's `Config`.

    Returns:
        The function of the file. It writes the seconds of training, which begin when
        the data are in memory and end after the last epoch's validation, the test
        accuracy, and the history.
    """
    recipe = Config(**config)
    dataset = training.load_data(recipe)

    def trained(out: str):
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder) / run_folder.EXTRA
            started = time.perf_counter()
            model, _ = training.fit(recipe, dataset, work, verbose=0)
            seconds = time.perf_counter() - started
            history = run_folder.read_history(Path(folder))
        served = training.serving_copy(recipe, dataset, model)
        classes = len(dataset.class_names)
        _, accuracy = served.evaluate(
            batching.batches(dataset.test, classes), verbose=0
        )
        keep(Path(out), seconds, accuracy, history)

    return trained


def keep(out: Path, seconds: float, accuracy: float, history: dict):
    """Writes what came of a run to a file."""
    kept = {"seconds": seconds, "test accuracy": accuracy, "history": history}
    out.write_text(json.dumps(kept))


def means(found: Sequence[dict]) -> dict[str, dict[str, float]]:
    """The means of each side over its runs."""
    return {
        name: {
            key: statistics.mean(row[key] for row in rows)
            for key in ("seconds", "test accuracy")
        }
        for name, rows in runner.by("side", found).items()
    }


def ratio(found: Sequence[dict]) -> float | None:
    """The median ratio of our time to PyTorch's, over the seeds that both trained."""
    taken = {name: {} for name in SIDES}
    for row in found:
        taken[row["side"]][row["seed"]] = row["seconds"]
    both = taken["PyTorch"].items()
    ratios = [taken["Keras"][seed] / seconds for seed, seconds in both]
    return statistics.median(ratios) if ratios else None


def plot(result: dict) -> plots.Figure:
    figure, axes = plots.figure(8, 4.5)
    colours = dict(zip(SIDES, COLOURS, strict=False))
    for row in result["runs"]:
        validated = row["history"]["val_accuracy"]
        epochs = len(validated)
        minutes = [row["seconds"] / 60 * (i + 1) / epochs for i in range(epochs)]
        colour = colours[row["side"]]
        axes.plot(minutes, validated, color=colour, linewidth=1)
        axes.plot(minutes[-1:], [row["test accuracy"]], "o", color=colour)
    for name, colour in colours.items():
        axes.plot([], [], color=colour, label=name)
    axes.axhline(TARGET, color=plots.GREY, linewidth=1, label=f"{TARGET:.2%}")
    axes.set(xlabel="minutes of training", ylabel="validation accuracy")
    axes.set_title("The speedrun; points are test accuracies", fontsize=11)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def page(result: dict) -> list[str]:
    means = [
        {"side": name, "seed": "mean", **mean} for name, mean in result["means"].items()
    ]
    cells = [
        {
            "side": row["side"],
            "seed": row["seed"],
            "seconds of training": f"{row['seconds']:.0f}",
            "test accuracy": f"{row['test accuracy']:.2%}",
        }
        for row in [*result["runs"], *means]
    ]
    parts = [
        "# The speedrun",
        "The recipe of experiments/speedrun.yaml on CIFAR-100: training from the data "
        "in memory to the last validation, compilation included; accuracy on the "
        "10,000 test images, as they are.",
        "![Validation accuracy by time](speedrun.png)",
        runner.table(cells),
    ]
    if result["to PyTorch"]:
        parts.append(
            f"Keras takes {result['to PyTorch']:.2f} times PyTorch's time, the median "
            "over the seeds that both trained."
        )
    return parts


def measured(
    beside: int = 3, experiment: Path = Path("experiments/speedrun.yaml")
) -> dict:
    """Trains the runs one after the other, the first of them in PyTorch too.

    Args:
        beside: How many runs PyTorch trains too, each next to ours.
        experiment: The file of the runs.
    """
    configs = [planned.config for planned in read(experiment).runs]
    found = []
    for number, config in enumerate(configs):
        for name, maker in SIDES.items():
            if name == "Keras" or number < beside:
                trained = written(maker, config=dataclasses.asdict(config))
                found.append({"side": name, "seed": config.seed, **trained})
                print(
                    f"{name}, seed {config.seed}: {trained['test accuracy']:.2%} in "
                    f"{trained['seconds']:.0f} s",
                    flush=True,
                )
    return {
        "recipe": dataclasses.asdict(configs[0]),
        "runs": found,
        "means": means(found),
        "to PyTorch": ratio(found),
    }


main = runner.command("speedrun", measured, page, plot)


if __name__ == "__main__":
    main()
