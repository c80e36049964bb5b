"""Fixtures that several packages' tests share: a real Kafka, and topics of one's own on it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import settings

from stream import kernels
from tests.kafka.broker import Cluster, free_port, wait_for
from tests.kafka.jars import CACHE, POM, NoJarsError, classpath

_DOCKER_IMAGE = "apache/kafka"
_unavailable = pytest.StashKey[str]()
uncounted = pytest.StashKey[str]()
"""Why nothing was compared with the counts of benchmarks/counts.json, where nothing was."""
uncompiled = pytest.StashKey[bool]()


# A deadline times the machine, not the code: on a loaded one it fails tests that are right.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")


@pytest.fixture(scope="session")
def kafka_bootstrap(request: pytest.FixtureRequest) -> Iterator[str]:
    """Bootstrap servers of a real Kafka: RESEGMENT_TEST_BOOTSTRAP, or one of our own by Maven and Java, or by Docker.

    Without any the test is skipped, and the summary says so in one line; with RESEGMENT_REQUIRE_KAFKA=1 it fails.
    """
    if given := os.environ.get("RESEGMENT_TEST_BOOTSTRAP"):
        yield given
        return
    try:
        classpath()
    except NoJarsError as error:
        yield from _docker(request, str(error))
        return
    CACHE.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="run-", dir=CACHE) as directory,
        Cluster(Path(directory) / "cluster") as cluster,
    ):
        yield cluster.bootstrap


@pytest.fixture(scope="session")
def kafka_jars(request: pytest.FixtureRequest) -> str:
    """For tests that start and break brokers of their own: the class path. Skips or fails as `kafka_bootstrap` does."""
    try:
        return classpath()
    except NoJarsError as error:
        _give_up(request, str(error))


@pytest.fixture
def topic_prefix() -> str:
    """Of this test alone, so that tests share a broker and no topic; groups want it too."""
    return f"t{uuid.uuid4().hex[:10]}."


@pytest.fixture(scope="module", params=["compiled", "without"])
def either_kernels(request: pytest.FixtureRequest) -> Iterator[str]:
    """The tests of a module with the compiled kernels, and again without them."""
    if request.param == "compiled" and not kernels.built():
        if os.environ.get("RESEGMENT_REQUIRE_KERNELS") == "1":
            pytest.fail("the kernels are not compiled", pytrace=False)
        request.config.stash[uncompiled] = True
        pytest.skip("the kernels are not compiled here")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "_on", request.param == "compiled")
        yield request.param


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """A loud line for what could not run: for want of a Kafka, or of recorded counts for this Python."""
    if (reason := config.stash.get(_unavailable, None)) is not None:
        terminalreporter.write_line(f"KAFKA TESTS DID NOT RUN: {reason}", red=True, bold=True)
    if (reason := config.stash.get(uncounted, None)) is not None:
        terminalreporter.write_line(f"THE KERNELS' COST WAS NOT COMPARED: {reason}", red=True, bold=True)
    if config.stash.get(uncompiled, False):
        terminalreporter.write_line("THE COMPILED KERNELS WERE NOT TESTED: they are not built", red=True, bold=True)


def _docker(request: pytest.FixtureRequest, why_not_maven: str) -> Iterator[str]:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "info"], capture_output=True, check=False).returncode != 0:
        _give_up(request, f"{why_not_maven}; and no Docker engine answers; or set RESEGMENT_TEST_BOOTSTRAP")
    version = next(line for line in POM.read_text().splitlines() if "<kafka.version>" in line)
    tag = version.split(">")[1].split("<")[0]
    port = free_port()
    environment = {
        "KAFKA_NODE_ID": "1",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_LISTENERS": f"PLAINTEXT://:{port},CONTROLLER://:9093",
        "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://127.0.0.1:{port}",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
        "KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS": "1000",
        "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
        "KAFKA_TRANSACTION_ABORT_TIMED_OUT_TRANSACTION_CLEANUP_INTERVAL_MS": "1000",
    }
    options = [option for name, value in environment.items() for option in ("--env", f"{name}={value}")]
    command = [
        docker,
        "run",
        "--detach",
        "--rm",
        f"--publish=127.0.0.1:{port}:{port}",
        *options,
        f"{_DOCKER_IMAGE}:{tag}",
    ]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        _give_up(request, f"{why_not_maven}; and Docker could not run {_DOCKER_IMAGE}:{tag}: {run.stderr.strip()}")
    container = run.stdout.strip()
    try:
        wait_for(f"127.0.0.1:{port}", {1})
        yield f"127.0.0.1:{port}"
    finally:
        subprocess.run([docker, "kill", container], capture_output=True, check=False)


def _give_up(request: pytest.FixtureRequest, reason: str) -> NoReturn:
    request.config.stash[_unavailable] = reason
    if os.environ.get("RESEGMENT_REQUIRE_KAFKA") == "1":
        pytest.fail(f"Kafka is required (RESEGMENT_REQUIRE_KAFKA=1), but {reason}", pytrace=False)
    pytest.skip(reason)
