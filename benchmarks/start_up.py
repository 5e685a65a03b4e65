"""From the command to the first training step: `python -m benchmarks.start_up`.

Starts a training several times, each in a new process, notes how long every stage
takes, and writes results/benchmarks/start_up.*.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time

from benchmarks import plots, runner
from pipelines import datasets

STAGES = (
    "start Python",
    "import TensorFlow",
    "import Keras",
    "import the rest",
    "load the data",
    "build the model",
    "step 1",
)


def start(dataset: str) -> dict[str, float]:
    """Starts a training and gives the seconds of each stage, to the second step."""
    options = json.dumps({"dataset": dataset})
    child = subprocess.run(
        [sys.executable, "-m", "benchmarks.first_step", str(time.time()), options],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(child.stdout.splitlines()[-1])


def plot(result: dict) -> plots.Figure:
    figure, axes = plots.figure(8, 3)
    taken = {name: result["stages"][name] for name in STAGES}
    plots.bars(axes, taken, [f"{seconds:.2f}" for seconds in taken.values()])
    axes.set_xlabel("seconds")
    return figure


def page(result: dict) -> list[str]:
    stages, total = result["stages"], result["seconds to the first step"]
    cells = [
        {
            "stage": name,
            "seconds": f"{stages[name]:.2f}",
            "share": f"{stages[name] / total:.0%}",
        }
        for name in STAGES
    ]
    return [
        "# From the command to the first training step",
        f"Medians of {result['rounds']} starts, after one that fills the file cache; "
        f"{result['dataset']}, ResNet-12 of width 16.",
        "![Seconds of each stage](start_up.png)",
        f"{runner.table(cells)}\n| to the end of the first step | {total:.2f} | |",
        f"Step 1 traces and compiles the graph; step 2 takes {stages['step 2']:.2f} s.",
    ]


def measured(rounds: int = 5, dataset: str = "auto") -> dict:
    """Times the start of a training.

    Args:
        rounds: Starts, after one that fills the file cache.
        dataset: To train on.
    """
    name = datasets.resolve(dataset)
    start(name)
    starts = [start(name) for _ in range(rounds)]
    stages = {
        stage: statistics.median(one[stage] for one in starts) for stage in starts[0]
    }
    totals = [sum(one[stage] for stage in STAGES) for one in starts]
    return {
        "dataset": name,
        "stages": stages,
        "seconds to the first step": statistics.median(totals),
    }


main = runner.command("start_up", measured, page, plot)


if __name__ == "__main__":
    main()
