"""Worker and delivery on the real runner and the embedded transport, killed and restarted on the way."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

from schemas.campaign import CampaignAction, CampaignOutcome
from schemas.topics import CAMPAIGN_ACTIONS, CAMPAIGN_OUTCOMES, SEGMENT_CHANGES, TOPICS
from stream.campaigns.delivery import Delivery
from stream.campaigns.rules import Campaigns
from stream.campaigns.settings import DeliverySettings
from stream.campaigns.worker import CampaignWorker, action_id
from stream.runtime.runner import Runner
from stream.transport.base import FencedError, OutRecord, TopicPartition
from stream.transport.embedded import EmbeddedTransport
from tests.campaigns.support import ENVIRON, Call, campaign, change, receiver, webhook_campaign

PARTITIONS = 3


def everything(transport: EmbeddedTransport, topic: str, model: Any) -> list[Any]:
    return [
        model.model_validate_json(record.value or b"")
        for partition in range(PARTITIONS)
        for record in transport.read(TopicPartition(topic, partition), 0)
    ]


def test_every_action_has_one_outcome_whatever_dies_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transport = EmbeddedTransport(tmp_path / "data")
    transport.create_topics(TOPICS, PARTITIONS)
    users = [f"u{number}" for number in range(40)]
    changes = [change(user, sequence, f"S{sequence - 1}", f"S{sequence}") for sequence in range(1, 6) for user in users]
    transport.produce(OutRecord(SEGMENT_CHANGES, c.user_id.encode(), c.model_dump_json().encode()) for c in changes)
    answers, commits, lock = itertools.count(), itertools.count(), threading.Lock()

    def answer(call: Call) -> int:
        with lock:
            return 503 if next(answers) % 7 == 3 else 200

    with receiver(answer) as shop:
        campaigns = Campaigns([webhook_campaign(shop.url, "web"), campaign("file", cap={"at_most": 2, "per": "1d"})])
        settings = DeliverySettings(retry_first="5ms", retry_longest="20ms")
        living: list[Delivery] = []

        def runners() -> list[Runner]:
            stage = Delivery(campaigns, settings, directory=tmp_path, environ=ENVIRON)
            living.append(stage)
            return [
                Runner(CampaignWorker(campaigns), transport, group="t-campaigns", batch_records=17),
                Runner(stage, transport, group="t-delivery", batch_records=11),
            ]

        running = runners()
        for step in range(400):
            if step % 13 == 12:  # as after a crash: everything in memory is gone, nothing is said to the transport
                for runner in running:
                    runner.abandon()
                running = runners()
            for runner in running:
                session = runner._session
                if session is not None and next(commits) % 9 == 8:
                    monkeypatch.setattr(session, "commit", fail)
                with contextlib.suppress(FencedError):
                    runner.step(0.0)
            if len(everything(transport, CAMPAIGN_OUTCOMES, CampaignOutcome)) == 200 + 80:
                break
        for runner in running:
            runner.abandon()
        for stage in living:
            stage.close()
    actions = everything(transport, CAMPAIGN_ACTIONS, CampaignAction)
    outcomes = everything(transport, CAMPAIGN_OUTCOMES, CampaignOutcome)
    expected = {action_id("web", c.id) for c in changes} | {action_id("file", c.id) for c in changes if c.sequence <= 2}
    assert Counter(a.id for a in actions) == Counter(expected)
    assert Counter(o.action_id for o in outcomes) == Counter(expected)
    assert {o.status for o in outcomes} == {"delivered"}
    # At least once to the receivers, and the first time in order.
    sent = [orjson.loads(call.body)["data"] for call in shop.calls]
    written = [orjson.loads(line)["data"] for line in (tmp_path / "actions.jsonl").read_bytes().splitlines()]
    assert {data["id"] for data in [*sent, *written]} == expected
    for deliveries in (sent, written):
        for user in users:
            mine = list(dict.fromkeys(data["sequence"] for data in deliveries if data["user_id"] == user))
            assert mine == sorted(mine)
    transport.close()


def fail(*arguments: object) -> dict[TopicPartition, int]:
    raise FencedError("the test says so")
