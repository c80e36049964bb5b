from __future__ import annotations

import errno
import itertools
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.campaigns import logfile
from stream.campaigns.backoff import FAILURES_TO_PROBE, LONGEST_PAUSE_MS, Endpoint, backoff_ms
from stream.campaigns.delivery import Delivery
from stream.campaigns.file import CampaignError
from stream.campaigns.rules import Campaign, Campaigns
from stream.campaigns.settings import DeliverySettings
from stream.campaigns.worker import CampaignWorker
from stream.runtime.metrics import Metrics
from stream.runtime.stage import Output
from tests.campaigns.support import (
    ENVIRON,
    NOW,
    SECRET,
    Call,
    FakeRecord,
    Log,
    Reply,
    actions_batch,
    campaign,
    change,
    changes_batch,
    outcomes,
    receiver,
    records,
    verify,
    webhook_campaign,
)
from tests.campaigns.test_webhook import free_port, raw_server

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
_open: list[Delivery] = []


@pytest.fixture(autouse=True)
def _close() -> Iterator[None]:
    yield
    while _open:
        _open.pop().close()


def delivery(
    campaigns: Campaigns, directory: Path = Path("/nonexistent"), log: Log | None = None, **settings: Any
) -> Delivery:
    made = Delivery(campaigns, DeliverySettings(**settings), directory=directory, environ=ENVIRON)
    _open.append(made)
    (log or Log()).restore(made)
    return made


def one(made: Campaign) -> Campaigns:
    return Campaigns([made], "c.yml")


def tick_until_done(made: Delivery, now: int, log: Log | None = None, seconds: float = 5.0) -> list[Output]:
    """Tick at one time until no request is under way."""
    found: list[Output] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        output = made.tick(now)
        if log is not None:
            log.keep(output)
        if output is not None:
            found.append(output)
        if not made.in_flight:
            return found
    raise AssertionError("requests are still under way")


def test_an_action_is_delivered_once_signed_and_has_an_outcome() -> None:
    with receiver() as shop:
        campaigns = one(webhook_campaign(shop.url))
        made = delivery(campaigns)
        batch = actions_batch(campaigns, [change("ü1", 4, "A", "B")])
        output = made.process(batch, NOW + 9)
        assert made.tick(NOW + 10) is None
    (call,) = shop.calls
    assert verify(SECRET, call.headers, call.body)
    sent = orjson.loads(call.body)
    assert sent["type"] == "campaign.enter"
    assert sent["data"] == orjson.loads(batch[0][0].value or b"")
    assert call.id == sent["data"]["id"]
    (outcome,) = outcomes(output)
    assert outcome.model_dump() == {
        "action_id": call.id,
        "campaign": "welcome",
        "user_id": "ü1",
        "status": "delivered",
        "attempts": 1,
        "http_status": 200,
        "detail": "",
        "finished_at": NOW + 9,
    }
    (record,) = output.records
    assert (record.topic, record.key, record.partition) == ("campaign-outcomes", "ü1".encode(), 0)
    assert record.timestamp == NOW + 9
    assert made.pending == 0


def test_what_fails_is_sent_again_under_the_same_id_after_its_back_off() -> None:
    replies = itertools.chain([500, 503], itertools.repeat(200))
    with receiver(lambda call: next(replies)) as shop:
        campaigns = one(webhook_campaign(shop.url))
        made = delivery(campaigns)
        assert outcomes(made.process(actions_batch(campaigns, [change()]), NOW)) == []
        first = backoff_ms(made.settings, shop.calls[0].id, 1)
        assert 2_500 <= first <= 5_000
        tick_until_done(made, NOW + first - 1)
        assert len(shop.calls) == 1
        tick_until_done(made, NOW + first)
        assert len(shop.calls) == 2
        second = backoff_ms(made.settings, shop.calls[0].id, 2)
        assert 10_000 <= second <= 20_000
        tick_until_done(made, NOW + first + second - 1)
        assert len(shop.calls) == 2
        (outcome,) = outcomes(*tick_until_done(made, NOW + first + second))
    assert len({call.id for call in shop.calls}) == 1
    assert len({call.body for call in shop.calls}) == 1
    assert all(verify(SECRET, call.headers, call.body) for call in shop.calls)
    assert (outcome.status, outcome.attempts) == ("delivered", 3)
    assert (made.stats.attempts, made.stats.retries) == (3, 2)


def test_retry_after_is_honoured_for_the_action_and_for_its_endpoint() -> None:
    replies: Iterator[Reply] = itertools.chain([(429, {"Retry-After": "100"})], itertools.repeat(200))
    with receiver(lambda call: next(replies)) as shop:
        campaigns = one(webhook_campaign(shop.url))
        made = delivery(campaigns, per_endpoint=1)
        made.process(actions_batch(campaigns, [change("u1"), change("u2")]), NOW)
        tick_until_done(made, NOW + 99_999)
        assert len(shop.calls) == 1
        found = outcomes(*tick_until_done(made, NOW + 100_000))
    assert {(o.user_id, o.status, o.attempts) for o in found} == {("u1", "delivered", 2), ("u2", "delivered", 1)}


def test_retry_after_holds_over_a_restart_and_over_another_ones_success() -> None:
    log = Log()

    def answer(call: Call) -> Reply:
        if call.user == "u1" and len(shop.calls) < 3:
            return 429, {"retry-after": "100"}
        time.sleep(0.1)  # ends after the one that was turned away
        return 200

    with receiver(answer) as shop:
        campaigns = one(webhook_campaign(shop.url))
        made = delivery(campaigns, log=log)
        log.keep(made.process(actions_batch(campaigns, [change("u1"), change("u2")]), NOW))
        tick_until_done(made, NOW, log)
        log.keep(made.process(actions_batch(campaigns, [change("u3")]), NOW + 1))
        assert sorted(call.user for call in shop.calls) == ["u1", "u2"]
        made = delivery(campaigns, log=log)
        tick_until_done(made, NOW + 99_999, log)
        assert sorted(call.user for call in shop.calls) == ["u1", "u2", "u3"]
        tick_until_done(made, NOW + 100_000, log)
        assert [call.user for call in shop.calls][3:] == ["u1"]


@pytest.mark.parametrize("status", [301, 400, 401, 404, 410, 422])
def test_what_the_receiver_refuses_is_not_sent_again(status: int) -> None:
    with receiver(lambda call: status) as shop:
        campaigns = one(webhook_campaign(shop.url))
        made = delivery(campaigns)
        (outcome,) = outcomes(made.process(actions_batch(campaigns, [change()]), NOW))
        assert made.tick(NOW + DAY) is None
        assert len(shop.calls) == 1
    assert (outcome.status, outcome.attempts, outcome.http_status) == ("failed", 1, status)


def test_attempts_end() -> None:
    with receiver(lambda call: 500) as shop:
        campaigns = one(webhook_campaign(shop.url, max_attempts=3))
        made = delivery(campaigns)
        made.process(actions_batch(campaigns, [change()]), NOW)
        found = [o for hour in range(1, 6) for o in outcomes(*tick_until_done(made, NOW + hour * HOUR))]
        assert len(shop.calls) == 3
    (outcome,) = found
    assert (outcome.status, outcome.attempts, outcome.detail) == ("failed", 3, "given up: HTTP 500")
    assert made.pending == 0


def test_patience_ends_but_not_before_a_first_attempt() -> None:
    with receiver(lambda call: 500) as shop:
        campaigns = one(webhook_campaign(shop.url))
        made = delivery(campaigns, give_up_after="2d")
        (outcome,) = outcomes(made.process(actions_batch(campaigns, [change()]), NOW + 3 * DAY))
        assert len(shop.calls) == 1
    assert (outcome.status, outcome.attempts) == ("failed", 1)


def test_a_dead_endpoint_blocks_nobody_else_and_no_call_for_long() -> None:
    with raw_server(lambda sock: time.sleep(60)) as hole, receiver() as shop:
        campaigns = Campaigns([webhook_campaign(hole, "dead", timeout="30s"), webhook_campaign(shop.url, "alive")])
        made = delivery(campaigns, call_budget="4s")
        batch = actions_batch(campaigns, [change(f"u{number}") for number in range(100)])
        began = time.monotonic()
        found = outcomes(made.process(batch, NOW))
        assert time.monotonic() - began < 3
        assert {o.campaign for o in found} == {"alive"}
        assert len(found) == 100
        assert (made.pending, made.in_flight) == (100, made.settings.per_endpoint)
        began = time.monotonic()
        made.tick(NOW + 1_000)
        assert time.monotonic() - began < 1.5
        later = outcomes(made.process(actions_batch(one(webhook_campaign(shop.url, "alive")), [change("new")]), NOW))
        assert [o.user_id for o in later] == ["new"]


def test_an_endpoint_that_refuses_connections_is_only_probed() -> None:
    campaigns = one(webhook_campaign(f"http://127.0.0.1:{free_port()}/"))
    made = delivery(campaigns)
    made.process(actions_batch(campaigns, [change(f"u{number}") for number in range(200)]), NOW)
    for second in range(60):
        tick_until_done(made, NOW + second * 1_000)
    # Four at once at first, then one every 1, 2, 4, ... 60 s: not 200 a round.
    assert FAILURES_TO_PROBE <= made.stats.attempts <= 16
    assert made.pending == 200


def test_an_endpoint_that_comes_back_gets_everything() -> None:
    down = True
    with receiver(lambda call: 503 if down else 200) as shop:
        campaigns = one(webhook_campaign(shop.url))
        made = delivery(campaigns)
        made.process(actions_batch(campaigns, [change(f"u{number}") for number in range(60)]), NOW)
        down = False
        found = outcomes(*tick_until_done(made, NOW + HOUR))
    assert {o.user_id for o in found if o.status == "delivered"} == {f"u{number}" for number in range(60)}
    assert made.pending == 0


def test_nothing_is_lost_over_a_restart_and_attempts_go_on_counting() -> None:
    log, down = Log(), True
    with receiver(lambda call: 503 if down else 200) as shop:
        campaigns = one(webhook_campaign(shop.url))
        first = delivery(campaigns, log=log)
        log.keep(first.process(actions_batch(campaigns, [change(f"u{number}") for number in range(20)]), NOW))
        tick_until_done(first, NOW + 1, log)
        tried = {call.user for call in shop.calls}
        down = False
        second = delivery(campaigns, log=log)
        assert second.pending == 20
        found = outcomes(*tick_until_done(second, NOW + HOUR, log))
        assert delivery(campaigns, log=log).pending == 0
    assert len(found) == 20
    assert {o.user_id for o in found if o.attempts == 2} == tried
    assert {o.attempts for o in found} <= {1, 2}


def test_an_answer_that_comes_after_the_partition_went_is_unheard_and_the_action_sent_again() -> None:
    log, slow = Log(), True

    def answer(call: Call) -> int:
        time.sleep(0.5 if slow else 0)
        return 200

    with receiver(answer) as shop:
        campaigns = one(webhook_campaign(shop.url))
        first = delivery(campaigns, log=log, call_budget="0ms")
        log.keep(first.process(actions_batch(campaigns, [change()]), NOW))
        assert first.in_flight == 1
        first.drop(0)
        assert outcomes(*tick_until_done(first, NOW)) == []
        slow = False
        second = delivery(campaigns, log=log)
        (outcome,) = outcomes(*tick_until_done(second, NOW))
        assert outcome.status == "delivered"
    assert len(shop.calls) == 2
    assert shop.calls[0].id == shop.calls[1].id


def test_one_users_actions_arrive_in_order_and_others_do_not_wait() -> None:
    failing = True
    with receiver(lambda call: 500 if failing and call.user == "u1" else 200) as shop:
        campaigns = one(webhook_campaign(shop.url))
        made = delivery(campaigns)
        seen = [change("u1", 1), change("u2", 1), change("u1", 2), change("u2", 2), change("u1", 3)]
        found = outcomes(made.process(actions_batch(campaigns, seen), NOW))
        assert [o.user_id for o in found] == ["u2", "u2"]
        failing = False
        tick_until_done(made, NOW + HOUR)
    assert [call.sequence for call in shop.calls if call.user == "u1"] == [1, 1, 2, 3]
    assert [call.sequence for call in shop.calls if call.user == "u2"] == [1, 2]


def test_requests_under_way_are_bounded() -> None:
    def answer(call: Call) -> int:
        time.sleep(0.02)
        return 200

    with receiver(answer) as shop:
        campaigns = Campaigns(
            [
                webhook_campaign(shop.url, "a"),
                webhook_campaign(shop.url + "/b", "b"),
                webhook_campaign(shop.url + "/c", "c"),
            ]
        )
        made = delivery(campaigns, concurrency=5, per_endpoint=2, call_budget="0ms")
        made.process(actions_batch(campaigns, [change(f"u{number}") for number in range(20)]), NOW)
        assert made.in_flight == 5
        tick_until_done(made, NOW)
        assert len(shop.calls) == 60
        assert 3 <= shop.most_at_once <= 5
    for path in ("/hook", "/hook/b", "/hook/c"):
        assert sum(call.path == path for call in shop.calls) == 20


def test_a_call_waits_no_longer_than_its_budget() -> None:
    def answer(call: Call) -> int:
        time.sleep(0.1)
        return 200

    with receiver(answer) as shop:
        campaigns = one(webhook_campaign(shop.url))
        made = delivery(campaigns, per_endpoint=1, call_budget="300ms")
        began = time.monotonic()
        made.process(actions_batch(campaigns, [change(f"u{number}") for number in range(50)]), NOW)
        assert time.monotonic() - began < 1
        assert 1 <= len(shop.calls) <= 5
        assert made.pending >= 45


def test_an_overdue_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    def drip(sock: Any) -> None:
        sock.recv(100_000)
        while True:
            sock.sendall(b"H")
            time.sleep(0.02)

    monkeypatch.setattr("stream.campaigns.delivery.GRACE_S", 0.0)
    with raw_server(drip) as url:
        campaigns = one(webhook_campaign(url, timeout="150ms"))
        made = delivery(campaigns, call_budget="50ms")
        made.process(actions_batch(campaigns, [change()]), NOW)
        assert made.in_flight == 1
        tick_until_done(made, NOW, seconds=3)
    assert (made.pending, made.stats.retries) == (1, 1)


def test_the_newest_file_counts(caplog: pytest.LogCaptureFixture) -> None:
    log = Log()
    with receiver(lambda call: 500) as old, receiver() as new:
        first = delivery(one(webhook_campaign(old.url)), log=log)
        log.keep(first.process(actions_batch(one(webhook_campaign(old.url)), [change()]), NOW))
        second = delivery(one(webhook_campaign(new.url)), log=log)
        (outcome,) = outcomes(*tick_until_done(second, NOW + HOUR))
        assert (outcome.status, len(new.calls)) == ("delivered", 1)


def test_a_campaign_that_is_switched_off_stops_at_once() -> None:
    with receiver(lambda call: 500) as shop:
        log, campaigns = Log(), one(webhook_campaign(shop.url))
        log.keep(delivery(campaigns, log=log).process(actions_batch(campaigns, [change()]), NOW))
        off = Campaigns([webhook_campaign(shop.url).model_copy(update={"enabled": False})])
        (outcome,) = outcomes(delivery(off, log=log).tick(NOW + HOUR))
        assert len(shop.calls) == 1
    assert (outcome.status, outcome.attempts, outcome.detail) == ("cancelled", 1, "the campaign is switched off")


def test_a_dry_run_sends_nothing_and_needs_no_secrets(tmp_path: Path) -> None:
    with receiver() as shop:
        campaigns = Campaigns([webhook_campaign(shop.url, "web", secret_env="NOT_SET"), campaign("file")])
        made = delivery(campaigns, tmp_path, dry_run=True)
        found = outcomes(made.process(actions_batch(campaigns, [change()]), NOW))
        assert shop.calls == []
    assert {(o.campaign, o.status, o.detail) for o in found} == {
        ("web", "cancelled", "dry run"),
        ("file", "delivered", ""),
    }
    assert (tmp_path / "actions.jsonl").read_bytes().count(b"\n") == 1


def test_a_campaign_that_the_file_does_not_know_is_waited_for(tmp_path: Path) -> None:
    """A worker with a newer file may run beside a delivery with an older one."""
    log, known = Log(), one(campaign("new"))
    old = delivery(Campaigns(), tmp_path, log)
    assert outcomes(log.keep(old.process(actions_batch(known, [change("u1"), change("u2", at=NOW + DAY)]), NOW))) == []
    assert outcomes(*[log.keep(old.tick(NOW + n * MINUTE)) for n in range(5)]) == []
    found = outcomes(delivery(known, tmp_path, log).tick(NOW + 5 * MINUTE))
    assert [o.status for o in found] == ["delivered", "delivered"]
    (gone,) = outcomes(delivery(Campaigns(), tmp_path, log).tick(NOW + 3 * DAY))
    assert (gone.user_id, gone.status, gone.attempts, gone.detail) == (
        "u1",
        "failed",
        0,
        "given up: no such campaign in the file",
    )


def test_every_secret_that_is_missing_is_named_at_the_start() -> None:
    campaigns = Campaigns(
        [
            webhook_campaign("https://example.com", "a", secret_env="NOT_THERE"),
            webhook_campaign("https://example.com", "b", headers={"X-Key": "${NOR_THIS}"}),
            webhook_campaign("https://example.com", "off", secret_env="NOR_THAT").model_copy(update={"enabled": False}),
        ],
        "c.yml",
    )
    with pytest.raises(CampaignError) as error:
        Delivery(campaigns, environ=ENVIRON)
    assert error.value.problems == (
        "c.yml: campaign 'a': action.webhook.secret_env: environment variable NOT_THERE is not set",
        "c.yml: campaign 'b': action.webhook.headers.X-Key: environment variable NOR_THIS is not set",
    )


def test_unreadable_actions_are_counted_and_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    campaigns = one(campaign())
    good = actions_batch(campaigns, [change()])[0][0].value
    assert good is not None
    not_json = good.replace(b'"parameters":{}', b'"parameters":{"x":NaN}')
    assert not_json != good
    made = delivery(campaigns, tmp_path)
    bad = [None, b"", b"{}", b'{"user_id":"jane@example.com"}', b"\xff", not_json]
    output = made.process({0: records([*bad, good, good], "campaign-actions")}, NOW)
    assert len(outcomes(output)) == 1
    assert (made.stats.unreadable, made.stats.duplicates) == (6, 1)
    assert "campaign-actions/0@0" in caplog.text
    assert "jane" not in caplog.text


def test_no_log_line_holds_personal_data(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "stream")
    replies = itertools.chain([500] * 5, [404], itertools.repeat(200))
    with receiver(lambda call: next(replies)) as shop:
        campaigns = Campaigns(
            [webhook_campaign(shop.url + "?token=hush"), campaign("file", action={"log": {"path": "."}})]
        )
        made = delivery(campaigns, tmp_path)
        made.process(actions_batch(campaigns, [change(f"jane{number}") for number in range(20)]), NOW)
        for hour in range(1, 5):
            tick_until_done(made, NOW + hour * HOUR)
    assert "probed" in caplog.text
    assert "failed: HTTP 404" in caplog.text
    assert "cannot write" in caplog.text
    mine = [record.getMessage() for record in caplog.records if record.name.startswith("stream.")]
    assert not [line for line in mine if "jane" in line or "hush" in line or SECRET in line]


def test_the_metrics_are_told(tmp_path: Path) -> None:
    metrics = Metrics()
    replies: Iterator[Reply] = itertools.chain([500, 404], itertools.repeat(200))
    with receiver(lambda call: next(replies)) as shop:
        campaigns = Campaigns([webhook_campaign(shop.url, "web"), campaign("file", cap={"per": "1d"})])
        worker = CampaignWorker(campaigns, recorder=metrics)
        worker.restore(0, ())
        worker.process(changes_batch([change("u1", 1), change("u1", 2), change("u2")]), NOW)
        worker.process({0: records([b"?"], "segment-changes")}, NOW)
        settings = DeliverySettings(per_endpoint=1)
        made = Delivery(campaigns, settings, directory=tmp_path, environ=ENVIRON, recorder=metrics)
        _open.append(made)
        made.restore(0, ())
        made.process({0: [*actions_batch(campaigns, [change("u1"), change("u2"), change("u3")])[0]]}, NOW)
        made.process({0: records([b"?", b"?"], "campaign-actions")}, NOW)
    shown = {
        (sample.name, *sample.labels.values()): sample.value
        for family in metrics.collect()
        for sample in family.samples
    }
    name = "resegment_"
    assert shown[name + "campaign_actions_total", "web"] == 3
    assert shown[name + "campaign_actions_total", "file"] == 2
    assert shown[name + "campaign_held_total", "file", "cap"] == 1
    assert shown[name + "unreadable_records_total", "campaigns"] == 1
    assert shown[name + "unreadable_records_total", "delivery"] == 2
    assert shown[name + "deliveries_total", "file", "delivered"] == 3
    assert shown[name + "deliveries_total", "web", "failed"] == 1
    assert shown[name + "deliveries_total", "web", "delivered"] == 1
    assert shown[name + "deliveries_pending", "delivery"] == 1
    assert [shown[name + "webhook_attempts_total", "web", result] for result in ("2xx", "4xx", "5xx")] == [1, 1, 1]


# Log files


def test_log_lines_are_whole_in_order_and_hold_the_action(tmp_path: Path) -> None:
    campaigns = one(campaign(parameters={"template": "t"}))
    seen = [change(f"u{number % 3}", number + 1) for number in range(30)]
    batch = actions_batch(campaigns, seen)
    made = delivery(campaigns, tmp_path / "not" / "yet")
    output = made.process(batch, NOW)
    lines = [orjson.loads(line) for line in (tmp_path / "not" / "yet" / "actions.jsonl").read_bytes().splitlines()]
    assert [line["data"] for line in lines] == [orjson.loads(record.value or b"") for record in batch[0]]
    assert [(o.user_id, o.status, o.attempts) for o in outcomes(output)] == [(c.user_id, "delivered", 1) for c in seen]
    assert made.pending == 0


def test_a_full_disk_keeps_actions_pending_until_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    campaigns, log = one(campaign()), Log()
    made = delivery(campaigns, tmp_path, log)
    append = logfile.append
    monkeypatch.setattr(logfile, "append", full)
    first = log.keep(made.process(actions_batch(campaigns, [change("u1", 1), change("u1", 2), change("u2")]), NOW))
    assert outcomes(first) == []
    for second in range(100):
        # Nothing changes, so nothing is written to the changelog of a machine that has no room.
        assert made.tick(NOW + second * 1_000) is None
    monkeypatch.setattr(logfile, "append", append)
    restarted = delivery(campaigns, tmp_path, log)
    for again in (made, restarted):
        found = outcomes(again.tick(NOW + 10 * MINUTE))
        assert [(o.user_id, o.status) for o in found] == [("u1", "delivered"), ("u1", "delivered"), ("u2", "delivered")]


def test_a_backlog_of_lines_is_worked_off_in_portions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.campaigns.delivery.LINES_A_CALL", 7)
    campaigns = one(campaign())
    made = delivery(campaigns, tmp_path)
    outputs: list[Output | None] = [
        made.process(actions_batch(campaigns, [change("u1", number + 1) for number in range(20)]), NOW)
    ]
    assert len(outcomes(*outputs)) == 7
    while made.pending:
        outputs.append(made.tick(NOW))
    assert len(outcomes(*outputs)) == 20
    lines = (tmp_path / "actions.jsonl").read_bytes().splitlines()
    assert [orjson.loads(line)["data"]["sequence"] for line in lines] == list(range(1, 21))


def test_a_replay_gives_the_same_outcomes_bit_for_bit(tmp_path: Path) -> None:
    campaigns = Campaigns([campaign("a"), campaign("b", when={"exit": "A"})])
    seen = [change(f"u{n % 7}", n + 1, "A" if n % 2 else None, "B", at=NOW + n * 1_000) for n in range(200)]
    batch = actions_batch(campaigns, seen)[0]

    def run(name: str) -> list[object]:
        made = delivery(campaigns, tmp_path / name)
        found: list[object] = []
        for begin in range(0, len(batch), 30):
            output = made.process({0: batch[begin : begin + 30]}, None)
            found.append((output.records, [(d.meta, d.payload, d.keeps) for d in output.state.values()]))
            assert made.tick(None) is None
        return found

    first = run("one")
    assert first == run("two")
    assert (tmp_path / "one" / "actions.jsonl").read_bytes() == (tmp_path / "two" / "actions.jsonl").read_bytes()


def test_a_replay_mails_nobody(tmp_path: Path) -> None:
    with receiver() as shop:
        campaigns = Campaigns([webhook_campaign(shop.url, "web"), campaign("file")])
        made = delivery(campaigns, tmp_path)
        found = outcomes(made.process(actions_batch(campaigns, [change()]), None))
        assert shop.calls == []
    assert [(o.campaign, o.status, o.attempts) for o in found] == [("web", "cancelled", 0), ("file", "delivered", 1)]


def test_without_a_wall_clock_back_off_goes_by_the_records() -> None:
    log, replies = Log(), itertools.chain([500], itertools.repeat(200))
    with receiver(lambda call: next(replies)) as shop:
        campaigns = one(webhook_campaign(shop.url))
        made = delivery(campaigns, log=log, in_replays=True)
        log.keep(made.process(actions_batch(campaigns, [change("u1")]), None))
        made.tick(None)
        assert len(shop.calls) == 1
        made = delivery(campaigns, log=log, in_replays=True)  # the clock is part of the state
        made.tick(None)
        assert len(shop.calls) == 1
        batch = actions_batch(campaigns, [change("u2", at=NOW + HOUR)])
        found = outcomes(made.process(batch, None))
    assert {(o.user_id, o.attempts, o.finished_at) for o in found} == {("u1", 2, NOW + HOUR), ("u2", 1, NOW + HOUR)}


# Times


@given(st.text(max_size=10), st.integers(1, 200), st.integers(1, 100_000), st.floats(1, 10), st.integers(1, 1_000))
def test_back_off_grows_is_bounded_and_follows_from_the_id(
    action: str, attempts: int, first: int, factor: float, times: int
) -> None:
    settings = DeliverySettings(retry_first=first, retry_factor=factor, retry_longest=first * times)
    wait = backoff_ms(settings, action, attempts)
    full = min(first * times, first * factor ** min(attempts - 1, 64))
    assert full / 2 - 1 <= wait <= full + 1
    assert wait == backoff_ms(settings, action, attempts)


def test_jitter_spreads() -> None:
    waits = {backoff_ms(DeliverySettings(), f"act_{number}", 1) for number in range(1_000)}
    assert len(waits) > 700
    assert min(waits) < 2_600
    assert max(waits) > 4_900


def test_an_endpoint_closed_by_a_clock_that_was_set_back_is_open() -> None:
    ahead, now = 10 * LONGEST_PAUSE_MS, 5 * LONGEST_PAUSE_MS
    endpoint = Endpoint()
    for _ in range(FAILURES_TO_PROBE):
        endpoint.failed(ahead)
    assert not endpoint.admits(ahead, 4)
    assert endpoint.admits(now, 4)
    endpoint.failed(now, 100_000)
    assert not endpoint.admits(now + 99_999, 4)
    assert endpoint.admits(now + 100_000, 4)
    assert endpoint.admits(ahead, 4)  # what the wrong clock said is forgotten


def test_a_failing_endpoint_gets_one_request_at_a_time_until_it_answers() -> None:
    endpoint = Endpoint(busy=3)
    assert endpoint.admits(NOW, 4)
    assert not endpoint.admits(NOW, 3)
    for number in range(10):
        endpoint.failed(NOW)
        pause = endpoint.closed_until - NOW
        assert pause == (0 if number < 2 else min(60_000, 1_000 << number - 2))
    assert not endpoint.admits(NOW + 60_000, 4)
    endpoint.busy = 0
    assert endpoint.admits(NOW + 60_000, 4)
    endpoint.busy = 3
    endpoint.works()
    assert endpoint.admits(NOW + 60_000, 4)


@pytest.mark.parametrize("wrong", [{"call_budget": "5s"}, {"concurrency": 0}, {"retry_first": "1d"}, {"retries": 1}])
def test_settings_that_cannot_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DeliverySettings(**wrong)


def test_partitions_have_outboxes_of_their_own(tmp_path: Path) -> None:
    campaigns = one(campaign())
    made = delivery(campaigns, tmp_path)
    made.restore(2, ())
    batch = {**actions_batch(campaigns, [change("u1")]), **actions_batch(campaigns, [change("u2")], 2)}
    output = made.process(batch, NOW)
    assert sorted(output.state) == [0, 2]
    assert [(o.user_id, r.partition) for o, r in zip(outcomes(output), output.records, strict=True)] == [
        ("u1", 0),
        ("u2", 2),
    ]
    empty: dict[int, list[FakeRecord]] = {2: records([b"?"], "campaign-actions", 2)}
    assert sorted(made.process(empty, NOW).state) == [2]  # offsets are never committed without state
