"""Runs an experiment: `python -m pipelines.run experiments/NAME.yaml`."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import jsonargparse

from pipelines.commands import command
from pipelines.options import parse
from pipelines.quiet import import_tensorflow


@command
def main(argv: Sequence[str] | None = None) -> int:
    options = jsonargparse.ArgumentParser(
        prog="python -m pipelines.run",
        description="Trains every run of an experiment and compares them.",
        exit_on_error=False,
    )
    options.add_argument("experiment", type=Path, help="A file of experiments/.")
    options.add_argument(
        "--saved_models", type=Path, default="saved_models", help="Where runs are kept."
    )
    options.add_argument(
        "--out", type=Path | None, help="The comparison's folder, results/NAME if none."
    )
    options.add_argument(
        "--jobs",
        type=int,
        default=1,
        help="How many runs to train at once, each on its share of the cores.",
    )
    options.add_argument(
        "--dry-run", action="store_true", help="Print the plan, and do nothing."
    )
    given = parse(options, argv)
    import_tensorflow()
    from pipelines import experiment, running

    if given.dry_run:
        configs = [one.config for one in experiment.read(given.experiment).runs]
        print(running.plan(configs, given.saved_models))
        return 0
    # As Ctrl-C does, so that the trainer ends with this process.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    out = given.out or Path("results") / given.experiment.stem
    failures, compared = running.run(
        given.experiment, given.saved_models, out, given.jobs
    )
    for name, reason in failures.items():
        print(f"failed: {name}: {reason}", file=sys.stderr)
    if compared:
        print(f"next: open {out / 'comparison.html'} in a browser")
    return 1 if failures else 0


if __name__ == "__main__":
    main()
