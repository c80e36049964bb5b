"""Records, changes and a receiver of webhooks for the tests of campaigns."""

from __future__ import annotations

import base64
import hashlib
import hmac
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson

from schemas.campaign import CampaignOutcome
from schemas.change import SegmentChange, SegmentRef
from schemas.types import Cause
from stream.campaigns.rules import Campaign, Campaigns
from stream.campaigns.worker import CampaignWorker
from stream.runtime.stage import Output, Stage, StateDelta
from stream.transport.base import Headers

NOW = 1_700_000_000_000
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ENVIRON = {"SHOP_SECRET": SECRET, "SHOP_TOKEN": "t0ken"}


@dataclass(frozen=True)
class FakeRecord:
    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


def ref(name: str | None, id: str | None = None) -> SegmentRef | None:
    return None if name is None else SegmentRef(id=id or f"id-{name}", name=name)


def change(
    user: str = "u1",
    sequence: int = 1,
    left: str | None = None,
    entered: str | None = "Newcomers",
    cause: Cause = "behaviour",
    confidence: float = 1.0,
    at: int = NOW,
) -> SegmentChange:
    return SegmentChange(
        id=f"{user}:{sequence}",
        user_id=user,
        sequence=sequence,
        from_=ref(left),
        to=ref(entered),
        cause=cause,
        occurred_at=at,
        detected_at=at,
        model_version=1,
        confidence=confidence,
    )


def campaign(name: str = "welcome", **fields: Any) -> Campaign:
    given = {"when": {"enter": "*"}, "action": {"log": {"path": "actions.jsonl"}}, "cap": "none", **fields}
    return Campaign.model_validate({"name": name, **given})


def webhook_campaign(url: str, name: str = "welcome", **sink: Any) -> Campaign:
    return campaign(name, action={"webhook": {"url": url, "secret_env": "SHOP_SECRET", **sink}})


def records(values: Sequence[bytes | None], topic: str, partition: int = 0, at: int = NOW) -> list[FakeRecord]:
    return [FakeRecord(topic, partition, offset, at, None, value) for offset, value in enumerate(values)]


def changes_batch(changes: Sequence[SegmentChange], partition: int = 0) -> dict[int, list[FakeRecord]]:
    values = [c.model_dump_json().encode() for c in changes]
    found = records(values, "segment-changes", partition)
    return {
        partition: [FakeRecord(**{**vars(r), "timestamp": c.detected_at}) for r, c in zip(found, changes, strict=True)]
    }


def actions_batch(
    campaigns: Campaigns, changes: Sequence[SegmentChange], partition: int = 0
) -> dict[int, list[FakeRecord]]:
    """What the worker would put on campaign-actions for these changes, as records."""
    worker = CampaignWorker(campaigns)
    worker.restore(partition, ())
    out = worker.process(changes_batch(changes, partition), None).records
    return {
        partition: [
            FakeRecord(r.topic, partition, offset, r.timestamp or 0, r.key, r.value) for offset, r in enumerate(out)
        ]
    }


def outcomes(*outputs: Output | None) -> list[CampaignOutcome]:
    return [CampaignOutcome.model_validate_json(r.value or b"") for o in outputs if o is not None for r in o.records]


class Log:
    """What a runner does with the state of a stage: keeps every delta, and gives them back."""

    def __init__(self) -> None:
        self.deltas: dict[int, list[StateDelta]] = {}

    def keep(self, output: Output | None) -> Output | None:
        if output is not None:
            for partition, delta in output.state.items():
                self.deltas.setdefault(partition, []).append(delta)
        return output

    def restore(self, stage: Stage, partition: int = 0) -> None:
        stage.restore(partition, [(delta.meta, delta.payload) for delta in self.deltas.get(partition, [])])


@dataclass
class Call:
    path: str
    headers: dict[str, str]
    body: bytes
    at: float

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def user(self) -> str:
        return str(orjson.loads(self.body)["data"]["user_id"])

    @property
    def sequence(self) -> int:
        return int(orjson.loads(self.body)["data"]["sequence"])


Reply = int | tuple[int, dict[str, str]]


@dataclass
class Receiver:
    """A web server on loopback that notes what it gets and answers as `answer` says."""

    answer: Callable[[Call], Reply] = lambda call: 200
    calls: list[Call] = field(default_factory=list)
    url: str = ""
    at_once: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def receiver(answer: Callable[[Call], Reply] = lambda call: 200) -> Iterator[Receiver]:
    state = Receiver(answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            with state.lock:
                state.at_once += 1
                state.most_at_once = max(state.most_at_once, state.at_once)
            body = self.rfile.read(int(self.headers["content-length"]))
            call = Call(self.path, {k.lower(): v for k, v in self.headers.items()}, body, time.monotonic())
            with state.lock:
                state.calls.append(call)
            reply = state.answer(call)
            with state.lock:
                state.at_once -= 1
            status, headers = (reply, {}) if isinstance(reply, int) else reply
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # a sender that hung up is part of the tests

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}/hook"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()


def verify(secret: str, headers: dict[str, str], body: bytes) -> bool:
    """A receiver's own check, as docs/campaigns.md gives it."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = headers["webhook-id"].encode() + b"." + headers["webhook-timestamp"].encode() + b"." + body
    expected = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    fresh = abs(time.time() - int(headers["webhook-timestamp"])) < 300
    return fresh and any(hmac.compare_digest(expected, given) for given in headers["webhook-signature"].split(" "))
