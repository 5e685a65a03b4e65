"""TensorFlow's settings, tried on a training step: `python -m benchmarks.settings`.

Trains ResNet-12 on one batch, again and again, under settings of TensorFlow's threads,
of oneDNN, of XLA and of kerasoft, each in a process of its own and in turn, and writes
results/benchmarks/settings.*. Takes 11 minutes on two cores, most without oneDNN.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import matplotlib.figure

from benchmarks import measure
from pipelines.config import command, parse
from pipelines.figures import COLOURS

AS_IT_IS = "as it is"
SETTINGS: dict[str, tuple[dict[str, str], dict]] = {
    # by name: variables of the environment, and options of the run
    AS_IT_IS: ({}, {}),
    "ten steps in a call": ({}, {"steps_per_execution": 10}),
    "one op at a time": ({"TF_NUM_INTEROP_THREADS": "1"}, {}),
    "one thread an op": ({"TF_NUM_INTRAOP_THREADS": "1"}, {}),
    "oneDNN on the calling thread too": (
        {"TF_ONEDNN_THREADPOOL_USE_CALLER_THREAD": "true"},
        {},
    ),
    "oneDNN in its own layouts": ({"TF_ENABLE_MKL_NATIVE_FORMAT": "0"}, {}),
    "no oneDNN": ({"TF_ENABLE_ONEDNN_OPTS": "0"}, {}),
    "XLA where TensorFlow sees fit": (
        {"TF_XLA_FLAGS": "--tf_xla_auto_jit=2 --tf_xla_cpu_global_jit"},
        {},
    ),
}


def compare(width: int, precision: str, batch_size: int, steps: int, rounds: int):
    """Times a step under each of the settings, in turn.

    Returns:
        A row for each: milliseconds a step, and the ratio to those without settings.
    """
    shared = {"width": width, "precision": precision, "batch_size": batch_size}
    maker = "benchmarks.train_step:training"
    taken = measure.sides_in_turn(
        {
            name: (maker, {**shared, **options}, steps)
            for name, (_, options) in SETTINGS.items()
        },
        rounds,
        {name: variables for name, (variables, _) in SETTINGS.items()},
    )
    return [
        {
            "settings": name,
            "variables": SETTINGS[name][0],
            "options": SETTINGS[name][1],
            "milliseconds a step": 1000 * statistics.median(seconds) / steps,
            "to none": measure.ratio(seconds, taken[AS_IT_IS]),
        }
        for name, seconds in taken.items()
    ]


def plot(rows: Sequence[dict]) -> matplotlib.figure.Figure:
    made = matplotlib.figure.Figure((8, 4), layout="constrained")
    axes = made.subplots()
    names = [row["settings"] for row in rows]
    bars = axes.barh(names, [row["to none"] for row in rows], color=COLOURS[0])
    words = [f"{row['milliseconds a step']:,.0f} ms" for row in rows]
    axes.bar_label(bars, words, padding=3)
    axes.axvline(1, color=COLOURS[7], linewidth=1)
    axes.invert_yaxis()
    axes.margins(x=0.25)
    axes.set_xscale("log")
    axes.set_xlabel("time of a step, as a ratio to that without settings")
    return made


def markdown(result: dict) -> str:
    lines = [
        "# Settings of TensorFlow, on a training step",
        "",
        f"`{result['made_by']}`, on {measure.described(result['machine'])}. ResNet-12 "
        f"of width {result['width']} in {result['precision']}; medians of "
        f"{result['rounds']} rounds of {result['steps']} steps on one batch of "
        f"{result['batch_size']}.",
        "",
        "![Time of a step under each of the settings](settings.png)",
        "",
        "| settings | | milliseconds a step | to none |",
        "|---|---|---:|---:|",
    ]
    for row in result["rows"]:
        options = {f"--{name}": value for name, value in row["options"].items()}
        given = [f"`{k}={v}`" for k, v in {**row["variables"], **options}.items()]
        lines += [
            f"| {row['settings']} | {' '.join(given)} "
            f"| {row['milliseconds a step']:.1f} | {row['to none']:.2f} |"
        ]
    return "\n".join(lines) + "\n"


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = measure.parser("settings", "Times a step under settings.", rounds=9)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--precision", type=str, default="mixed_bfloat16")
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=20, help="Of a measurement.")
    given = parse(parser, argv)
    begun = measure.begun(parser, given)
    rows = compare(
        given.width, given.precision, given.batch_size, given.steps, given.rounds
    )
    result = begun | {"rows": rows}
    measure.publish(given.out, "settings", result, markdown(result), plot(rows))
    return 0


if __name__ == "__main__":
    main()
