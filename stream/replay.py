"""A source through all stages in one process, on one directory, its clock the data's own.

Invariant: how often and where a replay is killed makes no difference to what it ends with. One directory holds one
source; its fingerprint is kept beside the topics.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import orjson

from producers.source import Source
from schemas.topics import EVENTS, TOPICS
from stream.assembly import Deployment
from stream.campaigns.rules import Campaigns
from stream.config import Config
from stream.ledger import Ledger, balance
from stream.runtime.pipeline import Feed, Pipeline
from stream.transport.base import TransportError
from stream.transport.embedded import EmbeddedTransport

SOURCE_FILE = "source.json"


class Replay:
    """Opens everything on construction and closes it at the end of the `with` block.

    Parameters: the configuration (its data directory is used), the source, and how many event partitions to make.
    Raises TransportError where the directory holds something else.
    """

    def __init__(
        self, config: Config, source: Source, *, partitions: int = 1, campaigns: Campaigns | None = None
    ) -> None:
        self._started = time.perf_counter()
        directory = config.transport.data_dir
        self._claim(directory, source)
        self.transport = EmbeddedTransport(directory, config.transport.embedded)
        self.transport.create_topics(TOPICS, partitions)
        if (found := self.transport.partitions(EVENTS)) != partitions:
            raise TransportError(
                f"{directory} was made with {found} event partitions, not {partitions}; "
                f"say --partitions {found} or use an empty directory"
            )
        self.deployment = Deployment(config, self.transport, partitions, wall_clock=False, campaigns=campaigns)
        self._feed = Feed(self.transport, source, config.runner.batch_records)
        self._pipeline = Pipeline(self._feed, self.deployment.runners)

    @staticmethod
    def _claim(directory: Path, source: Source) -> None:
        note = directory / SOURCE_FILE
        if note.exists():
            held = orjson.loads(note.read_bytes())["fingerprint"]
            if held != source.fingerprint:
                raise TransportError(
                    f"{directory} holds the replay of another source ({held}); use an empty directory for this one"
                )
            return
        if directory.exists() and any(directory.iterdir()):
            raise TransportError(f"{directory} holds something else than a replay; use an empty directory")
        directory.mkdir(parents=True, exist_ok=True)
        note.write_bytes(orjson.dumps({"fingerprint": source.fingerprint}))

    @property
    def rows(self) -> int:
        """Rows of the source that were taken in, in this run and before."""
        return self._feed.position

    def run(self, go_on: Callable[[int], bool] = lambda rows: True) -> bool:
        """Step until the source has ended (True) or `go_on`, told the rows taken in so far, says no (False)."""
        while self._pipeline.step():
            if not go_on(self.rows):
                return False
        return True

    def ledger(self) -> Ledger:
        """What became of the events so far."""
        processor = self.deployment.processor
        seconds = time.perf_counter() - self._started
        return balance(self.transport, processor.populations.values(), processor.model, self.rows, seconds)

    def __enter__(self) -> Replay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pipeline.close()
        self.transport.close()
