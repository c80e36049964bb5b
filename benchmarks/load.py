"""Open-loop load: events at a fixed rate, whatever becomes of them.

`python -m benchmarks.load BOOTSTRAP PREFIX RATE SECONDS USERS SEED`. An event's time is the instant at which it was
due, so a producer or broker that falls behind makes latencies longer and not fewer. What is measured shares its cores
with the load, which should take as little of them as it can: all requests are encoded and compressed before the load
begins, and then only sent, one with a batch for each partition every 5 ms. Prints when it will begin (epoch seconds),
and at the end how many were sent, and by how much the last ones were late.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections.abc import Sequence
from io import BytesIO
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
from kafka.protocol.producer import ProduceRequest, ProduceResponse
from kafka.record.default_records import DefaultRecordBatchBuilder

from benchmarks.arena import PARTITIONS
from benchmarks.contestants import kafka_settings
from benchmarks.workload import SHARES, TYPES, ZIPF, details, user_name
from schemas.topics import EVENTS
from stream.config import load
from stream.transport.base import OutRecord
from stream.transport.kafka_encode import encode, seal
from stream.transport.kafka_exchange import check
from stream.transport.murmur2 import partitions_of

_TICK_S = 0.005
_VARIETY = 1_000_000
"""Events that are made up, but for their number and time; then they come again."""
_START_S = 4.0
"""From the last batch that is encoded to the first one that is sent: who reads must be there by then."""
_LARGEST = 1 << 20
_VERSION = 9
"""Of the requests."""
_ANSWER_S = 30.0

Tick = list[tuple[int, bytes]]
"""What is sent at once: partition and batch."""


class Load:
    """What a load sends. Parameters: its topic, events a second, how many, of how many users, and the seed."""

    def __init__(self, topic: str, rate: float, total: int, users: int, seed: int) -> None:
        self._topic = topic
        self._rate = rate
        self._total = total
        self._written = _write(min(total, _VARIETY), users, seed)
        self._partitions = partitions_of([key for key, _ in self._written], PARTITIONS)

    def ticks(self, began: float, stop: int | None = None) -> list[bytes]:
        """The requests of all of them, or of the first `stop`, of a load that begins at an instant (epoch seconds)."""
        count = int(np.ceil(self._total / self._rate / _TICK_S))
        bounds = np.minimum(np.arange(count + 1) * _TICK_S * self._rate, self._total).astype(np.int64).tolist()
        pairs = list(pairwise(bounds))[:stop]
        return [self._request(number, self._tick(began, *pair)) for number, pair in enumerate(pairs)]

    def _request(self, number: int, tick: Tick) -> bytes:
        """As it goes over the wire (https://kafka.apache.org/protocol#The_Messages_Produce)."""
        topic = ProduceRequest.TopicProduceData
        data = [topic.PartitionProduceData(index=partition, records=batch) for partition, batch in tick]
        request: Any = ProduceRequest(
            transactional_id=None,
            acks=-1,
            timeout_ms=30_000,
            topic_data=[topic(name=self._topic, partition_data=data)],
        )
        request.with_header(correlation_id=number, client_id="load")
        encoded: bytes = request.encode(version=_VERSION, header=True, framed=True)
        return encoded

    def _tick(self, began: float, start: int, end: int) -> Tick:
        numbers = np.arange(start, end)
        places = numbers % len(self._written)
        times = ((began + numbers / self._rate) * 1000).astype(np.int64)
        return [
            (partition, self._batch(numbers[chosen].tolist(), places[chosen].tolist(), times[chosen].tolist()))
            for partition in range(PARTITIONS)
            if (chosen := self._of(places, partition)).any()
        ]

    def _of(self, places: npt.NDArray[np.int64], partition: int) -> npt.NDArray[np.bool_]:
        mask: npt.NDArray[np.bool_] = self._partitions[places] == partition
        return mask

    def _batch(self, numbers: Sequence[int], places: Sequence[int], times: Sequence[int]) -> bytes:
        records = []
        for number, place, at in zip(numbers, places, times, strict=True):
            key, event = self._written[place]
            records.append(OutRecord(EVENTS, key, event % (number, at), timestamp=at))
        (encoded,) = encode(records, _LARGEST)
        return seal(encoded, DefaultRecordBatchBuilder.CODEC_ZSTD, -1, -1, -1, transactional=False)


class Sender:
    """Sends requests to the one broker that there is, and hears in the end what became of them.

    A socket of its own: the client would take a tenth of a core for what is encoded already.
    """

    def __init__(self, bootstrap: str) -> None:
        host, _, port = bootstrap.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), 10.0)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.settimeout(_ANSWER_S)
        self._sent = 0
        self._answers: list[bytes] = []
        self._reader = threading.Thread(target=self._read, name="answers", daemon=True)
        self._reader.start()

    def send(self, request: bytes) -> None:
        """Send, and wait for no answer."""
        self._sent += 1
        self._socket.sendall(request)

    def close(self) -> None:
        """Wait for the answers. Raises what the broker refused, and OSError where it did not answer."""
        deadline = time.monotonic() + _ANSWER_S
        while (missing := self._sent - len(self._answers)) and time.monotonic() < deadline and self._reader.is_alive():
            time.sleep(0.01)
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        if missing:
            raise OSError(f"the broker did not answer {missing} of {self._sent} requests")
        for answer in self._answers:
            ProduceResponse.parse_header(content := BytesIO(answer), version=_VERSION)
            response: Any = ProduceResponse.decode(content, version=_VERSION)
            check((each.error_code for one in response.responses for each in one.partition_responses), "load")

    def _read(self) -> None:
        with self._socket.makefile("rb") as stream:
            while len(length := stream.read(4)) == 4:
                self._answers.append(stream.read(int.from_bytes(length, "big")))


def main(bootstrap: str, prefix: str, rate: float, seconds: float, users: int, seed: int) -> None:
    """Send."""
    topic = load(None, kafka_settings(bootstrap, prefix)).transport.kafka.topic_prefix + EVENTS
    total = int(rate * seconds)
    made = Load(topic, rate, total, users, seed)
    some = int(1 / _TICK_S)
    started = time.time()
    made.ticks(0.0, some)
    began = time.time() + (time.time() - started) * seconds * 1.5 + _START_S
    ticks = made.ticks(began)
    sender = Sender(bootstrap)
    if time.time() > began - _START_S / 2:
        sys.exit("the load took longer to encode than its first second let expect")
    print(json.dumps({"began": began}), flush=True)
    late = 0.0
    for number, request in enumerate(ticks, 1):
        # What is due within a tick is sent at its end.
        due = began + number * _TICK_S
        time.sleep(max(0.0, due - time.time()))
        late = max(0.0, time.time() - due)
        sender.send(request)
    took = time.time() - began
    sender.close()
    print(json.dumps({"sent": total, "seconds": took, "rate": total / took, "late": late}))


def _write(count: int, users: int, seed: int) -> list[tuple[bytes, bytes]]:
    """Keys and events, with places for a number and a time."""
    rng = np.random.default_rng(seed)
    who = ((rng.zipf(ZIPF, count) * 7919) % users).tolist()
    kinds = rng.choice(len(TYPES), count, p=SHARES).tolist()
    amounts = rng.lognormal(3.2, 0.8, count).tolist()
    half_hour = int(time.time()) // 1800
    written = []
    for number, (user, kind, amount) in enumerate(zip(who, kinds, amounts, strict=True)):
        name = user_name(user)
        event = {"user_id": name, "type": TYPES[kind], "session_id": f"s{user:08d}{half_hour:09d}"}
        rest = orjson.dumps(event | details(TYPES[kind], number, user, amount))
        written.append((name.encode(), b'{"event_id":"load%d-%%d","occurred_at":%%d,%b' % (seed, rest[1:])))
    return written


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]), int(sys.argv[6]))
