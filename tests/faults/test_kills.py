"""kill -9, at every named point and at random times: nothing is lost, nothing comes twice, nothing out of order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.fleet import Fleet
from tests.faults.kills import in_directory, on_kafka, run

pytestmark = [pytest.mark.faults, pytest.mark.timeout(0)]

Tell = Callable[[str], None]


def test_embedded(fleet: Fleet, kills: int, progress: Path | None, tmp_path: Path, tell: Tell) -> None:
    run("embedded", kills or 25, in_directory(fleet, tmp_path), seed=1, progress=progress, tell=tell)


@pytest.mark.kafka
def test_kafka(
    fleet: Fleet, kills: int, progress: Path | None, kafka_bootstrap: str, tmp_path: Path, tell: Tell
) -> None:
    run("kafka", kills or 15, on_kafka(fleet, kafka_bootstrap, tmp_path), seed=1, progress=progress, tell=tell)
