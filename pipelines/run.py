"""Runs an experiment: `python -m pipelines.run experiments/NAME.yaml`."""

from __future__ import annotations

import functools
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from pipelines.commands import command
from pipelines.errors import InputError
from pipelines.options import parse, parser
from pipelines.quiet import import_tensorflow


@command
def main(argv: Sequence[str] | None = None) -> int:
    options = parser(
        "run",
        "Trains every run of an experiment and compares them.",
        "experiments/quickstart.yaml --jobs 2",
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
        "--ray",
        type=str | None,
        help="The address of a Ray cluster to train on, as HOST:6379, auto or local; "
        "then --jobs is for each machine.",
    )
    options.add_argument(
        "--gpus_per_run",
        type=float,
        default=0.0,
        help="With --ray: the GPUs of a run, or the share of one, as 0.5.",
    )
    options.add_argument(
        "--dry-run", action="store_true", help="Print the plan, and do nothing."
    )
    given = parse(options, argv)
    if given.gpus_per_run and given.ray is None:
        raise InputError("--gpus_per_run goes with --ray.")
    import_tensorflow()
    from pipelines import experiment, running, tables

    if given.dry_run:
        configs = [one.config for one in experiment.read(given.experiment).runs]
        print(running.plan(configs, given.saved_models))
        return 0
    # As Ctrl-C does, so that the trainer ends with this process.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    out = given.out or Path("results") / given.experiment.stem
    if given.ray is None:
        train = functools.partial(running.train_all, jobs=given.jobs)
    else:
        from pipelines import ray_cluster

        train = functools.partial(
            ray_cluster.train_all,
            address=given.ray,
            jobs=given.jobs,
            gpus=given.gpus_per_run,
        )
    failures, compared = running.run(given.experiment, given.saved_models, out, train)
    for name, reason in failures.items():
        print(f"failed: {name}: {reason}", file=sys.stderr)
    if compared:
        print(tables.in_short(compared.comparison.tables), end="")
        print(f"next: open {out / 'comparison.html'} in a browser")
    return 1 if failures else 0


if __name__ == "__main__":
    main()
