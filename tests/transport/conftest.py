"""Both transports, as one fixture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from stream.transport.base import Transport
from tests.transport.drive import SPECS, Place, embedded_place, kafka_place

PARTITIONS = 4


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """A place with the topics of tests/transport/drive.py, four partitions each where not said otherwise."""
    if request.param == "embedded":
        made = embedded_place(tmp_path / "data")
    else:
        made = kafka_place(request.getfixturevalue("kafka_bootstrap"), request.getfixturevalue("topic_prefix"))
    try:
        made.open().create_topics(SPECS, PARTITIONS)
        yield made
    finally:
        made.close()


@pytest.fixture
def transport(place: Place) -> Transport:
    """A transport on the place."""
    return place.open()
