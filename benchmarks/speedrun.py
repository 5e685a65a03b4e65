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

import matplotlib.figure

from benchmarks import measure
from benchmarks.sides import written
from pipelines import batching, run, runs, saved_model, train
from pipelines.config import Config, command, parse
from pipelines.figures import COLOURS

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
    read = Config(**config)
    dataset = train.load_data(read)

    def trained(out: str):
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder) / saved_model.EXTRA
            started = time.perf_counter()
            model, _ = train.fit(read, dataset, work, verbose=0)
            seconds = time.perf_counter() - started
            history = runs.read_history(Path(folder))
        served = train.serving_copy(read, dataset, model)
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


def compare(configs: Sequence[Config], beside: int) -> list[dict]:
    """Trains the configs one after the other, the first of them in PyTorch too.

    Args:
        configs: The runs.
        beside: How many of them PyTorch trains, each next to ours.

    Returns:
        What came of each run.
    """
    found = []
    for number, config in enumerate(configs):
        for name, maker in SIDES.items():
            if name != "Keras" and number >= beside:
                continue
            trained = written(maker, config=dataclasses.asdict(config))
            row = {"side": name, "seed": config.seed, **trained}
            found.append(row)
            print(
                f"{name}, seed {config.seed}: {row['test accuracy']:.2%} in "
                f"{row['seconds']:.0f} s",
                flush=True,
            )
    return found


def means(found: Sequence[dict]) -> dict[str, dict[str, float]]:
    """The means of each side over its runs."""
    made = {}
    for name in SIDES:
        rows = [row for row in found if row["side"] == name]
        if rows:
            made[name] = {
                key: statistics.mean(row[key] for row in rows)
                for key in ("seconds", "test accuracy")
            }
    return made


def ratio(found: Sequence[dict]) -> float | None:
    """The median ratio of our time to PyTorch's, over the seeds that both trained."""
    taken = {name: {} for name in SIDES}
    for row in found:
        taken[row["side"]][row["seed"]] = row["seconds"]
    both = taken["PyTorch"].items()
    ratios = [taken["Keras"][seed] / seconds for seed, seconds in both]
    return statistics.median(ratios) if ratios else None


def plot(found: Sequence[dict]) -> matplotlib.figure.Figure:
    made = matplotlib.figure.Figure((8, 4.5), layout="constrained")
    axes = made.subplots()
    for row in found:
        validated = row["history"]["val_accuracy"]
        minutes = [
            row["seconds"] / 60 * (i + 1) / len(validated)
            for i in range(len(validated))
        ]
        place = list(SIDES).index(row["side"])
        axes.plot(minutes, validated, color=COLOURS[place], linewidth=1)
        axes.plot(minutes[-1:], [row["test accuracy"]], "o", color=COLOURS[place])
    for i, name in enumerate(SIDES):
        axes.plot([], [], color=COLOURS[i], label=name)
    axes.axhline(TARGET, color=COLOURS[7], linewidth=1, label=f"{TARGET:.2%}")
    axes.set(xlabel="minutes of training", ylabel="validation accuracy")
    axes.set_title("The speedrun; points are test accuracies", fontsize=11)
    axes.grid(alpha=0.3)
    axes.legend()
    return made


def markdown(result: dict) -> str:
    lines = [
        "# The speedrun",
        "",
        f"`{result['made_by']}`, on {measure.described(result['machine'])}. The recipe "
        "of experiments/speedrun.yaml on CIFAR-100: training from the data in memory "
        "to the last validation, compilation included; accuracy on the 10,000 test "
        "images, as they are.",
        "",
        "![Validation accuracy by time](speedrun.png)",
        "",
        "| side | seed | seconds of training | test accuracy |",
        "|---|---:|---:|---:|",
    ]
    lines += [
        f"| {row['side']} | {row['seed']} | {row['seconds']:.0f} "
        f"| {row['test accuracy']:.2%} |"
        for row in result["runs"]
    ]
    lines += [
        f"| {name} | mean | {mean['seconds']:.0f} | {mean['test accuracy']:.2%} |"
        for name, mean in result["means"].items()
    ]
    if result["to PyTorch"]:
        lines += [
            "",
            f"Keras takes {result['to PyTorch']:.2f} times PyTorch's time, the median "
            "over the seeds that both trained.",
        ]
    return "\n".join(lines) + "\n"


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = measure.parser(
        "speedrun", "Trains the speedrun, in Keras and in PyTorch.", rounds=None
    )
    parser.add_argument(
        "--beside", type=int, default=3, help="How many runs PyTorch trains too."
    )
    parser.add_argument("--experiment", type=Path, default="experiments/speedrun.yaml")
    given = parse(parser, argv)
    begun = measure.begun(parser, given)
    configs = [planned.config for planned in run.read(given.experiment)]
    found = compare(configs, given.beside)
    result = begun | {
        "recipe": dataclasses.asdict(configs[0]),
        "runs": found,
        "means": means(found),
        "to PyTorch": ratio(found),
    }
    measure.publish(given.out, "speedrun", result, markdown(result), plot(found))
    return 0


if __name__ == "__main__":
    main()
