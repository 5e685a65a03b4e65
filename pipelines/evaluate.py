"""Compares runs: `python -m pipelines.evaluate saved_models/*`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from pipelines.commands import command
from pipelines.options import parse, parser
from pipelines.quiet import import_tensorflow


@command
def main(argv: Sequence[str] | None = None) -> int:
    options = parser(
        "evaluate",
        "Compares runs, as JSON, CSV, Markdown, PNG and one HTML page.",
        "saved_models/* --out results/mine",
    )
    options.add_argument(
        "runs", type=Path, nargs="+", help="Folders of runs or exports."
    )
    options.add_argument(
        "--out", type=Path, default="results/comparison", help="The folder to write."
    )
    options.add_argument(
        "--timings", type=bool, default=True, help="Measure latency and throughput."
    )
    options.add_argument(
        "--probabilities",
        type=Path | None,
        help="A folder for each run's probabilities on the test images.",
    )
    options.add_argument(
        "--shift",
        action="store_true",
        help="Judge the runs on corrupted test images too: 40 times as many.",
    )
    options.add_argument(
        "--ood",
        type=str | None,
        help="A data set whose images the runs should be less sure of.",
    )
    given = parse(options, argv)
    asked = ["--shift"] * given.shift + ["--ood", given.ood] * bool(given.ood)
    import_tensorflow()
    from pipelines import evaluation, tables

    results = evaluation.evaluate(
        given.runs,
        given.out,
        timings=given.timings,
        probabilities=given.probabilities,
        made_by="python -m pipelines.evaluate "
        + shlex.join([*map(str, given.runs), *asked]),
        shift=given.shift,
        ood=given.ood,
    )
    print(tables.in_short(results.comparison.tables), end="")
    print(f"next: open {given.out / 'comparison.html'} in a browser")
    return 0


if __name__ == "__main__":
    main()
