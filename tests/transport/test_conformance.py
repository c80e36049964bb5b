"""What every transport does: the same tests against SQLite and against a real Kafka."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from functools import partial

import pytest

from schemas.topics import TopicSpec
from stream.transport.base import FencedError, OutRecord, TopicPartition, Transport, TransportError, UnavailableError
from stream.transport.murmur2 import partition_of
from tests.transport.drive import (
    CHANGES,
    CLICKS,
    EVENTS,
    LATEST,
    SINGLE,
    SMALL,
    SPECS,
    Place,
    acquire,
    flat,
    next_offsets,
    numbered,
    read_all,
    take,
    until,
    values,
)

ALL_EVENTS = {TopicPartition(EVENTS, partition) for partition in range(4)}


# Records


def test_what_is_produced_is_read_in_order_with_everything_it_has(place: Place, transport: Transport) -> None:
    sent = [
        OutRecord(SINGLE, b"key", b"value", timestamp=1_700_000_000_000),
        OutRecord(SINGLE, None, b"no key", timestamp=1_700_000_000_001),
        OutRecord(SINGLE, b"no value", None, timestamp=1_700_000_000_002),
        OutRecord(SINGLE, b"", b"", timestamp=1_700_000_000_003),
        OutRecord(SINGLE, b"headers", b"x", headers=[("a", b"1"), ("a", b"2"), ("ä", b"")], timestamp=1),
        OutRecord(SINGLE, b"large", bytes(range(256)) * 4000, timestamp=1_750_000_000_000),
    ]
    assert transport.produce(sent) == len(sent)

    def plain(records: list[object]) -> list[tuple[object, ...]]:
        return [(r.topic, r.partition, r.key, r.value, list(r.headers), r.timestamp) for r in records]  # type: ignore[attr-defined]

    expected = [(r.topic, 0, r.key, r.value, list(r.headers), r.timestamp) for r in sent]
    read = list(transport.read(TopicPartition(SINGLE, 0), 0))
    assert plain(list(read)) == expected
    assert [record.offset for record in read] == list(range(len(sent)))
    polled = flat(take(place.session(transport, topics=[SINGLE]), len(sent)))
    assert plain(list(polled)) == expected


def test_a_key_goes_to_kafkas_partition_whoever_writes(place: Place, transport: Transport) -> None:
    keys = [b"user-%d" % number for number in range(200)] + [b"\x00", "ü".encode(), b"x" * 1000]
    transport.produce([OutRecord(EVENTS, key, key) for key in keys])
    session = place.session(transport)
    committed = take(session, len(keys))
    session.commit({}, [OutRecord(CHANGES, key, key) for key in keys])
    for topic in (EVENTS, CHANGES):
        found = {record.key: record.partition for record in read_all(transport, topic)}
        assert found == {key: partition_of(key, 4) for key in keys}
    assert sum(map(len, committed.values())) == len(keys)


def test_a_given_partition_is_kept_and_a_wrong_one_refused(transport: Transport) -> None:
    transport.produce([OutRecord(EVENTS, b"k", b"%d" % partition, partition) for partition in (3, 0, 2)])
    assert {(r.partition, r.value) for r in read_all(transport, EVENTS)} == {(3, b"3"), (0, b"0"), (2, b"2")}
    with pytest.raises(TransportError, match="partitions 0 to 3, not 4"):
        transport.produce([OutRecord(EVENTS, b"k", b"v", 4)])


def test_records_that_no_topic_takes_are_refused_before_anything_is_written(place: Place, transport: Transport) -> None:
    session = place.session(transport)
    acquire(session)
    large, empty = OutRecord(CHANGES, b"k", b"x" * 1_048_600), OutRecord(CHANGES, None, None)
    for bad, message in ((large, "too large"), (empty, "neither key nor value")):
        with pytest.raises(TransportError, match=message):
            transport.produce([OutRecord(CHANGES, b"k", b"good"), bad])
        with pytest.raises(TransportError, match=message):
            session.commit({TopicPartition(EVENTS, 0): 1}, [OutRecord(CHANGES, b"k", b"good"), bad])
    # The session has lost nothing by it.
    session.commit({TopicPartition(EVENTS, 0): 0}, [OutRecord(CHANGES, b"k", b"good")])
    assert values(read_all(transport, CHANGES)) == [b"good"]


# Commits


def test_a_commit_shows_all_its_outputs_and_offsets_and_nothing_before(place: Place, transport: Transport) -> None:
    transport.produce(numbered(EVENTS, 40))
    session = place.session(transport)
    polled = take(session, 40)
    assert read_all(transport, CHANGES) == []
    assert transport.committed("g", TopicPartition(EVENTS, 0)) is None
    outputs = [OutRecord(CHANGES, record.key, record.value) for record in flat(polled)]
    outputs += [OutRecord(SINGLE, None, b"once")]
    first = session.commit(next_offsets(polled), outputs)
    assert sorted(values(read_all(transport, CHANGES))) == sorted(values(flat(polled)))
    assert values(read_all(transport, SINGLE)) == [b"once"]
    for where, offset in next_offsets(polled).items():
        assert transport.committed("g", where) == offset
    for where, offset in first.items():
        assert next(iter(transport.read(where, 0))).offset == offset
    second = session.commit({}, outputs)
    assert first.keys() == second.keys()
    for where, offset in second.items():
        own = [record for record in transport.read(where, 0) if record.offset >= offset]
        assert (
            len(own) == Counter(record.partition for record in flat(polled))[where.partition] or where.topic == SINGLE
        )


def test_a_commit_that_fails_leaves_nothing(place: Place, transport: Transport) -> None:
    transport.produce(numbered(EVENTS, 10))
    session = place.session(transport)
    polled = take(session, 10)
    outputs = [OutRecord(CHANGES, b"k", b"never"), OutRecord(SMALL, b"k", random.Random(1).randbytes(5000))]
    with pytest.raises(TransportError):
        session.commit(next_offsets(polled), outputs)
    session.close()
    assert read_all(transport, CHANGES) == []
    assert read_all(transport, SMALL) == []
    # Its successor starts where nothing was committed.
    again = place.session(transport)
    assert sorted(values(flat(take(again, 10)))) == sorted(values(flat(polled)))


def test_a_member_resumes_where_the_last_commit_was(place: Place, transport: Transport) -> None:
    transport.produce([OutRecord(SINGLE, b"k", b"%d" % number) for number in range(10)])
    session = place.session(transport, topics=[SINGLE])
    where = TopicPartition(SINGLE, 0)
    assert len(flat(take(session, 10))) == 10
    session.commit({where: 4}, [])
    session.close()
    session.close()
    assert values(take(place.session(place.open(), topics=[SINGLE]), 6)[where]) == [b"4", b"5", b"6", b"7", b"8", b"9"]


def test_groups_do_not_share_offsets(place: Place, transport: Transport) -> None:
    transport.produce(numbered(SINGLE, 3))
    where = TopicPartition(SINGLE, 0)
    for group in ("one", "two"):
        session = place.session(transport, group, [SINGLE])
        assert len(flat(take(session, 3))) == 3
        session.commit({where: 3}, [])
    assert transport.committed("one", where) == transport.committed("two", where) == 3
    assert transport.committed("three", where) is None


def test_offsets_of_a_partition_that_is_not_ours_are_refused(place: Place, transport: Transport) -> None:
    session = place.session(transport, topics=[SINGLE])
    acquire(session)
    with pytest.raises(FencedError, match="not, or no longer"):
        session.commit({TopicPartition(EVENTS, 0): 1}, [])
    assert transport.committed("g", TopicPartition(EVENTS, 0)) is None


def test_a_closed_session_says_so(place: Place, transport: Transport) -> None:
    session = place.session(transport)
    acquire(session)
    session.close()
    for call in (lambda: session.poll(1, 0), lambda: session.commit({}, numbered(CHANGES, 1)), session.lag):
        with pytest.raises(FencedError, match="closed"):
            call()


# Groups


def test_partitions_are_paused_until_resumed(place: Place, transport: Transport) -> None:
    transport.produce([OutRecord(EVENTS, None, b"%d" % partition, partition) for partition in range(4)])
    session = place.session(transport)
    assert acquire(session) == ALL_EVENTS
    assert not session.poll(10, 0.3).records
    session.resume([TopicPartition(EVENTS, 2)])
    assert values(flat(take(session, 1))) == [b"2"]
    assert not session.poll(10, 0.3).records
    session.resume(ALL_EVENTS)
    assert sorted(values(flat(take(session, 3)))) == [b"0", b"1", b"3"]


def test_members_split_the_partitions_and_take_over_when_one_leaves(place: Place, transport: Transport) -> None:
    one = place.member(transport)
    until(lambda: one.owned == ALL_EVENTS, "the first member to have everything")
    kept = set(one.owned)
    two = place.member(place.open())
    until(lambda: len(one.owned) == len(two.owned) == 2 and not one.owned & two.owned, "even shares")
    assert one.owned < kept
    three = place.member(place.open())
    until(lambda: sorted(len(member.owned) for member in (one, two, three)) == [1, 1, 2], "thirds")
    assert one.owned | two.owned | three.owned == ALL_EVENTS
    one.leave()
    until(lambda: two.owned | three.owned == ALL_EVENTS and not two.owned & three.owned, "the rest to take over")
    assert two.error is three.error is None


def test_co_partitioned_topics_go_together(place: Place, transport: Transport) -> None:
    topics = (EVENTS, CLICKS)
    one, two = place.member(transport, topics), place.member(place.open(), topics)
    everything = {TopicPartition(topic, partition) for topic in topics for partition in range(4)}
    until(lambda: one.owned | two.owned == everything and not one.owned & two.owned and two.owned, "even shares")
    for member in (one, two):
        numbers = {topic: {where.partition for where in member.owned if where.topic == topic} for topic in topics}
        assert numbers[EVENTS] == numbers[CLICKS]
    transport.produce(numbered(EVENTS, 50) + numbered(CLICKS, 50, first=50))
    until(lambda: len(flat(one.records)) + len(flat(two.records)) == 100, "all records")
    assert sorted(int(value or b"") for value in values(flat(one.records) + flat(two.records))) == list(range(100))


def test_unequal_partition_counts_are_refused_with_the_fix(transport: Transport) -> None:
    with pytest.raises(TransportError, match=r"events has 4, single has 1: give single 4 partitions") as caught:
        transport.session("g", [EVENTS, SINGLE])
    assert not isinstance(caught.value, UnavailableError)


def test_every_record_is_committed_once_while_members_come_and_go(place: Place, transport: Transport) -> None:
    def has_outputs(count: int) -> bool:
        return len(read_all(transport, CHANGES)) > count

    total = 0
    members = [place.member(transport, commits=True, max_records=7)]
    for change in ("join", "join", "leave", "join", "leave"):
        transport.produce(numbered(EVENTS, 200, first=total))
        total += 200
        until(partial(has_outputs, total - 150), "some progress")
        if change == "join":
            members.append(place.member(place.open(), commits=True, max_records=7))
        else:
            members.pop(0).leave()
    until(lambda: len(read_all(transport, CHANGES)) >= total, "every record")
    expected = sorted(b"events/%d/%d" % (r.partition, r.offset) for r in read_all(transport, EVENTS))
    outputs = read_all(transport, CHANGES)
    assert sorted(value or b"" for value in values(outputs)) == expected
    # In order too, within each partition.
    for partition in range(4):
        offsets = [int((r.value or b"").split(b"/")[2]) for r in outputs if r.partition == partition]
        assert offsets == sorted(offsets)
    assert [member.error for member in members] == [None] * len(members)


def test_a_member_without_partitions_has_nothing_to_publish(place: Place, transport: Transport) -> None:
    one = place.member(transport, [SINGLE])
    until(lambda: one.owned, "the only partition to be taken")
    spare = place.session(place.open(), topics=[SINGLE])
    while one.owned and spare.poll(1, 0.5).assigned:
        pass
    with pytest.raises(FencedError, match="no partition"):
        spare.commit({}, numbered(CHANGES, 1))
    assert read_all(transport, CHANGES) == []


@pytest.mark.parametrize("offsets_too", [True, False], ids=["with offsets", "outputs alone"])
def test_a_zombie_cannot_commit(place: Place, offsets_too: bool) -> None:
    transport = place.open(evict_ms=2_000)
    transport.produce(numbered(EVENTS, 20))
    zombie = place.session(transport)
    polled = take(zombie, 20)
    other = place.member(place.open(), commits=True)
    # It polls no more, so it loses its place, and the other takes everything over.
    until(lambda: other.owned == ALL_EVENTS, "the other to take over")
    until(lambda: len(flat(other.records)) == 20, "the other to read everything again")
    offsets = dict.fromkeys(polled, 1) if offsets_too else {}
    with pytest.raises(FencedError):
        zombie.commit(offsets, numbered(CHANGES, 3, first=1000))
    with pytest.raises(FencedError):
        zombie.commit(offsets, numbered(CHANGES, 3, first=1000))
    zombie.close()
    until(lambda: len(read_all(transport, CHANGES)) >= 20, "the other's outputs")
    assert not {b"1000", b"1001", b"1002"} & set(values(read_all(transport, CHANGES)))
    assert other.error is None


def test_a_member_that_lost_its_place_goes_on_from_what_others_committed(place: Place) -> None:
    transport = place.open(evict_ms=2_000)
    where = TopicPartition(SINGLE, 0)
    transport.produce(numbered(SINGLE, 10))
    sleeper = place.session(transport, topics=[SINGLE])
    take(sleeper, 5, max_records=5)
    other = place.member(place.open(), [SINGLE], commits=True)
    until(lambda: transport.committed("g", where) == 10, "the other to read everything")
    transport.produce(numbered(SINGLE, 3, first=10))
    until(lambda: transport.committed("g", where) == 13, "the other to read on")
    other.leave()
    transport.produce(numbered(SINGLE, 2, first=13))
    # Either it is told to start anew, or it is told that it lost the partition and has it again.
    try:
        records = take(sleeper, 2)[where]
    except FencedError:
        records = take(place.session(place.open(), topics=[SINGLE]), 2)[where]
    assert values(records) == [b"13", b"14"]


# Reading


def test_read_ends_by_itself_with_control_records_at_the_end(place: Place, transport: Transport) -> None:
    transport.produce(numbered(EVENTS, 1))
    session = place.session(transport)
    take(session, 1)
    where = TopicPartition(CHANGES, 0)
    for number in range(3):
        session.commit({}, [OutRecord(CHANGES, None, b"%d" % number, 0)])
        assert values(list(transport.read(where, 0))) == [b"%d" % done for done in range(number + 1)]
        end = transport.end_offset(where)
        assert list(transport.read(where, end)) == []
        assert values(list(transport.read(where, 0, end))) == [b"%d" % done for done in range(number + 1)]
    records = list(transport.read(where, 0))
    assert values(list(transport.read(where, records[1].offset))) == [b"1", b"2"]
    assert values(list(transport.read(where, 0, records[1].offset))) == [b"0"]
    assert transport.end_offset(where) > records[-1].offset
    assert list(transport.read(TopicPartition(CHANGES, 3), 0)) == []


def test_two_reads_at_once_do_not_disturb_each_other(transport: Transport) -> None:
    transport.produce([OutRecord(EVENTS, None, b"%d" % number, number % 2) for number in range(20)])
    left, right = transport.read(TopicPartition(EVENTS, 0), 0), transport.read(TopicPartition(EVENTS, 1), 0)
    pairs = [(int(one.value or b""), int(two.value or b"")) for one, two in zip(left, right, strict=True)]
    assert pairs == [(number, number + 1) for number in range(0, 20, 2)]
    # One that is left in the middle does not either.
    next(iter(transport.read(TopicPartition(EVENTS, 0), 0)))
    assert len(list(transport.read(TopicPartition(EVENTS, 1), 0))) == 10


def test_a_compacted_topic_keeps_the_latest_of_each_key(place: Place, transport: Transport) -> None:
    session = place.session(transport)
    acquire(session)
    transport.produce([OutRecord(LATEST, b"%d" % (number % 3), b"old %d" % number, 0) for number in range(30)])
    session.commit({}, [OutRecord(LATEST, b"0", b"new", 0), OutRecord(LATEST, b"1", None, 0)])
    transport.produce([OutRecord(LATEST, b"2", b"newest", 0, headers=[("h", b"1")])])
    where = TopicPartition(LATEST, 0)
    records = list(transport.read(where, 0))
    offsets = [record.offset for record in records]
    assert offsets == sorted(set(offsets))
    # Older values of a key may still be there; the last one is what counts, and a null says that it is gone.
    assert {record.key: record.value for record in records} == {b"0": b"new", b"1": None, b"2": b"newest"}
    assert list(records[-1].headers) == [("h", b"1")]
    # A follower goes on from where it was and misses nothing.
    end = transport.end_offset(where)
    transport.produce([OutRecord(LATEST, b"0", b"after", 0)])
    assert [(record.key, record.value) for record in transport.read(where, end)] == [(b"0", b"after")]


def test_a_compacted_topic_refuses_records_without_key(transport: Transport) -> None:
    compacted = TopicSpec("segment-membership", "input", cleanup="compact", retention_ms=None)
    transport.create_topics([compacted], 4)
    with pytest.raises(TransportError, match="needs a key"):
        transport.produce([OutRecord("segment-membership", None, b"v")])


def test_trim_moves_the_start_and_nothing_else(place: Place, transport: Transport) -> None:
    where = TopicPartition(SINGLE, 0)
    transport.produce([OutRecord(SINGLE, b"k", b"%d" % number) for number in range(10)])
    transport.produce([OutRecord(SINGLE, b"k", b"%d" % number) for number in range(10, 20)])
    for before, start in ((5, 5), (5, 5), (3, 5), (12, 12)):
        transport.trim(where, before)
        assert transport.start_offset(where) == start
        assert values(list(transport.read(where, 0))) == [b"%d" % number for number in range(start, 20)]
    assert transport.end_offset(where) == 20
    assert next(record.offset for record in transport.read(where, 14)) == 14
    # A group that has read nothing yet begins at what is left.
    assert values(flat(take(place.session(transport, topics=[SINGLE]), 8)))[0] == b"12"
    transport.trim(where, 20)
    assert list(transport.read(where, 0)) == []
    with pytest.raises(TransportError, match="ends at 20"):
        transport.trim(where, 21)


def test_lag_counts_what_is_left_to_read(place: Place, transport: Transport) -> None:
    transport.produce([OutRecord(EVENTS, None, b"x", partition) for partition in (0, 0, 0, 1)])
    session = place.session(transport)
    acquire(session)
    expected = {TopicPartition(EVENTS, partition): lag for partition, lag in enumerate((3, 1, 0, 0))}
    assert session.lag() == expected
    session.resume(ALL_EVENTS)
    take(session, 4)
    until(lambda: not session.poll(1, 0.1).records and not any(session.lag().values()), "no lag")
    transport.produce([OutRecord(EVENTS, None, b"x", 2)])
    take(session, 1)
    session.resume([])
    assert set(session.lag()) == ALL_EVENTS


def test_no_partition_starves_when_little_is_polled_at_a_time(place: Place, transport: Transport) -> None:
    transport.produce([OutRecord(EVENTS, None, b"%d" % number, number % 4) for number in range(400)])
    session = place.session(transport)
    seen: Counter[int] = Counter()
    polls = 0
    while seen.total() < 400:
        poll = session.poll(50, 1.0)
        session.resume(poll.assigned)
        batch = Counter({where.partition: len(records) for where, records in poll.records.items()})
        assert batch.total() <= 50
        seen += batch
        polls += bool(poll.records)
    assert seen == Counter(dict.fromkeys(range(4), 100))
    assert polls <= 40


def test_poll_waits_for_data_and_returns_as_soon_as_it_comes(place: Place, transport: Transport) -> None:
    session = place.session(transport)
    session.resume(acquire(session))
    started = time.monotonic()
    assert not session.poll(10, 0.5).records
    assert 0.4 < time.monotonic() - started < 3
    threading.Timer(0.3, lambda: transport.produce(numbered(EVENTS, 1))).start()
    started = time.monotonic()
    assert session.poll(10, 10).records
    assert time.monotonic() - started < 5


# Topics


def test_topics_are_created_once_and_checked(transport: Transport) -> None:
    assert transport.check_topics(SPECS, 4) == []
    assert transport.check_topics(SPECS) == []
    assert transport.create_topics(SPECS, 4) == []
    assert {spec.name: transport.partitions(spec.name) for spec in SPECS} == {
        EVENTS: 4,
        CLICKS: 4,
        CHANGES: 4,
        LATEST: 4,
        SINGLE: 1,
        SMALL: 1,
    }
    assert transport.partitions("nowhere") == 0
    other = TopicSpec("other", 2)
    assert transport.create_topics([*SPECS, other], 4) == ["other"]
    assert transport.partitions("other") == 2


def test_check_names_each_difference_with_its_remedy(transport: Transport) -> None:
    wanted = [
        TopicSpec(EVENTS, "input", retention_ms=None),
        TopicSpec(CHANGES, 5),
        TopicSpec(CLICKS, 3),
        TopicSpec(LATEST, "input", cleanup="delete", retention_ms=None),
        TopicSpec(SMALL, 1, config={"max.message.bytes": "3000"}),
        TopicSpec("missing", "input"),
    ]
    found = {(each.topic, each.setting): each for each in transport.check_topics(wanted, 4)}
    week = str(7 * 86_400_000)
    differences = {key: (each.expected, each.actual) for key, each in found.items()}
    differences.pop((LATEST, "retention.ms"), None)
    assert differences == {
        (EVENTS, "retention.ms"): ("-1", week),
        (CHANGES, "partitions"): ("5", "4"),
        (CLICKS, "partitions"): ("3", "4"),
        (LATEST, "cleanup.policy"): ("delete", "compact"),
        (SMALL, "max.message.bytes"): ("3000", "2000"),
        ("missing", "topic"): ("exists", "missing"),
    }
    assert all(each.remedy for each in found.values())
    assert "resegment topics create" in found["missing", "topic"].remedy
    # Without a number the events decide what co-partitioned means.
    transport.create_topics([TopicSpec("narrow", 2)], 4)
    (difference,) = transport.check_topics([TopicSpec("narrow", "input"), TopicSpec(EVENTS, "input")])
    assert (difference.topic, difference.expected, difference.actual) == ("narrow", "4", "2")


def test_a_missing_topic_may_yet_come(place: Place, transport: Transport) -> None:
    for call in (
        lambda: transport.session("g", ["nowhere"]),
        lambda: transport.produce(numbered("nowhere", 1)),
        lambda: transport.end_offset(TopicPartition("nowhere", 0)),
        lambda: list(transport.read(TopicPartition("nowhere", 0), 0)),
    ):
        with pytest.raises(UnavailableError, match="resegment topics create"):
            call()
    transport.create_topics([TopicSpec("nowhere", 4)], 4)
    assert transport.produce(numbered("nowhere", 1)) == 1
    assert len(flat(take(place.session(transport, topics=["nowhere"]), 1))) == 1
