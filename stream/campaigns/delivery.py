"""Delivery: campaign actions in, webhook calls and log lines out, and an outcome for each.

Invariant: an action is pending in the changelog from the commit that read it to the commit that holds its outcome.
So nothing is lost over a crash or a restart; what was sent but not yet committed is sent again, under the same id:
at least once to the receiver, exactly once on `campaign-outcomes`.

Requests run on a few threads and may outlive the call that began them; no call of the stage waits for longer than
`call_budget`. A dead endpoint has slots of its own and is probed by one request at a time: it holds up nobody else.

What is deterministic: the outcomes of log files. How a receiver answers, and so the outcome of a webhook and its
place among the others, is not. Without a wall clock (replays) webhooks are cancelled, unless the settings say
otherwise: then their back-off goes by the largest record time seen.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import orjson
from pydantic import ValidationError

from schemas.campaign import CampaignAction, CampaignOutcome
from schemas.topics import CAMPAIGN_ACTIONS, CAMPAIGN_OUTCOMES, DELIVERY_STATE
from stream.campaigns import logfile
from stream.campaigns.backoff import LONGEST_PAUSE_MS, Endpoint, backoff_ms
from stream.campaigns.file import CampaignError
from stream.campaigns.outbox import Outbox, Pending, Route
from stream.campaigns.pool import CallPool
from stream.campaigns.rules import Campaigns, WebhookSink
from stream.campaigns.settings import DeliverySettings
from stream.campaigns.webhook import Answer, Call, Webhook, body_of, client
from stream.runtime.metrics import Recorder
from stream.runtime.stage import Output, Stage
from stream.transport.base import OutRecord, Record

log = logging.getLogger(__name__)

LINES_A_CALL = 5_000
"""Log lines written to one file in one call, so that a backlog does not hold up the loop."""
PATIENCE_S = 0.25
"""A call stops waiting once nobody has answered for so long: what is under way is asked for at the next tick."""
GRACE_S = 1.0
"""Beyond twice its time-out a request is cut off."""

Status = Literal["delivered", "failed", "cancelled"]


@dataclass(slots=True)
class DeliveryStats:
    """Counted since the start."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By campaign and status."""
    attempts: int = 0
    retries: int = 0
    unreadable: int = 0
    duplicates: int = 0


@dataclass(slots=True, eq=False)
class _Flight:
    outbox: Outbox
    pending: Pending
    call: Call
    overdue: float
    """On the monotonic clock."""


class Delivery(Stage):
    """Delivers campaign actions.

    Parameters: the campaigns (the file counts as it is at delivery: a new URL or secret holds for what is pending
    too); settings; `directory`, below which relative log paths stand; `environ`, where secrets are; where to
    tell the metrics.
    Raises CampaignError where a secret is missing or of no use.
    """

    name = "delivery"
    inputs = (CAMPAIGN_ACTIONS,)
    changelog = DELIVERY_STATE

    def __init__(
        self,
        campaigns: Campaigns,
        settings: DeliverySettings | None = None,
        *,
        directory: Path = Path(),
        environ: Mapping[str, str] = os.environ,
        recorder: Recorder | None = None,
    ) -> None:
        self.settings = settings or DeliverySettings()
        self.stats = DeliveryStats()
        self._recorder = recorder
        self._directory = directory
        self._campaigns = campaigns
        self._webhooks = {} if self.settings.dry_run else _webhooks(campaigns, environ, self.settings)
        self._outboxes: dict[int, Outbox] = {}
        self._endpoints: dict[Route, Endpoint] = {}
        self._flights: list[_Flight] = []
        self._pool: CallPool[_Flight, Answer] = CallPool(self.settings.concurrency, "webhook")
        self._clock = 0
        self._replays = False
        self._horizon = max(self.settings.retry_longest, self.settings.give_up_after, LONGEST_PAUSE_MS)

    @property
    def pending(self) -> int:
        """Actions that are not delivered yet, requests under way included."""
        return sum(map(len, self._outboxes.values()))

    @property
    def in_flight(self) -> int:
        """Requests under way."""
        return len(self._flights)

    def restoring(self, partition: int, deltas: Iterable[tuple[dict[str, Any], bytes]]) -> Generator[None, None, None]:
        """What was pending is pending again."""
        outbox = Outbox(partition, self._route, self._horizon)
        meta = yield from outbox.restoring(deltas)
        self._clock = max(self._clock, meta.get("clock", 0))
        self._outboxes[partition] = outbox

    def drop(self, partition: int) -> None:
        """Forget the partition. Requests under way end unheard; who owns it next sends those again."""
        self._outboxes.pop(partition, None)

    def close(self) -> None:
        """Let the threads end."""
        self._pool.close()

    def process(self, batch: Mapping[int, Sequence[Record]], now_ms: int | None) -> Output:
        """Take actions in and deliver what can be delivered within the budget."""
        unreadable: list[str] = []
        for partition in sorted(batch):
            outbox = self._outboxes[partition]
            for record in batch[partition]:
                self._clock = max(self._clock, record.timestamp)
                action, complaint = _parse(record)
                if action is None:
                    unreadable.append(f"{record.topic}/{record.partition}@{record.offset}: {complaint}")
                elif not outbox.add(action, str(record.value, "utf-8")):  # type: ignore[arg-type]
                    self.stats.duplicates += 1
        if unreadable:
            self.stats.unreadable += len(unreadable)
            log.warning("skipped %d unreadable campaign actions, the first at %s", len(unreadable), unreadable[0])
            if self._recorder is not None:
                self._recorder.unreadable(self.name, len(unreadable))
        output = self._work(now_ms)
        for partition in sorted(batch):
            if partition not in output.state:
                output.state[partition] = self._outboxes[partition].delta({"clock": self._clock})
        return output

    def tick(self, now_ms: int | None) -> Output | None:
        """Deliver what has come due, and collect answers."""
        if not self._flights and not any(map(len, self._outboxes.values())):
            return None
        output = self._work(now_ms)
        return output if output.records or output.state else None

    def _work(self, now_ms: int | None) -> Output:
        now = self._clock if now_ms is None else now_ms
        self._replays = now_ms is None
        output = Output()
        deadline = time.monotonic() + self.settings.call_budget / 1000
        wait = 0.0
        while True:
            answers = self._pool.finished(wait)
            for flight, answer in answers:
                self._settle(flight, answer, now, output)
            if not answers and wait:
                break
            self._dispatch(now, output)
            wait = min(PATIENCE_S, deadline - time.monotonic())
            if not self._flights or wait <= 0:
                break
        self._cut_off()
        if self._recorder is not None:
            self._recorder.pending(self.name, self.pending)
        for partition, outbox in sorted(self._outboxes.items()):
            if outbox.changed:
                output.state[partition] = outbox.delta({"clock": self._clock})
        return output

    def _dispatch(self, now: int, output: Output) -> None:
        """Begin what may begin now."""
        for _, outbox in sorted(self._outboxes.items()):
            for route in outbox.routes:
                match route.kind:
                    case "webhook" if self._replays and not self.settings.in_replays:
                        self._cancel(outbox, route, "webhooks are not sent in a replay", now, output)
                    case "webhook":
                        self._send(outbox, route, now)
                    case "log":
                        self._write(outbox, route, now, output)
                    case "cancel":
                        detail = "dry run" if self.settings.dry_run else "the campaign is switched off"
                        self._cancel(outbox, route, detail, now, output)
                    case _:
                        self._hold(outbox, route, now, output)

    def _send(self, outbox: Outbox, route: Route, now: int) -> None:
        endpoint = self._endpoints.setdefault(route, Endpoint())
        while self._pool.free and endpoint.admits(now, self.settings.per_endpoint):
            pending = outbox.take(route, now)
            if pending is None:
                return
            webhook, call = self._webhooks[pending.campaign], Call()
            body = body_of(pending.text, pending.trigger, pending.occurred_at)
            overdue = time.monotonic() + 2 * webhook.sink.timeout / 1000 + GRACE_S
            flight = _Flight(outbox, pending, call, overdue)
            endpoint.busy += 1
            self.stats.attempts += 1
            self._flights.append(flight)
            self._pool.submit(flight, lambda w=webhook, i=pending.id, b=body, c=call: w.send(i, b, c))  # type: ignore[misc]

    def _settle(self, flight: _Flight, answer: Answer, now: int, output: Output) -> None:
        pending = flight.pending
        self._flights.remove(flight)
        endpoint = self._endpoints[pending.route]
        endpoint.busy -= 1
        if self._recorder is not None:
            self._recorder.attempt(pending.campaign, answer.http_status or answer.failure, answer.seconds)
        if answer.verdict == "retry":
            probing = endpoint.probing
            endpoint.failed(now, answer.retry_after_ms or 0)
            if endpoint.probing and not probing:
                log.warning("webhook of campaign %r fails (%s): now probed only", pending.campaign, answer.detail)
        else:
            if endpoint.probing:
                log.info("webhook of campaign %r answers again", pending.campaign)
            endpoint.works()
        if self._outboxes.get(flight.outbox.partition) is not flight.outbox:
            return  # dropped meanwhile: the next owner sends it again
        attempts = pending.attempts + 1
        if answer.verdict == "retry":
            webhook = self._webhooks[pending.campaign]
            if attempts < webhook.sink.max_attempts and now - pending.decided_at < self.settings.give_up_after:
                self.stats.retries += 1
                wait = max(backoff_ms(self.settings, pending.id, attempts), answer.retry_after_ms or 0)
                flight.outbox.retry(pending, now + wait)
                return
            answer = Answer("refused", answer.http_status, f"given up: {answer.detail}")
        if answer.verdict == "refused":
            log.warning("action %s of campaign %r failed: %s", pending.id, pending.campaign, answer.detail)
        status: Status = "delivered" if answer.verdict == "delivered" else "failed"
        self._end(flight.outbox, [pending], status, 1, now, output, answer)

    def _write(self, outbox: Outbox, route: Route, now: int, output: Output) -> None:
        endpoint = self._endpoints.setdefault(route, Endpoint())
        if not endpoint.admits(now, 1):
            return
        run = outbox.take_run(route, now, LINES_A_CALL)
        if not run:
            return
        lines = [body_of(p.text, p.trigger, p.occurred_at) for p in run]
        try:
            logfile.append(self._directory / route.target, lines, fsync=self.settings.fsync == "always")
        except OSError as error:
            if not endpoint.failures:
                log.error("cannot write %s: %s; its actions stay pending", route.target, error.strerror or error)
            endpoint.failed(now, self.settings.retry_first)
            outbox.untouched(*run)
            return
        if endpoint.failures:
            log.info("%s can be written again", route.target)
        endpoint.works()
        self._end(outbox, run, "delivered", 1, now, output, Answer("delivered"))

    def _cancel(self, outbox: Outbox, route: Route, detail: str, now: int, output: Output) -> None:
        run = outbox.take_run(route, now, LINES_A_CALL)
        self._end(outbox, run, "cancelled", 0, now, output, Answer("refused", detail=detail))

    def _hold(self, outbox: Outbox, route: Route, now: int, output: Output) -> None:
        """The file does not know the campaign, yet or any more: wait, in case it is this file that is the older one."""
        while (pending := outbox.take(route, now)) is not None:
            if now - pending.decided_at < self.settings.give_up_after:
                outbox.untouched(pending)
                return  # the others were decided later
            answer = Answer("refused", detail="given up: no such campaign in the file")
            self._end(outbox, [pending], "failed", 0, now, output, answer)

    def _end(
        self,
        outbox: Outbox,
        ended: Sequence[Pending],
        status: Status,
        made: int,
        now: int,
        output: Output,
        answer: Answer,
    ) -> None:
        outbox.done(*ended)
        counts = Counter(pending.campaign for pending in ended)
        for campaign, count in counts.items():
            self.stats.outcomes[campaign, status] += count
            if self._recorder is not None:
                self._recorder.deliveries(campaign, status, count)
        for pending in ended:
            outcome = CampaignOutcome(
                action_id=pending.id,
                campaign=pending.campaign,
                user_id=pending.user_id,
                status=status,
                attempts=pending.attempts + made,
                http_status=answer.http_status,
                detail=answer.detail,
                finished_at=now,
            )
            value = outcome.model_dump_json().encode()
            output.records.append(
                OutRecord(CAMPAIGN_OUTCOMES, pending.user_id.encode(), value, outbox.partition, timestamp=now)
            )

    def _cut_off(self) -> None:
        clock = time.monotonic()
        for flight in self._flights:
            if clock > flight.overdue:
                flight.call.cancel()

    def _route(self, name: str) -> Route:
        campaign = self._campaigns.get(name)
        if campaign is None:
            return Route("unknown", name)
        if not campaign.enabled or (self.settings.dry_run and campaign.action.webhook is not None):
            return Route("cancel", name)
        return Route(campaign.action.name, campaign.action.sink.target)


def _webhooks(campaigns: Campaigns, environ: Mapping[str, str], settings: DeliverySettings) -> dict[str, Webhook]:
    connections = client(settings.per_endpoint)
    webhooks: dict[str, Webhook] = {}
    problems: list[str] = []
    for campaign in campaigns:
        sink = campaign.action.webhook
        if not campaign.enabled or not isinstance(sink, WebhookSink):
            continue
        try:
            webhooks[campaign.name] = webhook = Webhook(sink, environ, connections)
        except ValueError as error:
            problems.append(f"{campaigns.source}: campaign '{campaign.name}': action.webhook.{error}")
            continue
        if not webhook.signed:
            log.warning("campaign %r: no secret_env, its webhook is not signed", campaign.name)
    if problems:
        raise CampaignError(problems)
    return webhooks


def _parse(record: Record) -> tuple[CampaignAction | None, str]:
    """The action, or what is wrong with it, without a word of its content: that may be personal."""
    if record.value is None:
        return None, "no value"
    try:
        orjson.loads(record.value)  # strictly JSON: what is taken in here must be readable at a restore, and sendable
        return CampaignAction.model_validate_json(record.value), ""
    except orjson.JSONDecodeError:
        return None, "value: not JSON"
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        return None, f"{'.'.join(map(str, first['loc'])) or 'value'}: {first['type']}"
