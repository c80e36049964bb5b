"""`resegment run`: the service. Every stage of the chosen roles in a thread of its own, until SIGTERM."""

from __future__ import annotations

import argparse
import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from stream.assembly import ROLES, Deployment, Role
from stream.commands.common import CommandError, configuration, input_partitions, place_options, stop_on_signals
from stream.commands.topics import specs
from stream.config import Config
from stream.runtime.health import Health
from stream.runtime.health_server import HealthServer, HealthServerError
from stream.runtime.logs import configure
from stream.runtime.metrics import Metrics
from stream.runtime.runner import Runner
from stream.transport.base import UnavailableError

log = logging.getLogger(__name__)

Result = TypeVar("Result")
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
    health = Health(stuck_after=config.metrics.stuck_after / 1000)
    metrics = Metrics()
    server = HealthServer(config.metrics.host, config.metrics.port, metrics, health)
    with stop_on_signals() as stop:
        try:
            if config.metrics.enabled:
                server.start()
            return _serve(config, arguments.roles, metrics, health, stop)
        except HealthServerError as error:
            raise CommandError(str(error)) from None
        finally:
            server.stop()


def _serve(config: Config, roles: tuple[Role, ...], metrics: Metrics, health: Health, stop: threading.Event) -> int:
    # Readiness is false, and says why, from the first moment on.
    health.register(STARTING)
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
