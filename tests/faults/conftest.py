"""The workers' zygote, the size of the run, and what it amounted to."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.fleet import Fleet

_told: list[str] = []


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Forks workers; their logs are in `fleet.logs`."""
    with Fleet(tmp_path_factory.mktemp("workers")) as made:
        yield made


@pytest.fixture(scope="session")
def kills() -> int:
    """FAULTS_KILLS: how many kills on each transport. Unset, the suite is cut to what `make test` carries."""
    return int(os.environ.get("FAULTS_KILLS", "0"))


@pytest.fixture
def whole(kills: int) -> None:
    """For tests that only the whole suite runs (`make faults`)."""
    if not kills:
        pytest.skip("only in the whole suite: make faults")


@pytest.fixture(scope="session")
def progress() -> Path | None:
    """FAULTS_PROGRESS: where counts of kills are kept, so that a run that was broken off carries on."""
    return Path(os.environ["FAULTS_PROGRESS"]) if "FAULTS_PROGRESS" in os.environ else None


@pytest.fixture
def tell() -> Callable[[str], None]:
    """Say something in the summary."""
    return _told.append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was survived, and the figures that were seen."""
    for line in _told:
        terminalreporter.write_line(line)
