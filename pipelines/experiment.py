"""An experiment: a file of runs to train and to compare.

An experiment is a YAML file with `defaults`, options of `pipelines.train`, and `runs`,
a list of options of which any may be a list: a run for every combination. What an
option of a run says wins over the defaults. `reported`, beside the options of a run,
holds figures from elsewhere that the comparison shows beside ours.

`contrasts` lists pairs of configurations to compare over their seeds, each as options
that it alone has. `margin` is the difference of accuracy, in points, that is too small
to matter.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pipelines import checks, datasets, plain_yaml
from pipelines.between_runs import MARGIN
from pipelines.config import Config
from pipelines.errors import InputError, brief
from pipelines.metrics import METRICS
from pipelines.options import config_of, config_parser, parse

MAX_RUNS = 10_000
SEED = {"seed": 0}  # of a configuration, which has several
TESTED_BY = ("dataset", "label", "classes", "image_size")


class Planned(NamedTuple):
    """A run to make: its config, and figures from elsewhere to show beside it."""

    config: Config
    reported: dict[str, Any] | None


class Experiment(NamedTuple):
    """What a file says: runs, each once, and what to compare.

    Attributes:
        runs: In the order of the file.
        contrasts: Pairs of configurations, with seed 0.
        margin: The difference of accuracy that is too small to matter.
    """

    runs: list[Planned]
    contrasts: list[tuple[Config, Config]]
    margin: float


def read(path: Path) -> Experiment:
    """Reads an experiment.

    Raises:
        InputError: What is wrong with the file, and in which run.
    """
    content = plain_yaml.read(path)
    if not (
        isinstance(content, dict)
        and set(content) <= {"defaults", "runs", "contrasts", "margin"}
        and isinstance(content.get("defaults", {}), dict)
        and isinstance(content.get("runs"), list)
        and all(isinstance(run, dict) for run in content["runs"])
    ):
        raise InputError(
            f"{path} must hold `defaults`, options of pipelines.train, and `runs`, a "
            "list of options; it may hold `contrasts` and `margin`."
        )
    reported = [run.pop("reported", None) for run in content["runs"]]
    entries = [content.get("defaults", {}) | run for run in content["runs"]]
    count = sum(map(count_combinations, entries))
    if not 0 < count <= MAX_RUNS:
        raise InputError(
            f"{path} must hold at least 1 run and at most {MAX_RUNS:,}. A list of an "
            "option counts as many runs as it has values. Received: "
            f"{count if count < 10**9 else 'over 10**9'}"
        )
    options = config_parser("train", "", "")
    resolve = functools.cache(datasets.resolve)  # says so in a line each time
    planned: dict[Config, Planned] = {}
    for number, (entry, figures) in enumerate(
        zip(entries, reported, strict=True), start=1
    ):
        try:
            check_reported(figures)
            if not count_combinations(entry):
                raise InputError("an option has a list without values.")
            for fields in combinations(entry):
                config = config_of(parse(options, fields))
                checks.check_backbone(config)
                config = dataclasses.replace(config, dataset=resolve(config.dataset))
                known = planned.get(config, Planned(config, None))
                planned[config] = Planned(config, known.reported or figures)
        except InputError as error:
            raise InputError(f"Run {number} of {path}: {error}") from error
    _check_names(planned, path)
    unseeded = dict.fromkeys(dataclasses.replace(c, seed=0) for c in planned)

    def config_with(entry):
        if "seed" in entry:
            raise InputError(
                f"a contrast is over all seeds; omit seed. Received: {brief(entry)}"
            )
        given = config_of(parse(options, content.get("defaults", {}) | entry | SEED))
        found = [
            config
            for config in unseeded
            if all(getattr(config, name) == getattr(given, name) for name in entry)
        ]
        if len(found) != 1:
            raise InputError(
                f"{len(found) or 'no'} configurations have the options {brief(entry)}; "
                "they must be those of one."
            )
        return found[0]

    return Experiment(
        runs=list(planned.values()),
        contrasts=_contrasts(content.get("contrasts", []), config_with, path),
        margin=_margin(content.get("margin", 100 * MARGIN)),
    )


def _check_names(configs: Iterable[Config], path: Path):
    """Refuses two runs of one name, which would be one folder."""
    names = Counter(config.run_name for config in configs)
    if shared := [name for name, count in names.items() if count > 1]:
        raise InputError(
            f"{path} has several runs that would be named {shared[0]}, as where two "
            "folders of images have the same name; rename one of them."
        )


def _contrasts(
    pairs: Any, config_with: Callable[[dict], Config], path: Path
) -> list[tuple[Config, Config]]:
    if not isinstance(pairs, list):
        raise InputError(f"contrasts must be a list of pairs. Received: {brief(pairs)}")
    found = []
    for number, pair in enumerate(pairs, start=1):
        try:
            if not (
                isinstance(pair, list)
                and len(pair) == 2
                and all(isinstance(options, dict) for options in pair)
            ):
                raise InputError(
                    "it must be two mappings of options, such as [{head: softmax}, "
                    f"{{head: log_softmax}}]. Received: {brief(pair)}"
                )
            a, b = map(config_with, pair)
            if a == b:
                raise InputError(f"both are the same. Received: {brief(pair)}")
            if any(getattr(a, name) != getattr(b, name) for name in TESTED_BY):
                raise InputError(
                    f"both must have the same {', '.join(TESTED_BY)}, or they are "
                    f"tested on different images. Received: {brief(pair)}"
                )
        except InputError as error:
            raise InputError(f"Contrast {number} of {path}: {error}") from error
        found.append((a, b))
    return found


def _margin(points: Any) -> float:
    number = isinstance(points, int | float) and not isinstance(points, bool)
    if not number or not 0 < points < 100:
        raise InputError(
            "margin must be a number of points above 0 and below 100. "
            f"Received: {brief(points)}"
        )
    return points / 100


def check_reported(figures: Any):
    """Checks figures from elsewhere.

    Raises:
        InputError: If a comparison could not show them.
    """

    def shown(name: str, value: Any) -> bool:
        if isinstance(value, str):
            return name == "row" or name in METRICS
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return name in METRICS and number and math.isfinite(value)

    if figures is None:
        return
    if not (
        isinstance(figures, dict) and all(itertools.starmap(shown, figures.items()))
    ):
        raise InputError(
            "reported must hold a string as `row`, and numbers or strings as any of "
            f"{', '.join(METRICS)}. Received: {brief(figures)}"
        )


def count_combinations(fields: Mapping[str, Any]) -> int:
    return math.prod(len(v) for v in fields.values() if isinstance(v, list))


def combinations(fields: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every combination of the fields, the values of a list taken one by one."""
    axes = [value if isinstance(value, list) else [value] for value in fields.values()]
    for values in itertools.product(*axes):
        yield dict(zip(fields, values, strict=True))
