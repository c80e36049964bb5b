"""`resegment`: the command line. Each verb is a file of stream/commands/."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from stream import __version__

COMMANDS = {
    "demo": "a synthetic shop through all stages, live",
    "replay": "a data set through the embedded pipeline",
    "backtest": "what the segments would have been worth, on your history",
    "run": "run the service",
    "produce": "push events to the events topic",
    "topics": "create the topics, or check them",
    "config": "show the configuration",
    "tail": "look at a topic's records",
    "segments": "what the segments are, and their sizes",
    "suggest-k": "how many segments the people fall into",
    "model": "the model's versions: list, diff, pin, rollback",
    "explain": "why a user is in a segment",
    "verify": "check what was published against the promises",
    "dead-letters": "list the dead letters, or send them back",
    "state": "make a stage's lost state anew",
}
"""Each is a module of stream/commands/ (- is _ there), imported only when it is asked for: some take a second."""


class _Parser(argparse.ArgumentParser):
    """argparse, but a wrong argument gets one clear line and exit code 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (try {self.prog} --help)\n")


def parser(chosen: str | None = None) -> argparse.ArgumentParser:
    """The command line, with the arguments of one command, or (None) of all."""
    top = _Parser(
        prog="resegment",
        description="Moves people between segments as they behave: events in, segment changes and campaigns out.",
    )
    top.add_argument("--version", action="version", version=f"resegment {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    for name, purpose in COMMANDS.items():
        if chosen in (None, name):
            import_module(f"stream.commands.{name.replace('-', '_')}").add(commands)
        else:
            commands.add_parser(name, help=purpose)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code: 0 done, 1 it could not be done, 2 wrong arguments, 130 interrupted."""
    try:
        return _run(sys.argv[1:] if arguments is None else list(arguments))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Somebody closed the pipe (`| head`): not worth a word, and the interpreter must not try to flush it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(given: list[str]) -> int:
    chosen = parser(next((word for word in given if word in COMMANDS), "")).parse_args(given)
    # Only now: --help and a wrong argument should not wait for what these import.
    from stream.commands.common import CommandError
    from stream.config import ConfigError
    from stream.transport.base import TransportError

    try:
        return int(chosen.run(chosen))
    except (CommandError, TransportError) as error:
        print(f"resegment: {error}", file=sys.stderr)
        return 1
    except ConfigError as error:
        for line in str(error).splitlines():
            print(f"resegment: {line}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
