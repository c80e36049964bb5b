"""Puts stages and runners together from the configuration: the one place that knows all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from stream.config import Config
from stream.runtime.health import Health
from stream.runtime.metrics import Metrics
from stream.runtime.observer import StageObserver
from stream.runtime.runner import Runner
from stream.runtime.stage import Stage
from stream.segments.observations import Sampler
from stream.segments.processor import Processor
from stream.transport.base import Transport

if TYPE_CHECKING:
    from stream.campaigns.rules import Campaigns

Role = Literal["processor", "modeller", "campaigns"]
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(slots=True)
class Deployment:
    """Runners of the chosen roles on one transport, with what operations sees of them, in order down the stream."""

    config: Config
    transport: Transport
    partitions: int
    roles: Sequence[Role] = ROLES
    wall_clock: bool = True
    campaigns: Campaigns | None = None
    """By default those of the configured file."""
    metrics: Metrics = field(default_factory=Metrics)
    health: Health = field(default_factory=Health)
    stages: dict[str, Stage] = field(init=False, default_factory=dict)
    runners: list[Runner] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        for role in ROLES:
            if role in self.roles:
                self._add(role)

    @property
    def processor(self) -> Processor:
        """The processor stage, where its role is among ours."""
        stage = self.stages[Processor.name]
        assert isinstance(stage, Processor)
        return stage

    def _add(self, role: Role) -> None:
        config = self.config
        match role:
            case "processor":
                observer = self._observer()
                processor = Processor(
                    config.layout(),
                    inputs=config.topics.events,
                    settings=config.processor,
                    ingest=config.ingest,
                    decision=config.decision,
                    quarantine=config.quarantine,
                    sampler=Sampler(config.sampler, self.partitions),
                    rules=config.rules,
                    recorder=observer.uncommitted,
                )
                most = config.processor.batch_records if self.wall_clock else config.runner.batch_records
                self._run(processor, observer, batch_records=most)
            case "modeller":
                from stream.segments.modeller import Modeller  # River costs seconds, and only this role needs it

                observer = self._observer()
                learned = [feature for feature in config.features if feature.learn]
                modeller = Modeller(learned, config.modeller, recorder=observer.uncommitted)
                self._run(modeller, observer, share=config.modeller.share)
            case "campaigns":
                from stream.campaigns.delivery import Delivery
                from stream.campaigns.file import load_campaigns
                from stream.campaigns.rules import Campaigns
                from stream.campaigns.worker import CampaignWorker

                file = config.campaigns.file
                campaigns = self.campaigns or (load_campaigns(file) if file else Campaigns([], "no file"))
                observer = self._observer()
                self._run(CampaignWorker(campaigns, recorder=observer.uncommitted), observer)
                observer = self._observer()
                place, settings = config.transport, config.campaigns.delivery
                if not self.wall_clock and not settings.in_replays:
                    settings = settings.model_copy(update={"dry_run": True})
                directory = place.data_dir if place.kind == "embedded" else Path()
                delivery = Delivery(campaigns, settings, directory=directory, recorder=observer.uncommitted)
                self._run(delivery, observer)

    def _observer(self) -> StageObserver:
        return StageObserver(self.metrics, self.health, wall_clock=self.wall_clock)

    def _run(
        self, stage: Stage, observer: StageObserver, *, batch_records: int | None = None, share: float = 1.0
    ) -> None:
        self.health.register(stage.name)
        self.metrics.expect(stage.name)
        self.stages[stage.name] = stage
        self.runners.append(
            Runner(
                stage,
                self.transport,
                group=f"{self.config.runner.group}-{stage.name}",
                batch_records=batch_records or self.config.runner.batch_records,
                wall_clock=self.wall_clock,
                observer=observer,
                share=share,
            )
        )
