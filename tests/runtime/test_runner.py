"""The runner and the changelog against a stage whose state is easy to check: a sum for each key."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import orjson
import pytest

from stream.runtime import changelog
from stream.runtime import runner as runner_module
from stream.runtime.changelog import Changelog, StateLostError, decode_frame
from stream.runtime.runner import Runner
from stream.runtime.stage import Output, Stage, StateDelta
from stream.transport.base import FencedError, OutRecord, Record, TopicPartition, UnavailableError
from tests.runtime.memory import MemorySession, MemoryTransport


class Sums(Stage):
    """Adds up numbers by key; publishes the running sum; rewrites a third of its keys with every delta."""

    name = "sums"
    inputs = ("numbers",)
    changelog = "sums-state"

    def __init__(self, *, every: int = 1) -> None:
        self.sums: dict[int, dict[str, int]] = {}
        self.cursor: dict[int, int] = {}
        self.kept: dict[int, tuple[int, int]] = {}
        """Deltas of the last whole cycle, and of the running one."""
        self.every = every
        self.calls = 0
        self.held: tuple[list[OutRecord], set[str]] = [], set()

    def restoring(self, partition: int, deltas: Iterable[tuple[dict[str, Any], bytes]]) -> Generator[None, None, None]:
        sums: dict[str, int] = {}
        cursor = age = count = 0
        for meta, payload in deltas:
            sums |= orjson.loads(payload)
            cursor, age, count = meta["cursor"], meta["age"], count + 1
            yield
        self.sums[partition], self.cursor[partition], self.kept[partition] = sums, cursor, (count - age, age)

    def drop(self, partition: int) -> None:
        del self.sums[partition]

    def process(self, batch: Mapping[int, Sequence[Record]], now_ms: int | None) -> Output:
        output = Output()
        self.calls += 1
        for partition, records in batch.items():
            sums = self.sums[partition]
            for record in records:
                key = (record.key or b"").decode()
                sums[key] = sums.get(key, 0) + int(record.value or 0)
                output.records.append(OutRecord("running", record.key, str(sums[key]).encode(), partition))
            touched = self.held[1] | {(record.key or b"").decode() for record in records}
            keys, cursor = sorted(sums), self.cursor[partition]
            step = -(-len(keys) // 3)
            chosen = touched | set(keys[cursor : cursor + step])
            before, age = self.kept[partition] if cursor else (self.kept[partition][1], 0)
            if not self.calls % self.every:
                self.cursor[partition] = 0 if cursor + step >= len(keys) else cursor + step
                self.kept[partition] = before, age + 1
            payload = orjson.dumps({key: sums[key] for key in chosen})
            meta = {"cursor": self.cursor[partition], "age": age + 1}
            output.state[partition] = StateDelta(payload, meta, keeps=before + age + 1)
        if self.calls % self.every:
            self.held = self.held[0] + output.records, touched
            return Output(commit=False)
        output.records = self.held[0] + output.records
        self.held = [], set()
        return output


def numbers(seed: int, count: int, partitions: int) -> list[OutRecord]:
    rng = random.Random(seed)
    return [
        OutRecord("numbers", f"k{rng.randrange(20)}".encode(), str(rng.randrange(100)).encode(), i % partitions)
        for i in range(count)
    ]


def expected(records: list[OutRecord]) -> tuple[Counter[tuple[int, str]], list[tuple[int, bytes, bytes]]]:
    sums: Counter[tuple[int, str]] = Counter()
    running: list[tuple[int, bytes, bytes]] = []
    for record in records:
        sums[record.partition or 0, (record.key or b"").decode()] += int(record.value or 0)
        running.append(
            (
                record.partition or 0,
                record.key or b"",
                str(sums[record.partition or 0, (record.key or b"").decode()]).encode(),
            )
        )
    return sums, running


def drain(runner: Runner) -> None:
    runner.step(0)
    while runner.behind():
        runner.step(0)


@pytest.mark.parametrize("seed", range(8))
def test_whatever_fails_every_number_counts_once(seed: int) -> None:
    """Commits that fail before, and commits that succeed and are in doubt after: the sums are whole all the same."""
    rng = random.Random(seed)
    transport = MemoryTransport(partitions=3)
    records = numbers(seed, 400, 3)
    transport.produce(records)

    def fail(probability: float) -> Callable[[], None]:
        def hook() -> None:
            if rng.random() < probability:
                raise FencedError("broken on purpose")

        return hook

    transport.before_commit, transport.after_commit = fail(0.2), fail(0.2)
    stage = Sums()
    runner = Runner(stage, transport, group="g", batch_records=7)
    for _ in range(2_000):
        try:
            runner.step(0)
        except FencedError:
            continue
        if runner.joined() and not runner.behind():
            break
    sums, running = expected(records)
    assert {(p, k): v for p, held in stage.sums.items() for k, v in held.items()} == dict(sums)
    for partition in range(3):
        log = transport.logs[TopicPartition("running", partition)]
        assert [(r.partition, r.key, r.value) for r in log] == [r for r in running if r[0] == partition]


@pytest.mark.parametrize("seed", range(12))
def test_whatever_happens_while_a_commit_is_under_way_every_number_counts_once(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three members, partitions that move, commits that end late, fail, or succeed in doubt."""
    rng = random.Random(seed)
    monkeypatch.setattr(runner_module, "GROUP_INTERVAL_S", rng.choice((0.0, 0.002, 10.0)))
    transport = MemoryTransport(partitions=4)
    transport.overlapping = rng
    records = numbers(seed, 1_500, 4)
    transport.produce(records)
    transport.owners = dict.fromkeys(range(4), -1)
    doubtful = 0.05 if seed % 3 else 0.0

    def hook() -> None:
        if rng.random() < doubtful:
            raise FencedError("broken on purpose")

    transport.before_commit = transport.after_commit = hook
    members = [Runner(Sums(), transport, group="g", batch_records=5) for _ in range(3)]
    overlapped = 0
    places = [TopicPartition("numbers", partition) for partition in range(4)]
    for round_ in range(200_000):
        if all(transport.offsets.get(("g", where), 0) == transport.end_offset(where) for where in places):
            break
        runner = rng.choice(members)
        try:
            (runner.step if rng.random() < 0.1 else runner.advance)(0)
        except FencedError:
            continue
        overlapped += runner._flight is not None
        if rng.random() < (0.05 if round_ < 2_000 else 0.002) and isinstance(runner._session, MemorySession):
            transport.owners[rng.randrange(4)] = runner._session.number
        for number, owner in transport.owners.items():
            # A session that died leaves its partitions to another one.
            living = [m._session.number for m in members if isinstance(m._session, MemorySession)]
            if owner not in living and living:
                transport.owners[number] = rng.choice(living)
    assert overlapped > 50
    for member in members:
        with suppress(FencedError):
            member.finish()
    _, running = expected(records)
    for partition in range(4):
        log = transport.logs[TopicPartition("running", partition)]
        assert [(r.partition, r.key, r.value) for r in log] == [r for r in running if r[0] == partition]


def test_a_stage_that_is_stopped_waits_for_its_last_commit() -> None:
    transport = MemoryTransport()
    transport.overlapping = random.Random(1)
    transport.overlapping.random = lambda: 0.99  # type: ignore[method-assign]
    transport.produce(numbers(1, 10, 1))
    stop = threading.Event()

    class Stopping(Sums):
        def process(self, batch: Mapping[int, Sequence[Record]], now_ms: int | None) -> Output:
            stop.set()
            return super().process(batch, now_ms)

    Runner(Stopping(), transport, group="g").run(stop)
    assert transport.committed("g", TopicPartition("numbers", 0)) == 10


def test_a_commit_that_began_is_waited_for_whatever_else_fails() -> None:
    transport = MemoryTransport()
    transport.overlapping = random.Random(1)
    transport.overlapping.random = lambda: 0.99  # type: ignore[method-assign]
    transport.produce(numbers(1, 10, 1))
    runner = Runner(Sums(), transport, group="g", batch_records=5)
    while runner._flight is None:
        runner.advance(0)
    assert transport.committed("g", TopicPartition("numbers", 0)) is None

    def away(max_records: int) -> dict[TopicPartition, Sequence[Record]]:
        raise UnavailableError("the broker went away")

    assert runner._session is not None
    runner._session.ahead = away  # type: ignore[method-assign]
    with pytest.raises(UnavailableError):
        runner.advance(0)
    assert transport.committed("g", TopicPartition("numbers", 0)) == 5


def test_a_restored_stage_goes_on_where_the_changelog_stands_and_the_changelog_stays_short(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(changelog, "TRIM_BYTES", 1)
    monkeypatch.setattr(changelog, "TRIM_SHARE", 0.0)
    transport = MemoryTransport()
    records = numbers(1, 600, 1)
    for start in range(0, 600, 50):
        transport.produce(records[start : start + 50])
        stage = Sums()
        runner = Runner(stage, transport, group="g", batch_records=10)
        drain(runner)
        assert stage.sums[0] == {k: v for (_, k), v in expected(records[: start + 50])[0].items()}
        runner.abandon()
    where = TopicPartition("sums-state", 0)
    kept = transport.end_offset(where) - transport.start_offset(where)
    assert kept <= 2 * 3 + 1, "two cycles of three deltas at the most"


def test_a_stage_may_put_the_commit_off_and_learns_again_after_a_crash() -> None:
    transport = MemoryTransport()
    records = numbers(2, 100, 1)
    transport.produce(records)
    stage = Sums(every=3)
    runner = Runner(stage, transport, group="g", batch_records=10)
    drain(runner)
    assert transport.commits == 3
    assert transport.committed("g", TopicPartition("numbers", 0)) == 90
    again = Sums()
    drain(Runner(again, transport, group="g", batch_records=10))
    assert again.sums[0] == {k: v for (_, k), v in expected(records)[0].items()}


def changelog_of(transport: MemoryTransport, count: int = 60) -> TopicPartition:
    transport.produce(numbers(3, count, 1))
    drain(Runner(Sums(), transport, group="g", batch_records=5))
    return TopicPartition("sums-state", 0)


def restore(transport: MemoryTransport) -> None:
    offset = transport.committed("g", TopicPartition("numbers", 0))
    for _ in Changelog(transport, "sums", "sums-state").restore(0, {"numbers": offset}):
        pass


def test_a_lost_changelog_is_an_error_and_no_fresh_start() -> None:
    transport = MemoryTransport()
    where = changelog_of(transport)
    restore(transport)
    transport.logs[where].clear()
    transport.starts.clear()
    with pytest.raises(StateLostError, match=r"is empty, but the group has committed .*rebuild"):
        restore(transport)


def test_a_truncated_changelog_is_an_error() -> None:
    transport = MemoryTransport()
    where = changelog_of(transport)
    transport.starts[where] = transport.end_offset(where) - 1
    with pytest.raises(StateLostError, match="its newest record needs"):
        restore(transport)


def test_a_changelog_behind_the_offsets_is_an_error() -> None:
    transport = MemoryTransport()
    changelog_of(transport)
    transport.offsets["g", TopicPartition("numbers", 0)] += 1
    with pytest.raises(StateLostError, match="does not stand where"):
        restore(transport)


def test_damage_and_strangers_are_named_with_their_place() -> None:
    transport = MemoryTransport()
    where = changelog_of(transport)
    last = transport.logs[where][-1]
    transport.logs[where][-1] = last._replace(value=(last.value or b"")[:-1] + b"?")
    with pytest.raises(StateLostError, match=rf"sums-state/0@{last.offset}: .*damaged"):
        restore(transport)
    transport.logs[where][-1] = last._replace(value=b"hello, I am no frame")
    with pytest.raises(StateLostError, match="not a changelog record"):
        restore(transport)
    transport.logs[where][-1] = last
    with pytest.raises(StateLostError, match="state of stage 'sums', expected 'other'"):
        list(Changelog(transport, "other", "sums-state").restore(0, {}))


def test_a_large_delta_is_split_and_joined() -> None:
    transport = MemoryTransport()
    big = Changelog(transport, "big", "big-state")
    assert list(big.restore(0, {})) == []
    delta = StateDelta(random.Random(0).randbytes(2_000_000), {"n": 1}, keeps=1)
    records = big.frame(0, delta, {"numbers": 5})
    assert len(records) == 3
    assert max(len(record.value or b"") for record in records) < 1_000_000
    transport.produce(records)
    big.written(0, delta, 0)
    fresh = Changelog(transport, "big", "big-state")
    assert list(fresh.restore(0, {"numbers": 5})) == [({"n": 1}, delta.payload)]
    with pytest.raises(StateLostError, match="no changelog record"):
        decode_frame(None, "here")


def test_a_stage_that_forgets_its_state_is_found_out() -> None:
    class Forgetful(Sums):
        def process(self, batch: Mapping[int, Sequence[Record]], now_ms: int | None) -> Output:
            output = super().process(batch, now_ms)
            output.state.clear()
            return output

    transport = MemoryTransport()
    transport.produce(numbers(4, 5, 1))
    runner = Runner(Forgetful(), transport, group="g")
    runner.step(0)
    with pytest.raises(RuntimeError, match="without their state"):
        runner.step(0)


def test_what_a_batch_and_a_tick_after_it_leave_behind_can_be_restored_at_every_commit() -> None:
    """Each holds everything, and trims the changelog to itself."""

    class Ticking(Sums):
        def tick(self, now_ms: int | None) -> Output | None:
            state = {
                p: StateDelta(orjson.dumps(sums), {"cursor": 0, "age": 1}, keeps=1)
                for p, sums in self.sums.items()
                if sums
            }
            return Output(state=state) if state else None

    transport = MemoryTransport()
    transport.produce(numbers(1, 100, 1))
    transport.after_commit = lambda: restore(transport)
    runner = Runner(Ticking(), transport, group="g", batch_records=10)
    for _ in range(8):
        runner.step(0)
        restore(transport)
    assert transport.commits > 8


def test_a_restore_that_breaks_off_is_begun_anew() -> None:
    """The broker may go away in the middle of it; what was half restored is nobody's state."""

    transport = MemoryTransport(partitions=2)
    records = numbers(5, 200, 2)
    transport.produce(records[:100])
    drain(Runner(Sums(), transport, group="g", batch_records=10))
    transport.produce(records[100:])
    read, failures = transport.read, 2

    def unreliable(where: TopicPartition, start: int, end: int | None = None) -> Iterator[Record]:
        nonlocal failures
        for record in read(where, start, end):
            if where.topic == "sums-state" and where.partition == 1 and failures:
                failures -= 1
                raise UnavailableError("the broker went away")
            yield record

    transport.read = unreliable  # type: ignore[method-assign]
    stage = Sums()
    runner = Runner(stage, transport, group="g", batch_records=10)
    for _ in range(2):
        with pytest.raises(UnavailableError):
            runner.step(0)
    drain(runner)
    assert {(p, k): v for p, held in stage.sums.items() for k, v in held.items()} == dict(expected(records)[0])


def test_tables_are_read_anew_before_a_partition_that_came_is_worked_on() -> None:
    """Its last owner may have seen a newer model than we have, and half a second is long enough to go back on it."""

    class Following(Sums):
        tables = ("names",)

        def __init__(self) -> None:
            super().__init__()
            self.known: list[bytes | None] = []
            self.known_at_tick: list[int] = []

        def update_table(self, topic: str, records: Sequence[Record]) -> None:
            self.known += [record.value for record in records]

        def tick(self, now_ms: int | None) -> Output | None:
            self.known_at_tick.append(len(self.known))
            return None

    transport = MemoryTransport()
    stage = Following()
    runner = Runner(stage, transport, group="g")
    runner.step(0)
    transport.produce([OutRecord("names", b"1", b"new", 0)])
    runner.abandon()
    runner.step(0)
    assert stage.known_at_tick == [0, 1]


def test_what_a_tick_publishes_is_fenced_by_an_offset_that_is_committed_already() -> None:
    class Ticking(Sums):
        def tick(self, now_ms: int | None) -> Output | None:
            return Output([OutRecord("running", b"tick", b"1", 1)])

    transport = MemoryTransport(partitions=2)
    transport.produce([OutRecord("numbers", b"a", b"1", 1)])
    asked: list[dict[TopicPartition, int]] = []

    class Watched(MemorySession):
        def commit(
            self, offsets: Mapping[TopicPartition, int], outputs: Sequence[OutRecord]
        ) -> dict[TopicPartition, int]:
            asked.append(dict(offsets))
            return super().commit(offsets, outputs)

    transport.session = lambda group, topics: Watched(transport, group, topics)  # type: ignore[method-assign]
    runner = Runner(Ticking(), transport, group="g")
    for _ in range(3):
        runner.step(0)
    assert asked[0] == {}, "nothing is committed yet"
    assert asked[-1] == {TopicPartition("numbers", 1): 1}
