"""TensorFlow's settings, tried on a training step: `python -m benchmarks.settings`.

Trains ResNet-12 on one batch, again and again, under settings of TensorFlow's threads,
of oneDNN, of XLA and of kerasoft, each in a process of its own and in turn, and writes
results/benchmarks/settings.*. Takes 11 minutes on two cores, most without oneDNN.
"""

from __future__ import annotations

import statistics

from benchmarks import measure, plots, runner

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


def measured(
    rounds: int = 9,
    width: int = 16,
    precision: str = "mixed_bfloat16",
    batch_size: int = 128,
    steps: int = 20,
) -> dict:
    """Times a step under each of the settings, in turn.

    Args:
        rounds: Measurements of each.
        width, precision, batch_size: As in a config.
        steps: Of a measurement.
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
    rows = [
        {
            "settings": name,
            "variables": SETTINGS[name][0],
            "options": SETTINGS[name][1],
            "milliseconds a step": 1000 * statistics.median(seconds) / steps,
            **measure.ratio("to none", seconds, taken[AS_IT_IS]),
        }
        for name, seconds in taken.items()
    ]
    return {"rows": rows}


def plot(result: dict) -> plots.Figure:
    figure, axes = plots.figure(8, 4)
    ratios = {row["settings"]: row["to none"] for row in result["rows"]}
    words = [f"{row['milliseconds a step']:,.0f} ms" for row in result["rows"]]
    plots.bars(axes, ratios, words)
    axes.axvline(1, color=plots.GREY, linewidth=1)
    axes.margins(x=0.25)
    axes.set_xscale("log")
    axes.set_xlabel("time of a step, as a ratio to that without settings")
    return figure


def page(result: dict) -> list[str]:
    def given(row: dict) -> str:
        options = {f"--{name}": value for name, value in row["options"].items()}
        return " ".join(f"`{k}={v}`" for k, v in (row["variables"] | options).items())

    cells = [
        {
            "settings": row["settings"],
            "": given(row),
            "milliseconds a step": f"{row['milliseconds a step']:.1f}",
            "to none": runner.ratio(row, "to none"),
        }
        for row in result["rows"]
    ]
    return [
        "# Settings of TensorFlow, on a training step",
        f"ResNet-12 of width {result['width']} in {result['precision']}; medians of "
        f"{result['rounds']} rounds of {result['steps']} steps on one batch of "
        f"{result['batch_size']}.",
        "![Time of a step under each of the settings](settings.png)",
        runner.table(cells, "settings", ""),
    ]


main = runner.command("settings", measured, page, plot)


if __name__ == "__main__":
    main()
