"""`resegment verify`: reads the topics of a running or stopped deployment and checks what is promised of them."""

from __future__ import annotations

import argparse
import time

from stream.commands.common import configuration, input_partitions, opened, place_options, print_json
from stream.verify import Report, verify


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "verify",
        help="check what was published against the promises",
        description="Check that nothing was lost, doubled or disordered: sequences, ids, memberships, counts against "
        "offsets, dead letters, models, campaign actions and the state of every stage. Exit code 1 where something is "
        "wrong, with a line for each finding. It may run beside the service, and writes nothing.",
    )
    parser.add_argument(
        "--fast", action="store_true", help="do not read the events: their number is checked against offsets only"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    place_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Exit code 0 where everything holds, 1 where something does not."""
    config = configuration(arguments)
    started = time.perf_counter()
    with opened(config) as transport:
        partitions = input_partitions(transport, config)
        report = verify(transport, config, partitions, count_events=not arguments.fast)
    if arguments.json:
        print_json({**report.as_json(), "seconds": round(time.perf_counter() - started, 3)})
    else:
        _print(report, time.perf_counter() - started)
    return 0 if report.ok else 1


def _print(report: Report, seconds: float) -> None:
    for finding in report.findings:
        print(finding)
    shown = len(report.findings)
    if (total := report.found.total()) > shown:
        print(f"... and {total - shown:,} more: " + ", ".join(f"{n:,} of {name}" for name, n in report.found.items()))
    for note in report.notes:
        print(f"note: {note}")
    read = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in report.checked.items())
    verdict = "everything holds" if report.ok else f"{total:,} findings"
    print(f"{verdict}: {read} in {seconds:.1f} s")
