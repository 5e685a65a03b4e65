"""The command line, from the types: flags, a YAML file, or both (flags win).

jsonargparse makes one parser for flags and YAML alike, nested fields included, so a
wrong key or type in a file meets the same check as one on the command line.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import jsonargparse
import yaml

from pipelines import plain_yaml
from pipelines.config import Config
from pipelines.errors import InputError, brief, one_line

# Flags too: a value of one is YAML.
jsonargparse.set_loader("yaml", plain_yaml.load, (yaml.YAMLError,))
MAX_MESSAGE = 300


class _ConfigFile(
    jsonargparse.ActionConfigFile  # pyright: ignore[reportPrivateImportUsage]
):
    """Takes the options of a file, which is read as every other YAML file."""

    def __call__(self, parser, cfg, values, option_string=None):
        try:
            content = plain_yaml.read(Path(values))
        except InputError as error:
            raise InputError(f"config: {error}") from error
        if not isinstance(content, dict) or "config" in content:
            raise InputError(
                f"config: {brief(values)} must hold options by name, and no `config`."
            )
        super().__call__(parser, cfg, yaml.safe_dump(content), option_string)


def parser(prog: str, description: str) -> jsonargparse.ArgumentParser:
    """A parser of the config's options, from flags and from YAML."""
    options = jsonargparse.ArgumentParser(
        prog=f"python -m pipelines.{prog}",
        description=description,
        exit_on_error=False,
    )
    options.add_argument(
        "--config", action=_ConfigFile, help="A YAML file of these options."
    )
    options.add_class_arguments(Config)
    return options


def parse(
    parser: jsonargparse.ArgumentParser, given: Sequence[str] | Mapping | None
) -> jsonargparse.Namespace:
    """Parses a command line, or options by name, into a namespace of objects.

    Raises:
        InputError: What is wrong, in one sentence.
    """
    try:
        if isinstance(given, Mapping):
            if "config" in given:
                raise InputError("The option config belongs to the command line.")
            parsed = parser.parse_object(dict(given))
        else:
            parsed = parser.parse_args(given)
        options = parser.instantiate(parsed)
    except InputError:
        raise
    except (jsonargparse.ArgumentError, TypeError, ValueError) as error:
        words = brief(_explain(parser, str(error)), MAX_MESSAGE)
        raise InputError(words) from error
    except OverflowError as error:
        number = max(re.findall(r"\d+", " ".join(given or sys.argv)), key=len)
        raise InputError(f"No number is that large: {brief(number)}") from error
    except IndexError as error:  # argparse drops the value of --print_config=--
        raise InputError("A flag has -- for its value.") from error
    # To jsonargparse null is no value, whatever the type.
    for action in parser._actions:
        if action.default is not None and options.get(action.dest, action) is None:
            raise InputError(
                f"{action.dest} must not be null; without it, it is {action.default}."
            )
    return options


def config_of(options: jsonargparse.Namespace) -> Config:
    """The config among the options.

    Raises:
        InputError: If a value is impossible.
    """
    fields = dataclasses.fields(Config)
    try:
        return Config(**{field.name: options[field.name] for field in fields})
    except InputError as error:
        raise InputError(brief(error, MAX_MESSAGE)) from error


def _explain(parser: jsonargparse.ArgumentParser, message: str) -> str:
    message = one_line(message)
    options = {action.dest: action for action in parser._actions}
    if unknown := re.search(
        r"unrecognized arguments: -*([^\s=]+)|Option '(.+)' is not accepted", message
    ):
        key = unknown[1] or unknown[2]
        near = difflib.get_close_matches(key, options)
        hint = f"did you mean {near[0]}?" if near else "--help lists those there are."
        return f"There is no option {key}; {hint}"
    if wrong := re.search(
        r'Parser key "(\w+)":.* (?:Got value|Given value): (.*)', message
    ):
        expected = str(getattr(options[wrong[1]], "_typehint", "of another type"))
        expected = re.sub(
            r"<class '(?:\w+\.)*(\w+)'>|typing\.|(?:\w+\.)+", r"\1", expected
        )
        received = re.sub(
            r"NestedArg\(key='(\w+)', val='?(.*?)'?\)", r"\1=\2", wrong[2]
        )
        return f"{wrong[1]} must be {expected}. Received: {brief(received)}"
    return re.sub(r'^Parser key "([\w.]+)":', r"\1:", message)
