"""The write-up's table beside ours, as the documents show it.

    python docs/writeup_table.py

It reads results/writeup/comparison.json, which `python -m pipelines.run
experiments/writeup.yaml` wrote.
"""

import json
import statistics
from pathlib import Path

from pipelines.tables import percent

RESULTS = Path(__file__).parents[1] / "results" / "writeup" / "comparison.json"
LOSS = ("loss", "seed")


def reported(value) -> str:
    """A figure of the write-up, as it gives it."""
    if isinstance(value, str):
        return value
    return "" if value is None else f"{100 * value:.4g} %"


def table(comparison: dict) -> str:
    """A row for each of the write-up's: its accuracy, ours, ours with matched loss."""
    rows = [
        (entry["runs"][row["run"]], row)
        for entry in comparison["tables"]
        for row in entry["rows"]
        if not row["samples"]
    ]

    def alike(config):
        return {name: value for name, value in config.items() if name not in LOSS}

    lines = [
        "| head | reported | ours, as logits | F1 reported | ours | ours, matched |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for run, row in rows:
        if not run["reported"]:
            continue
        matched = [
            other["metrics"]["accuracy"]
            for partner, other in rows
            if partner["config"]["loss"] == "matched"
            and alike(partner["config"]) == alike(run["config"])
        ]
        words = percent(statistics.fmean(matched))
        if len(matched) > 1:
            deviation = 100 * statistics.stdev(matched)
            words = f"{words.removesuffix(' %')} ± {deviation:.2f} %"
        low, high = row["intervals"]["accuracy"]
        f1 = run["reported"].get("f1", "")
        cells = [
            run["reported"]["row"],
            reported(run["reported"].get("accuracy")),
            f"{percent(row['metrics']['accuracy'])} "
            f"({100 * low:.2f} to {100 * high:.2f})",
            f1 if isinstance(f1, str) else f"{f1:g}",
            f"{row['metrics']['f1']:.4f}",
            words,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(json.loads(RESULTS.read_text("utf-8"))))
