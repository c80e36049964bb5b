"""Machine instructions of the compiled kernels, counted by valgrind's callgrind, so the same on a busy machine.

`python -m benchmarks.native` prints them, for each event or user. What counts is the calls of `stream.kernels` alone,
each by itself. The counts depend on the compiler and the processor's extensions, so that they are compared with those
of the same compiler only (benchmarks/counts.json, `python -m benchmarks.counts`).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.memory_records import MemoryRecordsBuilder

from benchmarks.workload import events
from stream import kernels
from stream.features import kernel
from stream.transport.base import OutRecord
from stream.transport.spans import packed

COUNT = 1_000
NOW = 1_770_000_000_000
REPEATS = 3
"""The last call of each counts: the first ones set things up."""
_PREFIX = "__pyx_pw_6stream_7kernels_"
"""What Cython calls the functions of these modules that Python calls."""


def compiler() -> str:
    """With what the kernels are compiled here, and for what: say "gcc 12 x86_64"."""
    name = (sysconfig.get_config_var("CC") or "cc").split()[0]
    version = "none"
    if shutil.which(name):
        told = subprocess.run([name, "-dumpversion"], capture_output=True, text=True, check=False)
        version = told.stdout.strip().partition(".")[0]
    return f"{name} {version} {os.uname().machine}"


def available() -> bool:
    """Whether there is something to count, and something to count with."""
    return kernels.built() and all(shutil.which(tool) for tool in ("valgrind", "nm"))


def _wrappers() -> set[str]:
    """The names of all functions of the kernels that Python calls."""
    files = Path(kernels.__file__).parent.glob(f"*{sysconfig.get_config_var('EXT_SUFFIX')}")
    listed = subprocess.run(["nm", *map(str, files)], capture_output=True, text=True, check=True)
    return set(re.findall(rf"{_PREFIX}\w+", listed.stdout))


def calls() -> dict[str, Callable[[], Any]]:
    """One call of one kernel each, for COUNT units."""
    made = list(events(COUNT, COUNT, NOW, seed=1))
    values, keys = packed([record.value for record in made]), packed([record.key for record in made])
    reader = kernel._reader()
    flat = [np.empty(COUNT, kind) for kind in (np.int32, np.int8, np.int64)]
    wide = [
        np.empty((len(kernel.NUMBERS), COUNT)),
        np.empty((2, COUNT), np.uint64),
        np.empty((4, COUNT), np.int64),
        np.empty(COUNT, np.int32),
    ]
    where = (values.data, values.starts, values.lengths, keys.data, keys.starts, keys.lengths)
    batch, places = _body(made), np.empty((8, COUNT), np.int64)
    index, rows = kernels.index.Index(list({str(key, "ascii") for key in keys if key})), np.empty(COUNT, np.int64)
    return {
        "records": lambda: kernels.records.read(batch, COUNT, places),
        "events": lambda: reader.read(*where, 1 << 20, *flat, *wide),
        "find users": lambda: index.find(keys.data, keys.starts, keys.lengths, rows),
    }


def _body(records: Sequence[OutRecord]) -> bytes:
    """The records of a batch that holds all of them, without its head."""
    made = MemoryRecordsBuilder(2, 0, 1 << 30)
    for record in records:
        made.append(record.timestamp, record.key, record.value, [])
    made.close()
    return bytes(made.buffer())[DefaultRecordBatch.HEADER_STRUCT.size :]


def counted() -> dict[str, dict[str, Any]]:
    """By kernel, the unit and the `machine` instructions for each. Raises RuntimeError where valgrind fails."""
    with tempfile.TemporaryDirectory(prefix="native-") as directory:
        out = Path(directory) / "callgrind"
        command = [
            "valgrind",
            "--tool=callgrind",
            f"--callgrind-out-file={out}",
            f"--toggle-collect={_PREFIX}*",
            *(f"--dump-after={name}" for name in sorted(_wrappers())),
            sys.executable,
            "-m",
            "benchmarks.native",
            "--child",
        ]
        environment = {**os.environ, "PYTHONHASHSEED": "0", kernels.SWITCH: "on"}
        root = Path(__file__).resolve().parents[1]
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
        names = done.stdout.split("\n")[:-1]
        totals = list(_totals(out))
        if done.returncode != 0 or not names or len(totals) < REPEATS * len(names):
            raise RuntimeError(f"counting with valgrind failed:\n{done.stderr[-3000:]}")
    last = totals[len(totals) - REPEATS * len(names) :][REPEATS - 1 :: REPEATS]
    return {
        name: {"unit": "event", "machine": round(total / COUNT, 1)} for name, total in zip(names, last, strict=True)
    }


def _totals(out: Path) -> Iterator[int]:
    """Instructions of each call, in order: one dump a call."""
    number = 1
    while (dump := out.with_name(f"{out.name}.{number}")).exists():
        found = re.search(r"^summary: (\d+)", dump.read_text(), re.MULTILINE)
        yield int(found[1]) if found else 0
        number += 1


def main() -> None:
    """Print the counts."""
    if sys.argv[1:] == ["--child"]:
        for name, call in calls().items():
            for _ in range(REPEATS):
                call()
            print(name)
        return
    if not available():
        sys.exit("there are no compiled kernels, or there are no valgrind and nm")
    print(compiler())
    for name, count in counted().items():
        print(f"{name:24} {count['machine']:12,.1f} an {count['unit']}")


if __name__ == "__main__":
    main()
