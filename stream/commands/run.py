"""`resegment run`: the service. Every stage of the chosen roles in a thread of its own, until SIGTERM.

With `--workers` there are several processes: the processor is what needs cores, and one Python process uses one.
"""

from __future__ import annotations

import argparse
import logging
import sys
import threading
import time
from collections.abc import Callable
from importlib import import_module
from typing import TypeVar

from stream import kernels
from stream.assembly import ROLES, Deployment, Role
from stream.commands.common import (
    CommandError,
    configuration,
    input_partitions,
    place_options,
    positive,
)
from stream.commands.topics import specs
from stream.config import Config
from stream.runtime import interpreter
from stream.runtime.health import Health
from stream.runtime.health_server import HealthServer, HealthServerError
from stream.runtime.logs import configure
from stream.runtime.metrics import Metrics
from stream.runtime.runner import Runner
from stream.runtime.signals import stop_on_signals
from stream.runtime.supervisor import Command, Supervisor, stop_when_orphaned
from stream.transport.base import UnavailableError

log = logging.getLogger(__name__)

Result = TypeVar("Result")
LAST_PORT = 65_535
STARTING = "start"
"""What health calls the time before the stages run."""
STOP_SECONDS = 9.0
"""A clean stop is over within ten."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "run",
        help="run the service",
        description="Run stages until SIGTERM or SIGINT: then they commit and leave their groups. Start as many "
        "processes as you like; Kafka divides the partitions among them.",
    )
    parser.add_argument(
        "--roles",
        type=_roles,
        default=ROLES,
        metavar="ROLE[,...]",
        help=f"which of {', '.join(ROLES)} (default: all)",
    )
    parser.add_argument(
        "--workers",
        type=positive,
        default=1,
        metavar="N",
        help="so many processors, each a process of its own, and one for the other roles (default: 1, all in one)",
    )
    parser.add_argument("--supervised", action="store_true", help=argparse.SUPPRESS)
    place_options(parser)
    parser.set_defaults(run=run)


def _roles(text: str) -> tuple[Role, ...]:
    chosen = tuple(role for role in ROLES if role in text.split(","))
    if unknown := set(text.split(",")) - set(ROLES):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))!r} is no role; there are {', '.join(ROLES)}")
    return chosen


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal; exit code 1 where a stage died."""
    config = configuration(arguments)
    configure(config.log)
    if arguments.workers > 1:
        supervisor = Supervisor(_commands(arguments, config))
        with stop_on_signals() as stop:
            return supervisor.run(stop)
    kernels.tell()
    health = Health(stuck_after=config.metrics.stuck_after / 1000)
    metrics = Metrics()
    server = HealthServer(config.metrics.host, config.metrics.port, metrics, health)
    with stop_on_signals() as stop:
        if arguments.supervised:
            stop_when_orphaned(stop)
        try:
            if config.metrics.enabled:
                server.start()
            return _serve(config, arguments.roles, metrics, health, stop)
        except HealthServerError as error:
            raise CommandError(str(error)) from None
        finally:
            server.stop()


def _commands(arguments: argparse.Namespace, config: Config) -> list[Command]:
    """What the children are: the same command, with a port and a group instance of their own."""
    roles: tuple[Role, ...] = arguments.roles
    if "processor" not in roles:
        raise CommandError(f"--workers makes processors, and the roles are only {', '.join(roles)}; leave it out")
    others = [role for role in roles if role != "processor"]
    chosen = [("processor", f"processor-{number}") for number in range(arguments.workers)]
    chosen += [(",".join(others), "-".join(others))] if others else []
    last = config.metrics.port + len(chosen) - 1
    if config.metrics.enabled and last > LAST_PORT:
        raise CommandError(
            f"{len(chosen)} processes need the ports {config.metrics.port} to {last}, and {LAST_PORT} is the last one "
            "that there is: set metrics.port lower, or to 0 for free ones"
        )
    place = [
        word
        for option, value in (
            ("--config", arguments.config),
            ("--data-dir", arguments.data_dir),
            ("--bootstrap", arguments.bootstrap),
        )
        if value is not None
        for word in (option, str(value))
    ]
    return [
        Command(
            name,
            [sys.executable, "-m", "stream.cli", "run", "--supervised", "--roles", role, *place],
            _variables(config, name, number),
        )
        for number, (role, name) in enumerate(chosen)
    ]


def _variables(config: Config, name: str, number: int) -> dict[str, str]:
    """What must differ between the processes of one machine; a variable wins over the file."""
    variables = {}
    if config.metrics.port:
        variables["RESEGMENT_METRICS__PORT"] = str(config.metrics.port + number)
    if (instance := config.transport.kafka.group_instance_id) is not None:
        variables["RESEGMENT_TRANSPORT__KAFKA__GROUP_INSTANCE_ID"] = f"{instance}-{name}"
    return variables


def _serve(config: Config, roles: tuple[Role, ...], metrics: Metrics, health: Health, stop: threading.Event) -> int:
    # Readiness is false, and says why, from the first moment on.
    health.register(STARTING)
    # What scoring needs, while the broker is asked and the group joined.
    threading.Thread(target=import_module, args=("scipy.spatial.distance",), name="imports", daemon=True).start()
    transport = _patiently(config.transport.open, health, stop)
    if transport is None:
        return 0
    try:
        if config.transport.kind == "embedded":
            transport.create_topics(specs(config), config.topics.partitions)
        partitions = _patiently(lambda: input_partitions(transport, config), health, stop)
        if partitions is None:
            return 0
        wall_clock = config.runner.clock == "wall"
        deployment = Deployment(
            config, transport, partitions, roles, wall_clock=wall_clock, metrics=metrics, health=health
        )
        interpreter.settle()
        health.leave(STARTING)
        return _work(deployment, stop)
    finally:
        transport.close()


def _patiently(attempt: Callable[[], Result], health: Health, stop: threading.Event) -> Result | None:
    """What `attempt` gives, as soon as the transport and its topics answer; None where the wait was interrupted."""
    delay = 0.5
    while not stop.is_set():
        health.beat(STARTING)
        try:
            return attempt()
        except (UnavailableError, CommandError) as error:
            health.not_ready(STARTING, str(error))
            log.warning("waiting %.1f s: %s", delay, error)
            stop.wait(delay)
            delay = min(10.0, delay * 2)
    return None


def _work(deployment: Deployment, stop: threading.Event) -> int:
    died: list[str] = []

    def work(runner: Runner) -> None:
        try:
            runner.run(stop, poll_timeout=deployment.config.runner.poll_timeout / 1000)
        except Exception:
            # A stage that cannot go on takes the process down: half a service looks healthy and is not.
            log.exception("stage %s cannot go on", runner.stage.name)
            died.append(runner.stage.name)
            stop.set()

    threads = [threading.Thread(target=work, args=(r,), name=r.stage.name, daemon=True) for r in deployment.runners]
    for thread in threads:
        thread.start()
    log.info("running", extra={"stages": list(deployment.stages), "partitions": deployment.partitions})
    stop.wait()
    deadline = time.monotonic() + STOP_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    hung = [thread.name for thread in threads if thread.is_alive()]
    if hung:
        log.error(
            "stages %s did not stop in %.0f s; what they had not committed will be read again", hung, STOP_SECONDS
        )
    return 1 if died or hung else 0
