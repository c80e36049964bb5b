"""Processes that the transport tests start, kill and stop.

python -m tests.transport.worker import DIRECTORY    takes a numbered source in, in uneven batches, for ever
python -m tests.transport.worker process DIRECTORY   commits an output for every event, in uneven batches, for ever
python -m tests.transport.worker zombie KIND ADDRESS polls once, says so, and tries to commit after a line of input
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

from stream.transport.base import FencedError, OutRecord, TopicPartition, Transport
from stream.transport.embedded import EmbeddedTransport, SourceOffset
from stream.transport.kafka import KafkaTransport
from stream.transport.settings import EmbeddedSettings, KafkaSettings
from tests.transport.drive import CHANGES, EVENTS, echo, flat, next_offsets, numbered

SOURCE = TopicPartition("source.csv", 0)
NORMAL = EmbeddedSettings(synchronous="normal")


def import_source(directory: Path) -> None:
    """Event n of the source is the number n; exactly once each, whatever happens to this process."""
    transport = EmbeddedTransport(directory, NORMAL)
    generator = random.Random()
    done = transport.committed("import", SOURCE)
    while True:
        count = generator.randrange(1, 200)
        position = done or 0
        transport.produce(
            numbered(EVENTS, count, first=position), source=SourceOffset("import", SOURCE, done, position + count)
        )
        done = position + count


def process(directory: Path) -> None:
    """An output for each event, in the same partition, named after it; exactly once each."""
    transport = EmbeddedTransport(directory, NORMAL)
    session = transport.session("g", [EVENTS])
    generator = random.Random()
    while True:
        poll = session.poll(generator.randrange(1, 300), 0.1)
        session.resume(poll.assigned)
        if poll.records:
            session.commit(next_offsets(poll.records), [echo(CHANGES, record) for record in flat(poll.records)])


def zombie(kind: str, address: str) -> None:
    """Holds polled records while it is stopped; says "fenced" or "committed" of its commit afterwards."""
    transport: Transport
    if kind == "embedded":
        transport = EmbeddedTransport(Path(address), EmbeddedSettings(member_lease=1_500))
    else:
        bootstrap, prefix = address.split("/")
        transport = KafkaTransport(
            KafkaSettings(
                bootstrap_servers=bootstrap, topic_prefix=prefix, session_timeout=2_000, transaction_timeout=4_000
            )
        )
    session = transport.session("g", [EVENTS])
    polled = session.poll(100, 1.0)
    while not polled.records:
        session.resume(polled.assigned)
        polled = session.poll(100, 1.0)
    sys.stdout.write("polled\n")
    sys.stdout.flush()
    sys.stdin.readline()
    try:
        session.commit(next_offsets(polled.records), [OutRecord(CHANGES, b"k", b"from the dead")])
    except FencedError:
        sys.stdout.write("fenced\n")
    else:
        sys.stdout.write("committed\n")
    sys.stdout.flush()


if __name__ == "__main__":
    role, *arguments = sys.argv[1:]
    if role == "zombie":
        zombie(*arguments)
    else:
        {"import": import_source, "process": process}[role](Path(arguments[0]))
