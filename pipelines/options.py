"""The command line, from the types: flags, a YAML file, or both (flags win).

jsonargparse makes one parser for flags and YAML alike, nested fields included, so a
wrong key or type in a file meets the same check as one on the command line.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import jsonargparse
import yaml

from pipelines import plain_yaml
from pipelines.config import GROUPS, Config
from pipelines.errors import InputError, brief, one_line

# Flags too: a value of one is YAML.
jsonargparse.set_loader("yaml", plain_yaml.load, (yaml.YAMLError,))
MAX_MESSAGE = 300


KINDS = {
    "<class 'Path'>": "a path",
    "Path | null": "a path",
    "bool": "true or false",
    "float": "a number",
    "float | null": "a number",
    "int": "an integer",
    "int | null": "an integer",
}  # other types are in the text, or in the values to choose from


class _Help(jsonargparse.DefaultHelpFormatter):
    """Says types in words, and a default where there is a value."""

    def _get_help_string(self, action):
        if action.dest == "help":
            return "Show this help message and exit."
        notes = [KINDS.get(self._get_type_str(action) or "")]
        switch = action.nargs == 0
        none = action.default in (None, argparse.SUPPRESS)
        if action.option_strings and not (switch or none):
            notes.append("default: %(default)s")
        said = ", ".join(filter(None, notes))
        return (action.help or "") + (f" ({said})" if said else "")


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


def parser(
    prog: str, description: str, example: str, usage: str | None = None
) -> jsonargparse.ArgumentParser:
    """The parser of a command.

    Args:
        prog: The command's name.
        description: What it does.
        example: The arguments of a call that shows how it is used.
        usage: The arguments in short, if not those of every option.
    """
    command = f"python -m pipelines.{prog}"
    return jsonargparse.ArgumentParser(
        prog=command,
        usage=usage and f"{command} {usage}",
        description=description,
        epilog=f"Example: {command} {example}",
        formatter_class=_Help,
        exit_on_error=False,
    )


def config_parser(
    prog: str, description: str, example: str
) -> jsonargparse.ArgumentParser:
    """A parser of the config's options, from flags and from YAML, in groups."""
    options = parser(prog, description, example, "[options]")
    options.add_argument(
        "--config", action=_ConfigFile, help="A YAML file of these options."
    )
    options.add_class_arguments(Config)
    whole = options._action_groups[-1]
    for title, names in GROUPS.items():
        group = options.add_argument_group(title)
        group._group_actions += [
            action
            for action in whole._group_actions
            if action.dest.partition(".")[0] in names.split()
        ]
    options._action_groups = [g for g in options._action_groups if g is not whole]
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
