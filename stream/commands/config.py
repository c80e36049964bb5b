"""`resegment config show`: what is in force, from the file, the variables and the defaults."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from stream.commands.common import print_json
from stream.config import load


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser("config", help="show the configuration", description=__doc__)
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    show = verbs.add_parser("show", help="every key with its value; secrets are starred out")
    show.add_argument("--config", type=Path, metavar="FILE", help="TOML file (default: RESEGMENT_CONFIG)")
    show.add_argument("--json", action="store_true", help="print JSON")
    show.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print it, one `key = value` a line."""
    values = load(arguments.config).model_dump(mode="json")
    if arguments.json:
        print_json(values)
        return 0
    for line in _lines("", values):
        print(line)
    return 0


def _lines(path: str, value: Any) -> list[str]:
    if isinstance(value, dict) and value:
        return [line for key, held in value.items() for line in _lines(f"{path}.{key}" if path else key, held)]
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return [line for i, held in enumerate(value) for line in _lines(f"{path}[{i}]", held)]
    return [f"{path} = {value!r}"]
