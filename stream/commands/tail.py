"""`resegment tail TOPIC`: the last records of a topic, and those that come."""

from __future__ import annotations

import argparse
import base64
import binascii
import heapq
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import orjson

from schemas.topics import BY_NAME
from stream.commands.common import CommandError, configuration, opened, place_options
from stream.runtime.changelog import StateLostError, decode_frame
from stream.transport.base import Record, TopicPartition, Transport

POLL_SECONDS = 0.3


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser("tail", help="look at a topic's records", description=__doc__)
    parser.add_argument("topic", help=f"one of {', '.join(sorted(BY_NAME))}, or an event topic of yours")
    parser.add_argument("-n", type=int, default=10, metavar="N", help="how many of the last records (default: 10)")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with records as they come")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    place_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the records in order of their timestamps."""
    config = configuration(arguments)
    with opened(config) as transport:
        count = transport.partitions(arguments.topic)
        if not count:
            raise CommandError(f"there is no topic {arguments.topic!r}; topics: {', '.join(sorted(BY_NAME))}")
        ends = {TopicPartition(arguments.topic, p): 0 for p in range(count)}
        last: list[Record] = []
        for where in ends:
            ends[where] = transport.end_offset(where)
            last += _last(transport, where, ends[where], arguments.n)
        last.sort(key=lambda record: (record.timestamp, record.partition, record.offset))
        _print(last[-arguments.n :] if arguments.n else [], arguments.json)
        while arguments.follow:
            time.sleep(POLL_SECONDS)
            _print(_new(transport, ends), arguments.json)
    return 0


def _last(transport: Transport, where: TopicPartition, end: int, count: int) -> list[Record]:
    """At most `count` records before `end`; offsets may have holes, so reach back further until there are enough."""
    first, reach = transport.start_offset(where), max(count, 1)
    while count:
        start = max(first, end - reach)
        found = list(transport.read(where, start, end))
        if len(found) >= count or start == first:
            return found[-count:]
        reach *= 4
    return []


def _new(transport: Transport, ends: dict[TopicPartition, int]) -> Iterator[Record]:
    streams = []
    for where, start in ends.items():
        end = transport.end_offset(where)
        if end > start:
            streams.append(transport.read(where, start, end))
            ends[where] = end
    return heapq.merge(*streams, key=lambda record: record.timestamp)


def _print(records: Iterable[Record], as_json: bool) -> None:
    for record in records:
        if as_json:
            line = orjson.dumps(
                {
                    "topic": record.topic,
                    "partition": record.partition,
                    "offset": record.offset,
                    "timestamp": record.timestamp,
                    "key": _text(record.key),
                    "headers": {name: _text(value) for name, value in record.headers},
                    "value": _value(record.value),
                }
            ).decode()
        else:
            at = datetime.fromtimestamp(record.timestamp / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
            value = _value(record.value)
            shown = value if isinstance(value, str) else orjson.dumps(value).decode()
            line = f"{at}  {record.partition}@{record.offset}  {_text(record.key) or '-'}  {shown}"
        print(line)
    sys.stdout.flush()


def _text(data: bytes | None) -> str | None:
    return None if data is None else data.decode(errors="backslashreplace")


def _value(data: bytes | None) -> Any:
    """JSON as it is, a changelog frame as its header, the rest as text where it is text."""
    if data is None:
        return None
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        pass
    try:
        frame = decode_frame(data, "")
        return {**frame.header, "payload_bytes": len(frame.payload)}
    except (StateLostError, orjson.JSONDecodeError, KeyError, binascii.Error):
        pass
    try:
        return data.decode()
    except UnicodeDecodeError:
        return f"{len(data)} bytes: {base64.b64encode(data[:48]).decode()}..."
