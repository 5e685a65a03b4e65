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
from collections.abc import Sequence

import matplotlib.figure

from benchmarks import measure
from pipelines import datasets
from pipelines.config import command, parse
from pipelines.figures import COLOURS

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


def plot(stages: dict[str, float]) -> matplotlib.figure.Figure:
    made = matplotlib.figure.Figure((8, 3), layout="constrained")
    axes = made.subplots()
    taken = [stages[name] for name in STAGES]
    bars = axes.barh(STAGES, taken, color=COLOURS[0])
    axes.bar_label(bars, [f"{seconds:.2f}" for seconds in taken], padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.set_xlabel("seconds")
    return made


def markdown(result: dict) -> str:
    stages, total = result["stages"], result["seconds to the first step"]
    lines = [
        "# From the command to the first training step",
        "",
        f"`{result['made_by']}`, on {measure.described(result['machine'])}. Medians of "
        f"{result['rounds']} starts, after one that fills the file cache; "
        f"{result['dataset']}, ResNet-12 of width 16.",
        "",
        "![Seconds of each stage](start_up.png)",
        "",
        "| stage | seconds | share |",
        "|---|---:|---:|",
    ]
    lines += [
        f"| {name} | {stages[name]:.2f} | {stages[name] / total:.0%} |"
        for name in STAGES
    ]
    lines += [
        f"| to the end of the first step | {total:.2f} | |",
        "",
        f"Step 1 traces and compiles the graph; step 2 takes {stages['step 2']:.2f} s.",
    ]
    return "\n".join(lines) + "\n"


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = measure.parser("start_up", "Times the start of a training.", rounds=5)
    parser.add_argument("--dataset", type=str, default="auto")
    given = parse(parser, argv)
    begun = measure.begun(parser, given)
    dataset = datasets.resolve(given.dataset)
    start(dataset)
    starts = [start(dataset) for _ in range(given.rounds)]
    stages = {
        name: statistics.median(one[name] for one in starts) for name in starts[0]
    }
    totals = [sum(one[name] for name in STAGES) for one in starts]
    result = begun | {
        "dataset": dataset,
        "stages": stages,
        "seconds to the first step": statistics.median(totals),
    }
    measure.publish(given.out, "start_up", result, markdown(result), plot(stages))
    return 0


if __name__ == "__main__":
    main()
