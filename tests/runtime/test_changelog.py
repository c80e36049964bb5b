"""What is kept: whatever is touched, however the table grows, and trimmed as hard as may be, nothing is lost."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.runtime import changelog, rewrite
from stream.runtime.changelog import Changelog, StateLostError, decode_frame
from stream.runtime.rewrite import Rewrite
from stream.runtime.stage import StateDelta
from stream.transport.base import TopicPartition
from tests.runtime.memory import MemoryTransport

WHERE = TopicPartition("rows-state", 0)


class Rows:
    """Numbered rows that are only added to, each the number of the commit that touched it last."""

    def __init__(self) -> None:
        self.rows: dict[int, int] = {}
        self.rewrite = Rewrite()

    def delta(self, commit: int, touched: set[int]) -> StateDelta:
        for row in touched:
            self.rows[row] = commit
        chosen, keeps = self.rewrite.next(np.array(sorted(touched), np.intp), len(self.rows))
        return StateDelta(orjson.dumps([[row, self.rows[row]] for row in chosen.tolist()]), {}, keeps=keeps)

    def restore(self, made: Changelog, inputs: dict[str, int | None]) -> None:
        self.rows, self.rewrite = {}, Rewrite()
        for _, payload in made.restore(0, inputs):
            rows = orjson.loads(payload)
            self.rows |= dict(rows)
            self.rewrite.restore(np.array([row for row, _ in rows], np.intp))
        self.rewrite.reorder(np.arange(len(self.rows)))


commits = st.lists(
    st.tuples(st.integers(0, 6), st.lists(st.integers(0, 30), max_size=6), st.booleans()), min_size=1, max_size=60
)


@settings(max_examples=150)
@given(script=commits, floor=st.integers(1, 5))
def test_every_commit_leaves_what_a_restore_needs(script: list[tuple[int, list[int], bool]], floor: int) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(changelog, "TRIM_BYTES", 0)
        patched.setattr(changelog, "TRIM_SHARE", 0.0)
        patched.setattr(rewrite, "FLOOR", floor)
        transport = MemoryTransport()
        table, made = Rows(), Changelog(transport, "rows", WHERE.topic)
        table.restore(made, {})
        for number, (new, again, restarted) in enumerate(script):
            known = len(table.rows)
            touched = {row for row in again if row < known} | set(range(known, known + new))
            before = commit(transport, made, table.delta(number, touched))
            if before is not None:
                made.trim(0, before)
            found, reader = Rows(), Changelog(transport, "rows", WHERE.topic)
            found.restore(reader, {"in": number + 1} if number else {})
            assert found.rows == table.rows
            if restarted:
                table, made = found, reader


def commit(transport: MemoryTransport, made: Changelog, delta: StateDelta) -> int | None:
    offset = transport.end_offset(WHERE)
    transport.produce(made.frame(0, delta, {"in": offset + 1}))
    return made.written(0, delta, offset)


def filled(count: int, touched: int) -> tuple[MemoryTransport, Rows, list[float]]:
    """A table of so many rows after many cycles, trimmed as the runner does it; rows in the topic per row of the table,
    after each commit once steady."""
    transport = MemoryTransport()
    table, made = Rows(), Changelog(transport, "rows", WHERE.topic)
    table.restore(made, {})
    sizes = []
    for number in range(12 * count // touched):
        rows = {(number * touched + step) * 7 % count for step in range(touched)}
        if len(table.rows) < count:
            rows = set(range(len(table.rows), min(len(table.rows) + touched, count)))
        if (before := commit(transport, made, table.delta(number, rows))) is not None:
            made.trim(0, before)
        if number > 6 * count // touched:
            kept = transport.logs[WHERE][transport.start_offset(WHERE) :]
            sizes.append(sum(len(orjson.loads(decode_frame(r.value, "").payload)) for r in kept) / count)
    return transport, table, sizes


def test_the_topic_stays_below_three_times_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changelog, "TRIM_BYTES", 1_000)
    _, _, sizes = filled(2_000, 40)
    assert len(sizes) > 200
    assert max(sizes) < 3
    assert min(sizes) >= 1, "less than the state cannot be enough"


def test_the_start_of_an_input_whose_head_has_expired_is_no_loss_before_anything_was_read() -> None:
    """A sweep before the first record is committed with an offset for its fence: the start, which is not 0 there."""
    transport = MemoryTransport()
    made = Changelog(transport, "rows", WHERE.topic)
    made.begin(0)
    transport.produce(made.frame(0, Rows().delta(0, set()), {"in": None}))
    transport.starts[TopicPartition("in", 0)] = 500
    assert list(Changelog(transport, "rows", WHERE.topic).restore(0, {"in": 500}))
    with pytest.raises(StateLostError, match="does not stand where"):
        list(Changelog(transport, "rows", WHERE.topic).restore(0, {"in": 501}))


def test_a_record_less_than_is_needed_is_a_lost_state() -> None:
    transport, table, _ = filled(200, 10)
    header: dict[str, Any] = decode_frame(transport.logs[WHERE][-1].value, "").header
    last = transport.end_offset(WHERE)
    transport.starts[WHERE] = header["restore_from"]
    found = Rows()
    found.restore(Changelog(transport, "rows", WHERE.topic), {"in": last})
    assert found.rows == table.rows
    transport.starts[WHERE] += 1
    with pytest.raises(StateLostError, match="its newest record needs"):
        found.restore(Changelog(transport, "rows", WHERE.topic), {"in": last})


def test_records_of_former_releases_are_read_and_gone_on_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """`RSC2` told of cycles, in place of how many deltas are kept."""
    monkeypatch.setattr(changelog, "TRIM_BYTES", 0)
    transport = MemoryTransport()
    old, made = Rows(), Changelog(transport, "rows", WHERE.topic)
    old.restore(made, {})
    for number in range(20):
        offset = transport.end_offset(WHERE)
        delta = old.delta(number, {number % 7})
        (frame,) = made.frame(0, delta, {"in": offset + 1})
        made.written(0, delta, offset)
        found = decode_frame(frame.value, "")
        del found.header["keeps"]
        header = orjson.dumps(found.header | {"starts_cycle": not number % 5, "upto": 3})
        value = b"RSC2" + len(header).to_bytes(4, "little") + header + found.payload
        transport.produce([frame._replace(value=value)])
    new = Rows()
    new.restore(again := Changelog(transport, "rows", WHERE.topic), {"in": 20})
    assert new.rows == old.rows
    for number in range(20, 40):
        if (before := commit(transport, again, new.delta(number, {number % 3}))) is not None:
            again.trim(0, before)
    assert transport.start_offset(WHERE) > 20, "what the former release wrote is needed no more"
    read = Rows()
    read.restore(Changelog(transport, "rows", WHERE.topic), {"in": 40})
    assert read.rows == new.rows
