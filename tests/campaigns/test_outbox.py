from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.campaign import CampaignAction
from stream.campaigns import table
from stream.campaigns.outbox import Outbox, Pending, Route
from stream.runtime.stage import StateDelta

HORIZON = 10_000
ROUTES = {"a": Route("webhook", "x"), "b": Route("webhook", "x"), "c": Route("log", "y")}


def action(number: int, campaign: str, user: str) -> CampaignAction:
    return CampaignAction(
        id=f"act{number}",
        campaign=campaign,
        user_id=user,
        trigger="enter",
        change_id=str(number),
        sequence=1,
        cause="behaviour",
        action="log",
        target="y",
        occurred_at=number,
        decided_at=number,
    )


@dataclass
class Naive:
    """One pending action of the oracle."""

    action: CampaignAction
    due: int = 0
    attempts: int = 0
    out: bool = False

    @property
    def lane(self) -> tuple[Route, str]:
        return ROUTES[self.action.campaign], self.action.user_id


def naive_take(model: list[Naive], route: Route, now: int) -> Naive | None:
    heads: dict[Any, Naive] = {}
    for entry in model:
        heads.setdefault(entry.lane, entry)
    free = [h for lane, h in heads.items() if lane[0] == route and not h.out]
    best = min(free, key=lambda h: (h.due, model.index(h)), default=None)
    return best if best is not None and not now < best.due <= now + HORIZON else None


steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from("abc"), st.sampled_from(["u", "v"])),
        st.tuples(st.just("take"), st.sampled_from("ac"), st.sampled_from(["done", "retry", "untouched", "keep"])),
        st.tuples(st.just("run"), st.sampled_from("ac"), st.sampled_from(["done", "untouched"])),
        st.tuples(st.just("wait"), st.just(""), st.integers(1, 500)),
        st.tuples(st.sampled_from(["restart", "commit"]), st.just(""), st.just(0)),
    ),
    max_size=80,
)


@pytest.fixture(autouse=True)
def _short_cycles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "MIN_CYCLE", 2)
    monkeypatch.setattr(table, "MIN_SLICE", 1)


def needed(deltas: list[StateDelta]) -> list[StateDelta]:
    """What a changelog keeps."""
    return deltas[len(deltas) - deltas[-1].keeps :]


@given(steps)
def test_the_outbox_hands_out_what_a_plain_list_would(todo: list[tuple[str, str, Any]]) -> None:
    outbox, deltas, model = Outbox(0, ROUTES.__getitem__, HORIZON), list[StateDelta](), list[Naive]()
    now = number = 0
    for what, which, how in todo:
        if what == "add":
            number += 1
            new = action(number, which, how)
            assert outbox.add(new, new.model_dump_json())
            assert not outbox.add(new, new.model_dump_json())
            model.append(Naive(new))
        elif what == "wait":
            now += how
        elif what == "commit":
            deltas.append(outbox.delta({}))
        elif what == "restart":
            deltas.append(outbox.delta({}))
            outbox = Outbox(0, ROUTES.__getitem__, HORIZON)
            outbox.restore([(delta.meta, delta.payload) for delta in needed(deltas)])
            for entry in model:
                entry.out = False
        elif what == "take":
            taken, expected = outbox.take(ROUTES[which], now), naive_take(model, ROUTES[which], now)
            assert (taken and taken.id) == (expected and expected.action.id)
            if taken is None or expected is None:
                continue
            assert (taken.attempts, taken.due, taken.text) == (
                expected.attempts,
                expected.due,
                expected.action.model_dump_json(),
            )
            if how == "done":
                outbox.done(taken)
                model.remove(expected)
            elif how == "retry":
                outbox.retry(taken, now + 100)
                expected.due, expected.attempts = now + 100, expected.attempts + 1
            elif how == "untouched":
                outbox.untouched(taken)
            else:
                expected.out = True
        else:
            run = outbox.take_run(ROUTES[which], now, 1_000)
            check_run(run, model, ROUTES[which], now)
            if how == "done":
                outbox.done(*run)
                ids = {pending.id for pending in run}
                model = [entry for entry in model if entry.action.id not in ids]
            else:
                outbox.untouched(*run)
        assert len(outbox) == len(model)


def check_run(run: list[Pending], model: list[Naive], route: Route, now: int) -> None:
    """Whole lanes whose head is due and free, in the order of decision."""
    lanes = set()
    rest = list(model)
    while (head := naive_take(rest, route, now)) is not None:
        lanes.add(head.lane)
        rest = [entry for entry in rest if entry.lane != head.lane]
    assert [p.id for p in run] == [entry.action.id for entry in model if entry.lane in lanes]


def test_order_survives_a_restore_from_any_whole_cycle() -> None:
    outbox, deltas = Outbox(0, ROUTES.__getitem__, HORIZON), list[StateDelta]()
    for number in range(12):
        new = action(number, "a", "u")
        outbox.add(new, new.model_dump_json())
        deltas.append(outbox.delta({}))
    starts = range(len(deltas) + 1 - deltas[-1].keeps)
    assert len(starts) > 2
    for start in starts:
        restored = Outbox(0, ROUTES.__getitem__, HORIZON)
        restored.restore([(delta.meta, delta.payload) for delta in deltas[start:]])
        new = action(12, "a", "u")
        restored.add(new, new.model_dump_json())
        seen = []
        while (pending := restored.take(ROUTES["a"], 0)) is not None:
            seen.append(pending.id)
            restored.done(pending)
        assert seen == [f"act{n}" for n in range(13)]


def test_a_run_is_bounded_and_the_rest_comes_next() -> None:
    outbox = Outbox(0, ROUTES.__getitem__, HORIZON)
    for number in range(10):
        new = action(number, "c", "uv"[number % 2])
        outbox.add(new, new.model_dump_json())
    seen = []
    while run := outbox.take_run(ROUTES["c"], 0, 3):
        assert len(run) <= 3
        seen += [pending.id for pending in run]
        outbox.done(*run)
    for user in (0, 1):
        assert [i for i in seen if int(i[3:]) % 2 == user] == [f"act{n}" for n in range(user, 10, 2)]
    assert len(outbox) == 0
    assert outbox.routes == []


def test_what_a_clock_put_off_that_has_been_set_back_since_is_due() -> None:
    outbox = Outbox(0, ROUTES.__getitem__, HORIZON)
    new = action(1, "a", "u")
    outbox.add(new, new.model_dump_json())
    pending = outbox.take(ROUTES["a"], 1_000_000)
    assert pending is not None
    outbox.retry(pending, 1_000_100)
    assert outbox.take(ROUTES["a"], 1_000_050) is None
    assert outbox.take(ROUTES["a"], 500) is pending
