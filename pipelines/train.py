"""Trains one run: `python -m pipelines.train --head log_softmax`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipelines.commands import command
from pipelines.options import config_of, config_parser, parse


@command
def main(argv: Sequence[str] | None = None) -> int:
    options = config_parser(
        "train",
        "Trains one run and leaves it as a SavedModel.",
        "--head gumbel_softmax --temperature 3 --dataset cifar100",
    )
    options.add_argument(
        "--saved_models", type=Path, default="saved_models", help="Where runs are kept."
    )
    options.add_argument(
        "--resume", action="store_true", help="Go on with the run, if it was stopped."
    )
    options.add_argument(
        "--overwrite", action="store_true", help="Replace the run, if it is there."
    )
    given = parse(options, argv)
    config = config_of(given)
    from pipelines import run_folder, training

    path = training.train(config, given.saved_models, given.resume, given.overwrite)
    record = run_folder.read_record(path)
    print(
        f"test ({record.dataset.test:,} images): "
        + ", ".join(f"{name} {value:.4f}" for name, value in record.metrics.items())
    )
    print(f"next: python -m pipelines.predict {path} IMAGE...")
    return 0


if __name__ == "__main__":
    main()
