"""Memory for each user: the process's resident memory with many users in its tables, less the memory without any.

`python -m benchmarks.memory USERS` loads that many and prints one JSON line. Index, ids, table and default features are
in it, and what the allocator holds on to; `peak` is the most that the process ever held, while a table grew.
"""

from __future__ import annotations

import gc
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.arena import module
from benchmarks.crowd import fresh, gather
from benchmarks.figures import Bar, Part, spread

FULL = 10_000_000


def resident() -> int:
    """Resident bytes of this process (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def measure(users: int) -> None:
    """Load, and print what it took."""
    processor = fresh()
    gc.collect()
    before, started = resident(), time.perf_counter()
    gather(processor, users, int(time.time() * 1000))
    gc.collect()
    after = resident()
    held = sum(len(population) for population in processor.populations.values())
    assert held == users
    told = {
        "users": held,
        "bytes_per_user": (after - before) / held,
        "resident": after,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "layout_bytes": processor.layout.bytes_per_user,
        "seconds": time.perf_counter() - started,
    }
    print(json.dumps(told))


def run(users: int) -> Part:
    """One load: memory does not vary as time does."""
    done = subprocess.run(module("benchmarks.memory", users), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"memory: failed:\n{done.stderr[-3000:]}")
    told = json.loads(done.stdout)
    gigabytes = told["resident"] / 1e9
    bar = Bar(
        "memory per user, all in (index, table, default features)",
        "at most 800 bytes; 10,000,000 users in 12 GB",
        [told["bytes_per_user"], gigabytes],
        [800, 12],
        "at most",
        "bytes; GB",
        "" if users >= FULL else f"with {users:,} users only",
    )
    summary = {"bytes_per_user": spread([told["bytes_per_user"]]), "peak_gb": spread([told["peak"] / 1e9])}
    return Part("memory", "make bench PARTS=memory", {"memory": [told]}, summary, [bar])


if __name__ == "__main__":
    measure(int(sys.argv[1]))
