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


def main(bootstrap: str, prefix: str, rate: float, seconds: float, users: int, seed: int) -> None:
    """Send."""
    config = load(None, {**kafka_settings(bootstrap, prefix), "transport.kafka.linger": 0})
    transport = config.transport.open()
    total = int(rate * seconds)
    rng = np.random.default_rng(seed)
    who = ((rng.zipf(ZIPF, total) * 7919) % users).tolist()
    kinds = rng.choice(len(TYPES), total, p=SHARES).tolist()
    amounts = rng.lognormal(3.2, 0.8, total).tolist()
    sent, late = 0, 0.0
    began = time.time()
    while sent < total:
        due = min(total, int((time.time() - began) * rate))
        if due > sent:
            chunk = []
            for number in range(sent, due):
                user, kind = who[number], TYPES[kinds[number]]
                at = int((began + number / rate) * 1000)
                event = {
                    "event_id": f"load{seed}-{number}",
                    "user_id": user_name(user),
                    "occurred_at": at,
                    "type": kind,
                    "session_id": f"s{user:08d}{at // 1_800_000:09d}",
                } | details(kind, number, user, amounts[number])
                chunk.append(OutRecord(EVENTS, user_name(user).encode(), orjson.dumps(event), timestamp=at))
            transport.produce(chunk)
            sent = due
            late = time.time() - (began + sent / rate)
        time.sleep(_TICK_S)
    took = time.time() - began
    transport.close()
    print(json.dumps({"sent": sent, "seconds": took, "rate": sent / took, "late": late}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]), int(sys.argv[6]))
