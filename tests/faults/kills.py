"""Kills: at named points and at random times, as many as wanted, in rounds that each end with the oracle.

    python -m tests.faults.kills embedded 500 --progress .cache/faults.json
    python -m tests.faults.kills kafka 500 --progress .cache/faults.json

Counts are kept in the progress file after every round, so that a run that was broken off carries on; when there were
enough, the next one begins anew.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.deployed import Deployed, embedded_place, kafka_place
from tests.faults.fleet import Fleet, Process
from tests.kafka.broker import Cluster
from tests.kafka.jars import CACHE

RANDOM = "random"
ROUND = 40
"""Kills between two looks of the oracle."""
PATIENCE_S = {"embedded": 6.0, "kafka": 20.0}
"""A point that is not reached for so long is given up for a plain kill."""
LIFE_S = {"embedded": (0.2, 2.5), "kafka": (0.5, 6.0)}
"""How long one lives that is killed at a random time."""
WALL = {"runner.clock": "wall", "processor.sweep_interval": "1s"}
"""One round in four is by the wall clock, where sweeps run between the batches."""
POINTS = {
    "processor": {
        "after_poll": 8,
        "in_apply": 8,
        "in_sweep": 12,
        "at_model_switch": 2,
        "after_produce": 8,
        "after_offsets": 8,
        "in_commit": 8,
        "after_commit": 8,
        "in_restore": 3,
    },
    "modeller": {
        "after_poll": 12,
        "at_publish": 2,
        "after_produce": 2,
        "after_offsets": 2,
        "in_commit": 2,
        "after_commit": 2,
        "in_restore": 1,
    },
    "campaigns": {
        "after_poll": 6,
        "after_produce": 4,
        "after_offsets": 4,
        "in_commit": 4,
        "after_commit": 4,
        "in_restore": 2,
    },
}
"""By role, the points and the highest count at which they strike."""


@dataclass
class Slot:
    """A worker that is started again whenever it dies."""

    name: str
    role: str
    process: Process | None = None
    point: str = RANDOM
    until: float = 0.0


def survive(
    deployed: Deployed, slots: list[Slot], kills: int, rng: random.Random, *, static: bool = False
) -> Counter[str]:
    """Kill until there were `kills`; everybody lives at the end, with nothing armed. Returns the kills by point."""
    done: Counter[str] = Counter()
    fed_at = 0.0
    while done.total() < kills:
        if time.monotonic() - fed_at > 0.3:
            deployed.keep_fed()
            fed_at = time.monotonic()
        for slot in slots:
            if (point := _tend(deployed, slot, rng, static)) is not None:
                done[point] += 1
        time.sleep(0.01)
    for slot in slots:
        assert slot.process is not None
        if slot.process.status is None:
            slot.point = RANDOM
            deployed.fleet.kill(slot.process)
        done[slot.point] += 1
        deployed.start(slot.name, [slot.role], **_membership(slot, static))
    return done


def _tend(deployed: Deployed, slot: Slot, rng: random.Random, static: bool) -> str | None:
    """Start or kill where it is time; the point at which it died, if it did."""
    process = slot.process
    if process is not None and process.status is None:
        if time.monotonic() > slot.until:
            slot.point = RANDOM
            deployed.fleet.signal(process, signal.SIGKILL)
            slot.until += 1.0
        return None
    died = None
    if process is not None:
        assert process.status == -signal.SIGKILL, (
            f"{slot.name} ended with {process.status}, not by our hand:\n{deployed.fleet.tail(slot.name)}"
        )
        died = slot.point
    slot.point = RANDOM if rng.random() < 0.25 else rng.choice(list(POINTS[slot.role]))
    crash = None
    if slot.point == RANDOM:
        slot.until = time.monotonic() + rng.uniform(*LIFE_S[deployed.kind])
    else:
        crash = f"{slot.point}:{rng.randint(1, POINTS[slot.role][slot.point])}"
        slot.until = time.monotonic() + PATIENCE_S[deployed.kind]
    slot.process = deployed.start(slot.name, [slot.role], crash, **_membership(slot, static))
    return died


def _membership(slot: Slot, static: bool) -> dict[str, str]:
    return {"transport.kafka.group_instance_id": slot.name} if static else {}


def run(
    kind: str,
    kills: int,
    make: Callable[..., Deployed],
    *,
    seed: int,
    progress: Path | None = None,
    tell: Callable[[str], None] = print,
) -> Counter[str]:
    """Rounds of kills until there were so many; each ends with the oracle. Returns the kills by point."""
    done = _load(progress, kind)
    while done.total() < kills:
        number = done.total()
        rng = random.Random(f"{seed} {number}")
        wall = rng.random() < 0.25
        deployed = make(seed + number, **(WALL if wall else {}))
        started = time.monotonic()
        try:
            processors = ["p1", "p2"] if kind == "embedded" else ["p1", "p2", "p3"]
            slots = [Slot(name, "processor") for name in processors]
            slots += [Slot("m1", "modeller"), Slot("c1", "campaigns")]
            static = kind == "kafka" and rng.random() < 0.5
            found = survive(deployed, slots, min(ROUND, kills - number), rng, static=static)
            checked = deployed.finish()
        except BaseException:
            tell(f"{kind}: round of seed {seed} {number} failed; logs in {deployed.fleet.logs}")
            raise
        finally:
            deployed.close()
        done += found
        _save(progress, kind, done)
        how = ", ".join(name for name, used in (("static members", static), ("wall clock", wall)) if used)
        tell(
            f"{kind}: {done.total()} kills survived ({dict(done)}); last round {found.total()} in "
            f"{time.monotonic() - started:.0f} s ({how or 'as they come'}): {checked}"
        )
    _save(progress, kind, Counter())
    return done


def _load(progress: Path | None, kind: str) -> Counter[str]:
    if progress is None or not progress.exists():
        return Counter()
    return Counter(json.loads(progress.read_text()).get(kind, {}))


def _save(progress: Path | None, kind: str, done: Counter[str]) -> None:
    if progress is not None:
        held = json.loads(progress.read_text()) if progress.exists() else {}
        progress.parent.mkdir(parents=True, exist_ok=True)
        progress.write_text(json.dumps({**held, kind: dict(done)}, indent=1))


def in_directory(fleet: Fleet, directory: Path) -> Callable[..., Deployed]:
    """Makes deployments in directories below this one."""

    def make(seed: int, **settings: Any) -> Deployed:
        data = directory / uuid.uuid4().hex[:8]
        return Deployed(fleet, embedded_place(data), 3, seed, data, **settings)

    return make


def on_kafka(fleet: Fleet, bootstrap: str, directory: Path) -> Callable[..., Deployed]:
    """Makes deployments on a cluster, each with a prefix of its own."""

    def make(seed: int, **settings: Any) -> Deployed:
        return Deployed(fleet, kafka_place(bootstrap, f"f{uuid.uuid4().hex[:8]}."), 4, seed, directory, **settings)

    return make


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("embedded", "kafka"))
    parser.add_argument("kills", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--progress", type=Path)
    parser.add_argument("--logs", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="faults-") as scratch:
        directory = Path(scratch)
        with Fleet(arguments.logs or directory / "logs") as fleet:
            if arguments.kind == "embedded":
                run(
                    "embedded",
                    arguments.kills,
                    in_directory(fleet, directory),
                    seed=arguments.seed,
                    progress=arguments.progress,
                )
                return
            with Cluster(CACHE / f"kills-{uuid.uuid4().hex[:8]}") as cluster:
                make = on_kafka(fleet, cluster.bootstrap, directory)
                run("kafka", arguments.kills, make, seed=arguments.seed, progress=arguments.progress)


if __name__ == "__main__":
    main()
