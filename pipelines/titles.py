"""What to call runs beside each other."""

from __future__ import annotations

import dataclasses
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence

from pipelines.config import Annealing, Config, digits


def headings(configs: Mapping[str, Config]) -> dict[str, str]:
    """The titles of runs; those of the same config are told apart by their names.

    What these begin with in common goes without saying, so that an export, `NAME-onnx`,
    is called `onnx` beside its run.
    """
    found = dict(zip(configs, titles(list(configs.values())), strict=True))
    alike = defaultdict(list)
    for name, title in found.items():
        alike[title].append(name)
    headings = {}
    for name, title in found.items():
        shared = os.path.commonprefix(alike[title])  # noqa: RUF071
        own = name.removeprefix(shared).strip("-/")
        headings[name] = f"{title}, {own}" if own else title
    return headings


def titles(configs: Sequence[Config]) -> list[str]:
    """Names configs by their head, temperature, and what differs among them.

    Of what differs, a default goes without saying, but for the loss and the seed.
    """
    differing = [
        field
        for field in dataclasses.fields(Config)
        if field.name not in {"head", "temperature"}
        and len({getattr(config, field.name) for config in configs}) > 1
    ]

    def title(config):
        parts = [config.head]
        match config.temperature:
            case Annealing() as annealing:
                parts[0] += f" t {annealing}"
            case float() | int() as temperature:
                parts[0] += f" t {digits(temperature)}"
            case "learned":
                parts[0] += " t learned"
        defaults = config.defaults
        for field in differing:
            value = getattr(config, field.name)
            default = getattr(defaults, field.name)
            if value != default or field.name in {"loss", "seed"}:
                words = field.name.replace("_", " ")
                number = isinstance(value, int | float)
                parts.append(f"{words} {digits(value)}" if number else str(value))
        return ", ".join(parts)

    return [title(config) for config in configs]
