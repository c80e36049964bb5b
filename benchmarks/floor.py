"""What latency there is without us: a stage that computes nothing, in the same runner, session and transactions.

`python -m benchmarks.floor BOOTSTRAP PREFIX` answers one event in fifty with a record that `benchmarks.watch` takes for
a change; it runs until its standard input closes. It decodes no event, keeps no state and writes a thousandth of the
bytes: what is left are the client, four round trips of a transaction, the broker, the load and the reader.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any

import orjson

from benchmarks.contestants import kafka_settings
from schemas.topics import EVENTS, SEGMENT_CHANGES
from stream.config import load
from stream.runtime import interpreter
from stream.runtime.runner import Runner
from stream.runtime.stage import Output, Stage
from stream.runtime.supervisor import stop_when_orphaned
from stream.transport.base import OutRecord, Record

ONE_IN = 50


class Echo(Stage):
    """Passes some events on."""

    name = "floor"
    inputs = (EVENTS,)

    def restoring(self, partition: int, deltas: Iterable[tuple[dict[str, Any], bytes]]) -> Generator[None, None, None]:
        """There is no state."""
        yield

    def drop(self, partition: int) -> None:
        """There is no state."""

    def process(self, batch: Mapping[int, Sequence[Record]], now_ms: int | None) -> Output:
        """One change for one event in fifty."""
        return Output([_change(record) for records in batch.values() for record in records[::ONE_IN]])


def _change(record: Record) -> OutRecord:
    value = orjson.dumps({"cause": "entered", "source": None, "occurred_at": record.timestamp})
    return OutRecord(SEGMENT_CHANGES, record.key, value)


def main(bootstrap: str, prefix: str) -> None:
    """Serve until standard input closes."""
    config = load(None, kafka_settings(bootstrap, prefix))
    transport = config.transport.open()
    runner = Runner(
        Echo(), transport, group=f"{config.runner.group}-floor", batch_records=config.processor.batch_records
    )
    interpreter.settle()  # as `resegment run` does
    stop = threading.Event()
    while not runner.joined():
        runner.step(0.5)
    stop_when_orphaned(stop)
    print("ready", flush=True)
    runner.run(stop, poll_timeout=config.runner.poll_timeout / 1000)
    transport.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
