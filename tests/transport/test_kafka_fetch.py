"""Reading batches as columns: the oracle is the client's own class, on bytes that its own builder made."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError
from kafka.protocol.consumer import IsolationLevel
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder
from kafka.record.util import calc_crc32c
from kafka.structs import TopicPartition

from stream.transport import kafka_fetch
from stream.transport.kafka_fetch import ColumnRecords, columns
from stream.transport.records import RecordColumns

WHERE = TopicPartition("t", 3)
NONE, GZIP, ZSTD = 0, 1, 4
CONTROL = 0x20
APPEND_TIME = 0x08

pytestmark = pytest.mark.usefixtures("either_kernels")

Row = tuple[int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]


@dataclass(frozen=True)
class Batch:
    """One batch of a log: `marker` makes it a control batch that ends a transaction ("commit" or "abort")."""

    rows: tuple[Row, ...] = ()
    compression: int = NONE
    producer: int = -1
    transactional: bool = False
    marker: str | None = None
    append_time: bool = False
    compacted: bool = False
    epoch: int = 0
    magic: int = 2


@dataclass(frozen=True)
class Aborted:
    """As it stands in a fetch response."""

    producer_id: int
    first_offset: int


def log(batches: list[Batch]) -> tuple[bytes, list[Aborted], list[int]]:
    """The bytes of a log, what a broker would call aborted in it, and where each batch begins."""
    data, offset = b"", 0
    open_since: dict[int, int] = {}
    aborted: list[Aborted] = []
    begins: list[int] = []
    for batch in batches:
        begins.append(len(data))
        made = MemoryRecordsBuilder(batch.magic, batch.compression, 1 << 30)
        for number, (timestamp, key, value, headers) in enumerate(batch.rows):
            # Compaction takes records out, and leaves the offsets of the others.
            if batch.compacted and number % 2:
                made.skip(1)
            made.append(timestamp, key, value, headers)
        if batch.marker:
            made.append(1, struct.pack(">hh", 0, batch.marker == "commit"), b"\0" * 6, [])
            if batch.marker == "abort" and batch.producer in open_since:
                aborted.append(Aborted(batch.producer, open_since[batch.producer]))
            open_since.pop(batch.producer, None)
        elif batch.transactional:
            open_since.setdefault(batch.producer, offset)
        if batch.magic == 2 and batch.producer >= 0:
            made.set_producer_state(batch.producer, 0, 0, batch.transactional or bool(batch.marker))
        made.close()
        raw = bytearray(made.buffer())
        if batch.magic == 2:
            raw[0:8] = struct.pack(">q", offset)
            raw[12:16] = struct.pack(">i", batch.epoch)
            flags = CONTROL * bool(batch.marker) | APPEND_TIME * batch.append_time
            raw[22] |= flags
            sign(raw)
        data += bytes(raw)
        offset += made.next_offset()
    return data, aborted, begins


def sign(raw: bytearray) -> None:
    """Set the CRC that a batch now has."""
    raw[17:21] = struct.pack(">I", calc_crc32c(bytes(raw[21:])))


def read(
    kind: Any,
    data: bytes,
    aborted: list[Aborted],
    takes: list[int | None],
    start: int = 0,
    isolation: IsolationLevel = IsolationLevel.READ_COMMITTED,
    check: bool = True,
) -> list[Any]:
    """What each take gives, and the position and the errors, as the fetcher sees them."""
    drained: list[int] = []
    part = kind(
        start,
        WHERE,
        MemoryRecords(data),
        check_crcs=check,
        isolation_level=isolation,
        aborted_transactions=aborted,
        on_drain=lambda _: drained.append(1),
    )
    seen: list[Any] = []
    for n in takes:
        if not part:
            break
        try:
            taken = part.take(n)
        except Exception as error:
            seen.append((type(error),))
            break
        rows = [] if not taken else list(columns(list(taken), "t"))
        assert len(rows) == len(taken)
        seen.append(([tuple(row) for row in rows], part.next_fetch_offset, bool(part), part.leader_epoch))
    return [*seen, len(drained)]


HEADERS = st.lists(
    st.tuples(st.sampled_from(["", "trace", "ü"]), st.none() | st.binary(max_size=200)), min_size=0, max_size=2
)
CONTENT = st.none() | st.binary(max_size=4) | st.integers(0, 20_000).map(lambda n: b"x" * n)
ROWS = st.lists(st.tuples(st.integers(0, 2**45), CONTENT, CONTENT, st.just([]) | HEADERS), min_size=1, max_size=12).map(
    tuple
)
# Many records at once are read in another way than few.
MANY = st.builds(lambda rows, n: rows * n, ROWS, st.integers(1, 40))
DATA = st.builds(
    Batch,
    rows=ROWS | MANY,
    compression=st.sampled_from([NONE, GZIP, ZSTD]),
    producer=st.sampled_from([-1, -1, 7, 8]),
    append_time=st.booleans(),
    compacted=st.booleans(),
    epoch=st.integers(0, 2),
)
TRANSACTIONAL = st.builds(
    Batch, rows=ROWS | MANY, producer=st.sampled_from([7, 8]), transactional=st.just(True), epoch=st.integers(0, 2)
)
MARKER = st.builds(Batch, producer=st.sampled_from([7, 8]), marker=st.sampled_from(["commit", "abort"]))
OLD = st.builds(
    Batch,
    rows=st.lists(st.tuples(st.integers(1, 9), CONTENT, CONTENT, st.just([])), min_size=1, max_size=3).map(tuple),
    magic=st.just(1),
)
LOGS = st.lists(DATA | TRANSACTIONAL | MARKER, min_size=1, max_size=8)


def test_this_version_of_the_client_is_read_in_columns() -> None:
    """If this fails after an upgrade, everything still works, at five times the cost: adapt kafka_fetch.py."""
    assert kafka_fetch.supported()


@settings(max_examples=200)
@given(
    LOGS,
    st.lists(st.integers(1, 60), max_size=12),
    st.integers(0, 40),
    st.sampled_from([IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED]),
)
def test_columns_hold_what_the_client_itself_reads(
    batches: list[Batch], takes: list[int], start: int, isolation: IsolationLevel
) -> None:
    data, aborted, _ = log(batches)
    every: list[int | None] = [*takes, None, None]
    theirs = read(Fetcher.PartitionRecords, data, aborted, every, start, isolation)
    assert read(ColumnRecords, data, aborted, every, start, isolation) == theirs


@given(st.lists(OLD, min_size=1, max_size=4), st.lists(st.integers(1, 3), max_size=4))
def test_older_formats_are_read_as_the_client_reads_them(batches: list[Batch], takes: list[int]) -> None:
    data, _, _ = log(batches)
    every: list[int | None] = [*takes, None, None]
    assert read(ColumnRecords, data, [], every) == read(Fetcher.PartitionRecords, data, [], every)


@settings(max_examples=300)
@given(LOGS, st.data())
def test_damage_that_no_checksum_shows_is_found_where_the_client_finds_it(batches: list[Batch], data: Any) -> None:
    """Any byte of the records changed, and signed anew: the same records up to it, and then the same error."""
    raw, aborted, begins = log(batches)
    number = data.draw(st.integers(0, len(batches) - 1))
    begin = begins[number]
    end = begins[number + 1] if number + 1 < len(begins) else len(raw)
    at = data.draw(st.integers(begin + DefaultRecordBatch.HEADER_STRUCT.size, end - 1))
    batch = bytearray(raw[begin:end])
    batch[at - begin] = data.draw(st.integers(0, 255))
    sign(batch)
    damaged = raw[:begin] + bytes(batch) + raw[end:]
    # All at once: the client gives the records before the damage, and the error at the next call.
    theirs = read(Fetcher.PartitionRecords, damaged, aborted, [None, None])
    # A damaged length can make numbers of more than 64 bits, and offsets before the first one that was asked for: the
    # client passes both on, and we do not.
    rows = [row for taken in theirs[:-1] if isinstance(taken[0], list) for row in taken[0]]
    assume(all(0 <= row[2] < 2**63 and abs(row[3]) < 2**63 for row in rows))
    ours = read(ColumnRecords, damaged, aborted, [None, None])
    # With the records before the damage the client already tells the epoch of the damaged batch.
    assert [taken[:3] for taken in ours[:-1]] == [taken[:3] for taken in theirs[:-1]]


def with_body(raw: bytes, body: bytes) -> bytes:
    """The batch with these bytes for its compressed records."""
    batch = bytearray(raw[: DefaultRecordBatch.HEADER_STRUCT.size]) + body
    batch[8:12] = struct.pack(">i", len(batch) - 12)
    batch[22] |= ZSTD
    sign(batch)
    return bytes(batch)


def streamed(body: bytes, **how: Any) -> bytes:
    """A frame that does not say how large its content is, as Java's client writes them."""
    compressor = zstandard.ZstdCompressor(**how).compressobj()
    return bytes(compressor.compress(body) + compressor.flush())


WIDE = zstandard.ZstdCompressionParameters.from_level(3, window_log=25)


@pytest.mark.parametrize("rows", [3, 300])
@pytest.mark.parametrize(
    "compress",
    [
        zstandard.compress,
        streamed,
        zstandard.ZstdCompressor(write_checksum=True).compress,
        # More than one frame, in any order; one that wants a window of 32 MB.
        lambda body: zstandard.compress(body[:30]) + zstandard.compress(body[30:]),
        lambda body: streamed(body[:30]) + zstandard.compress(body[30:]),
        lambda body: zstandard.compress(b"") + zstandard.compress(body),
        lambda body: streamed(body, compression_params=WIDE),
        # Damaged: cut short, with more behind it, of fewer bytes than it says, and nothing at all.
        lambda body: streamed(body)[:-4],
        lambda body: zstandard.compress(body)[:-1],
        lambda body: zstandard.compress(body) + b"more",
        lambda body: zstandard.compress(body + b"more"),
        lambda body: zstandard.compress(body[:-1]),
        lambda body: b"",
        lambda body: zstandard.compress(b""),
        lambda body: body,
        # A size of a terabyte that is not there.
        lambda body: b"\x28\xb5\x2f\xfd\xc0\x58" + (1 << 40).to_bytes(8, "little") + b"\x01\x00\x00",
    ],
)
def test_any_frames_are_decompressed_as_the_client_does_it(rows: int, compress: Callable[[bytes], bytes]) -> None:
    good, _, begins = log([Batch(tuple((n, b"k", b"v" * n, []) for n in range(rows)))] * 2)
    raw = good[: begins[1]]
    data = with_body(raw, compress(raw[DefaultRecordBatch.HEADER_STRUCT.size :])) + good[begins[1] :]
    theirs = read(Fetcher.PartitionRecords, data, [], [None, None])
    assert read(ColumnRecords, data, [], [None, None]) == theirs


@pytest.mark.parametrize("count", [2**31 - 1, 2**20, 301, 299, 0, -1])
def test_a_wrong_number_of_records_is_found_where_the_client_finds_it(count: int) -> None:
    """Nothing is set aside for records that cannot be there."""
    good, _, begins = log([Batch(tuple((n, b"k", b"v", []) for n in range(300)))] * 2)
    damaged = bytearray(good[begins[1] :])
    damaged[57:61] = struct.pack(">i", count)
    sign(damaged)
    data = good[: begins[1]] + bytes(damaged)
    # The client gives the records before it finds that there are none left, or too many: we give whole batches.
    theirs, ours = (read(kind, data, [], [None, None]) for kind in (Fetcher.PartitionRecords, ColumnRecords))
    assert ours[1:] == theirs[1:] and ours[0][:3] == theirs[0][:3]


@pytest.mark.parametrize("rows", [3, 300])
def test_a_wrong_checksum_is_refused_after_the_records_before_it(rows: int) -> None:
    good = Batch(tuple((1, b"k", b"v", []) for _ in range(rows)))
    data, _, begins = log([good, good])
    damaged = bytearray(data)
    damaged[-2] ^= 1
    part = ColumnRecords(0, WHERE, MemoryRecords(bytes(damaged)))
    assert len(part.take(10 * rows)) == rows
    with pytest.raises(CorruptRecordError, match="CRC"):
        part.take(10)
    assert part.next_fetch_offset == rows
    assert len(ColumnRecords(0, WHERE, MemoryRecords(bytes(damaged)), check_crcs=False).take()) == 2 * rows
    assert begins[1] > 0


def test_a_consumer_with_deserializers_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    consumer = SimpleNamespace(
        config={"key_deserializer": object(), "value_deserializer": None}, _fetcher=SimpleNamespace()
    )
    assert not kafka_fetch.install(consumer)
    assert not vars(consumer._fetcher)
    assert "one by one" in caplog.text


class Waiting:
    """A client that asks for more as it hands out the last it has, and whose broker answers at once with all it has."""

    def __init__(self) -> None:
        self.log: dict[TopicPartition, list[RecordColumns]] = {}
        self.polls: list[int] = []
        self._held: list[tuple[TopicPartition, RecordColumns]] = []
        self._end: dict[int, int] = {}

    def arrive(self, partition: int, count: int) -> None:
        """Events reach the broker."""
        start = self._end.get(partition, 0)
        self._end[partition] = start + count
        offsets = np.arange(start, start + count)
        part = RecordColumns("t", partition, offsets, offsets, [b""] * count, [b""] * count, None)
        self.log.setdefault(TopicPartition("t", partition), []).append(part)

    def ask(self) -> None:
        """What the broker has now will wait for the next poll."""
        self._held += [(where, part) for where, parts in self.log.items() for part in parts]
        self.log.clear()

    def poll(self, timeout_ms: int, max_records: int) -> dict[TopicPartition, list[RecordColumns]]:
        """As the client does it."""
        self.polls.append(timeout_ms)
        if not self._held and timeout_ms:
            self.ask()
        taken: dict[TopicPartition, list[RecordColumns]] = {}
        while self._held and max_records:
            where, part = self._held.pop(0)
            if len(part) > max_records:
                self._held.insert(0, (where, part[max_records:]))
                part = part[:max_records]
            taken.setdefault(where, []).append(part)
            max_records -= len(part)
        if not self._held and taken and not timeout_ms:
            self.ask()
        return taken


def sizes(fetched: dict[TopicPartition, list[RecordColumns]]) -> dict[int, int]:
    return {where.partition: sum(map(len, parts)) for where, parts in fetched.items()}


def test_a_poll_brings_what_came_while_the_last_batch_was_committed() -> None:
    client = Waiting()
    client.arrive(0, 1)
    client.ask()  # the answer to the request that the last poll sent
    client.arrive(0, 60)
    client.arrive(1, 40)
    assert sizes(kafka_fetch.poll(client, 5_000, 0.1)) == {0: 61, 1: 40}
    assert client.polls == [0, kafka_fetch.ANSWER_MS]


def test_a_poll_that_had_to_wait_asks_for_no_more() -> None:
    client = Waiting()
    client.arrive(0, 3)
    assert sizes(kafka_fetch.poll(client, 5_000, 0.1)) == {0: 3}
    assert client.polls == [0, 100]


def test_a_poll_that_is_full_asks_for_no_more() -> None:
    client = Waiting()
    client.arrive(0, 30)
    client.ask()
    client.arrive(1, 1)
    assert sizes(kafka_fetch.poll(client, 30, 0.1)) == {0: 30}
    assert client.polls == [0]


@given(st.lists(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9)), max_size=4), max_size=8), st.integers(1, 25))
def test_polls_bring_everything_once_and_in_order(arrivals: list[list[tuple[int, int]]], limit: int) -> None:
    client = Waiting()
    seen: dict[int, list[int]] = {}
    total: dict[int, int] = {}

    def take() -> int:
        fetched = kafka_fetch.poll(client, limit, 0.1)
        for where, parts in fetched.items():
            seen.setdefault(where.partition, []).extend(columns(parts, "t").offsets.tolist())
        assert sum(sizes(fetched).values()) <= limit
        return len(fetched)

    for arrived in arrivals:
        for partition, count in arrived:
            client.arrive(partition, count)
            total[partition] = total.get(partition, 0) + count
        take()
    while take():
        pass
    assert seen == {partition: list(range(count)) for partition, count in total.items()}
