"""Quix Streams: a StreamingDataFrame with state in RocksDB and its changelog, exactly-once, its defaults otherwise.

`PYTHON quix_pipeline.py BOOTSTRAP PREFIX COUNT WARM MODEL STATE_DIR`, by the interpreter that `install.py` prepares:
it imports nothing of this project but the two modules beside it that need the standard library only.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from core import SUMS, Model, decide, update
from quixstreams import Application, State
from stopwatch import Stopwatch


class Pipeline:
    """The function behind `apply`, which counts events on the side to stop the application after the last one."""

    def __init__(self, app: Application, model: Model, count: int, warm: int) -> None:
        self._app = app
        self._model = model
        self._count = count
        self._warm = warm
        self.watch: Stopwatch | None = None

    def process(self, event: dict[str, Any], state: State) -> dict[str, Any] | None:
        """The change that an event causes, if it causes one."""
        if self.watch is None:
            self.watch = Stopwatch(self._warm)
        user = update(state.get("user"), event)
        change = decide(user, self._model.distances(user[SUMS:]), event)
        state.set("user", user)
        if self.watch.count(1) == self._count:
            self._app.stop()
        return change


def main(bootstrap: str, prefix: str, count: int, warm: int, model: Path, state_dir: Path) -> None:
    """Drain `count` events."""
    app = Application(
        broker_address=bootstrap,
        consumer_group=f"{prefix}quix-{time.time_ns()}",
        auto_offset_reset="earliest",
        processing_guarantee="exactly-once",
        state_dir=state_dir,
        loglevel="WARNING",
    )
    events = app.topic(f"{prefix}events", key_deserializer="str", value_deserializer="json")
    changes = app.topic(f"{prefix}peer-changes", key_serializer="str", value_serializer="json")
    pipeline = Pipeline(app, Model.load(model), count, warm)
    stream = app.dataframe(events)
    stream = stream.apply(pipeline.process, stateful=True)
    stream = stream.filter(lambda change: change is not None)
    stream.to_topic(changes)
    app.run()
    assert pipeline.watch is not None
    pipeline.watch.report()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]), Path(sys.argv[6]))
