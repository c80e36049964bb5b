from __future__ import annotations

import logging
import re

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.campaign import CampaignAction
from stream.campaigns.rules import Campaigns
from stream.campaigns.worker import CampaignWorker, action_id
from stream.runtime.stage import Output
from tests.campaigns.support import NOW, Log, campaign, change, changes_batch, records


def worker(*campaigns_: object) -> CampaignWorker:
    made = CampaignWorker(Campaigns(campaigns_))  # type: ignore[arg-type]
    made.restore(0, ())
    return made


def actions(output: Output) -> list[CampaignAction]:
    return [CampaignAction.model_validate_json(record.value or b"") for record in output.records]


def test_an_action_says_all_that_a_receiver_needs() -> None:
    one = campaign("vip", parameters={"template": "thanks", "nested": {"n": [1, None, "ü"]}})
    cause = change("ü1", 3, left="Browsers", entered="Loyal")
    output = worker(one).process(changes_batch([cause]), NOW + 5)
    (record,) = output.records
    assert (record.topic, record.key, record.partition) == ("campaign-actions", "ü1".encode(), 0)
    assert record.timestamp == NOW + 5
    (action,) = actions(output)
    assert action == CampaignAction(
        id=action_id("vip", cause.id),
        campaign="vip",
        user_id="ü1",
        trigger="enter",
        change_id=cause.id,
        sequence=3,
        from_=cause.from_,
        to=cause.to,
        cause="behaviour",
        action="log",
        target="actions.jsonl",
        parameters={"template": "thanks", "nested": {"n": [1, None, "ü"]}},
        occurred_at=NOW,
        decided_at=NOW + 5,
    )
    assert {"from", "to"} <= orjson.loads(record.value or b"").keys()


def test_two_transitions_of_one_user_in_a_batch_are_handled_in_order() -> None:
    output = worker(campaign("in", when={"enter": "*"}), campaign("out", when={"exit": "*"})).process(
        changes_batch(
            [
                change("u1", 1, None, "A"),
                change("u2", 1, None, "A"),
                change("u1", 2, "A", "B"),
                change("u1", 3, "B", None),
            ]
        ),
        None,
    )
    assert [(a.user_id, a.sequence, a.campaign) for a in actions(output)] == [
        ("u1", 1, "in"),
        ("u2", 1, "in"),
        ("u1", 2, "in"),
        ("u1", 2, "out"),
        ("u1", 3, "out"),
    ]


def test_the_clock_is_the_records_own_where_there_is_no_other() -> None:
    batch = changes_batch([change("u1", 1, at=NOW + 7), change("u2", 1, at=NOW + 9)])
    assert [a.decided_at for a in actions(worker(campaign()).process(batch, None))] == [NOW + 7, NOW + 9]
    assert [a.decided_at for a in actions(worker(campaign()).process(batch, NOW))] == [NOW, NOW]


names = st.text(st.characters(categories=("L", "N")), min_size=1, max_size=5)


@given(st.lists(st.tuples(names, names), min_size=2, max_size=2, unique=True))
def test_ids_follow_from_campaign_and_change_and_differ_otherwise(pairs: list[tuple[str, str]]) -> None:
    first, second = (action_id(*pair) for pair in pairs)
    assert first != second
    assert first == action_id(*pairs[0])
    assert re.fullmatch(r"act_[0-9a-f]{32}", first)


def test_an_id_never_changes() -> None:
    """printf '7:welcomeu1:1' | b2sum -l 128"""
    assert action_id("welcome", "u1:1") == "act_8fc31eeb76678d625b7ae9a95e58f82a"


def test_unreadable_changes_are_counted_and_skipped_without_their_content(caplog: pytest.LogCaptureFixture) -> None:
    good = change("u9").model_dump_json().encode()
    bad = [None, b"", b"\xff", b"[]", b'{"user_id": "jane@example.com"}', good.replace(b"behaviour", b"boredom")]
    one = worker(campaign())
    with caplog.at_level(logging.WARNING):
        output = one.process({0: records([*bad, good], "segment-changes")}, None)
    assert [action.user_id for action in actions(output)] == ["u9"]
    assert (one.stats.changes, one.stats.unreadable) == (1, 6)
    assert "6 unreadable" in caplog.text
    assert "segment-changes/0@0" in caplog.text
    assert "jane" not in caplog.text
    assert "boredom" not in caplog.text


def test_unknown_fields_of_a_newer_writer_do_no_harm() -> None:
    value = orjson.dumps({**orjson.loads(change().model_dump_json()), "mood": "good"})
    assert len(worker(campaign()).process({0: records([value], "segment-changes")}, None).records) == 1


@given(st.lists(st.tuples(st.sampled_from(["u1", "u2", "u3"]), st.integers(0, 3_000_000)), max_size=40), st.data())
def test_any_batches_and_restarts_give_the_same_actions(steps: list[tuple[str, int]], data: st.DataObject) -> None:
    campaigns = Campaigns([campaign("a", cap={"at_most": 2, "per": "1h"}), campaign("b", cap={"per": "2h"})])
    now, seen = NOW, []
    for sequence, (user, gap) in enumerate(steps, start=1):
        now += gap
        seen.append(change(user, sequence, at=now))

    def run(cuts: list[int]) -> list[bytes | None]:
        log, made, out = Log(), CampaignWorker(campaigns), []
        log.restore(made)
        for begin, end in zip([0, *cuts], [*cuts, len(seen)], strict=True):
            output = log.keep(made.process(changes_batch(seen[begin:end]), None)) if begin < end else None
            out += [record.value for record in output.records] if output else []
            made = CampaignWorker(campaigns)
            log.restore(made)
        return out

    cuts = data.draw(st.lists(st.integers(0, len(seen)), max_size=5).map(sorted))
    assert run(cuts) == run([])


def test_partitions_come_and_go() -> None:
    one = worker(campaign(cap={"per": "1d"}))
    one.restore(3, ())
    batch = {**changes_batch([change("u1")]), **changes_batch([change("u2")], 3)}
    output = one.process(batch, NOW)
    assert sorted(output.state) == [0, 3]
    one.drop(3)
    one.restore(3, [(output.state[3].meta, output.state[3].payload)])
    assert not one.process(changes_batch([change("u2", 2)], 3), NOW).records
    assert one.tick(NOW) is None
