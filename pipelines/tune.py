"""Searches the temperature: `python -m pipelines.tune --head log_gumbel_softmax`.

With Keras Tuner's own environment variables it spreads the trials over machines, see
docs/many-machines.md.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from pipelines.commands import command
from pipelines.config import Config
from pipelines.errors import InputError
from pipelines.options import config_of, config_parser, parse
from pipelines.search import CHIEF, Search, config_of_trial, role, shortest

EPOCHS = 3


@command
def main(argv: Sequence[str] | None = None) -> int:
    options = config_parser(
        "tune",
        "Searches the temperature of a Gumbel head.",
        "--head gumbel_softmax --search schedule --trials 20",
    )
    options.add_class_arguments(Search)
    options.set_defaults({"head": "log_gumbel_softmax", "epochs": EPOCHS})
    options.add_argument(
        "--searches", type=Path, default="searches", help="Where searches are kept."
    )
    options.add_argument(
        "--overwrite", action="store_true", help="Start anew, if the search is there."
    )
    given = parse(options, argv)
    if role() not in ("", CHIEF) and not os.environ.get("KERASTUNER_ORACLE_IP"):
        raise InputError(
            f"KERASTUNER_TUNER_ID={role()} makes this a worker, whose chief is at "
            "KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT; they are not set."
        )
    search = Search(**{f.name: given[f.name] for f in dataclasses.fields(Search)})
    base = config_of(given)
    from pipelines import checks, datasets, tuning

    checks.check_objective(search)
    # Trials are short unless it was asked for; what they find is trained as usual.
    asked = options.parse_args(argv, defaults=False)
    epochs = None if "epochs" in asked else Config.epochs
    if base.temperature is not None:
        raise InputError(
            "temperature is what is searched; --lowest and --highest bound it. "
            f"Received: {base.temperature}"
        )
    config_of_trial(base, {"temperature": 1.0})  # whether the head has one
    if search.algorithm == "hyperband":
        least = shortest(base.epochs)
        try:
            config_of_trial(base, {"temperature": 1.0, "tuner/epochs": least})
        except InputError as error:
            raise InputError(f"Of Hyperband's shortest trial: {error}") from error
    checks.check_backbone(base)
    base = dataclasses.replace(base, dataset=datasets.resolve(base.dataset))
    parts = (base.run_name, search.search, search.algorithm, search.objective)
    folder = given.searches / "-".join(parts)
    try:
        best = tuning.tune(base, search, folder, given.overwrite, epochs)
    except RuntimeError as error:
        # What follows its first line is where the last trial failed.
        print(f"error: {str(error).splitlines()[0]}", file=sys.stderr)
        return 1
    if best:
        print(f"next: python -m pipelines.train --config {best}")
    return 0


if __name__ == "__main__":
    main()
