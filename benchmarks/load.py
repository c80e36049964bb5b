"""Open-loop load: events at a fixed rate, whatever becomes of them.

`python -m benchmarks.load BOOTSTRAP PREFIX RATE SECONDS USERS SEED`. An event's time is the instant at which it was
due, so a producer or broker that falls behind makes latencies longer and not fewer. Prints how many were sent, and by
how much the last ones were late.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import orjson

from benchmarks.contestants import kafka_settings
from benchmarks.workload import SHARES, TYPES, ZIPF, details, user_name
from schemas.topics import EVENTS
from stream.config import load
from stream.transport.base import OutRecord

_TICK_S = 0.01
_VARIETY = 500_000
"""Events that are written down before the load begins, but for their number and time; then they come again. What is
measured shares its cores with the load, which should take as little of them as it can."""


def main(bootstrap: str, prefix: str, rate: float, seconds: float, users: int, seed: int) -> None:
    """Send."""
    config = load(None, {**kafka_settings(bootstrap, prefix), "transport.kafka.linger": 0})
    transport = config.transport.open()
    total = int(rate * seconds)
    written = _write(min(total, _VARIETY), users, seed)
    sent, late = 0, 0.0
    began = tick = time.time()
    while sent < total:
        due = min(total, int((time.time() - began) * rate))
        if due > sent:
            chunk = []
            for number in range(sent, due):
                key, event = written[number % len(written)]
                at = int((began + number / rate) * 1000)
                chunk.append(OutRecord(EVENTS, key, event % (number, at), timestamp=at))
            transport.produce(chunk)
            sent = due
            late = time.time() - (began + sent / rate)
        tick = max(tick + _TICK_S, time.time())
        time.sleep(max(0.0, tick - time.time()))
    took = time.time() - began
    transport.close()
    print(json.dumps({"sent": sent, "seconds": took, "rate": sent / took, "late": late}))


def _write(count: int, users: int, seed: int) -> list[tuple[bytes, bytes]]:
    """Keys and events, with places for a number and a time."""
    rng = np.random.default_rng(seed)
    who = ((rng.zipf(ZIPF, count) * 7919) % users).tolist()
    kinds = rng.choice(len(TYPES), count, p=SHARES).tolist()
    amounts = rng.lognormal(3.2, 0.8, count).tolist()
    half_hour = int(time.time()) // 1800
    written = []
    for number, (user, kind, amount) in enumerate(zip(who, kinds, amounts, strict=True)):
        name = user_name(user)
        event = {"user_id": name, "type": TYPES[kind], "session_id": f"s{user:08d}{half_hour:09d}"}
        rest = orjson.dumps(event | details(TYPES[kind], number, user, amount))
        written.append((name.encode(), b'{"event_id":"load%d-%%d","occurred_at":%%d,%b' % (seed, rest[1:])))
    return written


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]), int(sys.argv[6]))
