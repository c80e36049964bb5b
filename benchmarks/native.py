"""Machine instructions of the compiled kernels, counted by valgrind's callgrind, so the same on a busy machine.

`python -m benchmarks.native` prints them, for each event, user or record, of the kernels of benchmarks/kernels.py. Only
what `stream.kernels` does counts. The counts depend on the compiler and the processor's extensions, so that they are
compared with those of the same compiler only (benchmarks/counts.json, `python -m benchmarks.counts`).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stream import kernels

REPEATS = 3
"""The last call of each counts: the first ones set things up."""
_PREFIX = "__pyx_pw_6stream_7kernels_"
"""What Cython calls the functions of these modules that Python calls."""
_MARK = "xxh3"
"""Called between two kernels, and by none of them."""


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
        if done.returncode != 0:
            raise RuntimeError(f"counting with valgrind failed:\n{done.stderr[-3000:]}")
        units = json.loads(done.stdout.splitlines()[-1])
        totals = list(_totals(out))
    if len(totals) != REPEATS * len(units):
        raise RuntimeError(f"valgrind saw {len(totals)} calls of {len(units)} kernels, {REPEATS} times each")
    return {
        name: {"unit": unit, "machine": round(total / count, 1)}
        for (name, unit, count), total in zip(units, totals[REPEATS - 1 :: REPEATS], strict=True)
        if total
    }


def _totals(out: Path) -> Iterator[int]:
    """Instructions between one mark and the next, in order: each call of a function of the kernels is a dump."""
    number, total = 1, -1
    while (dump := out.with_name(f"{out.name}.{number}")).exists():
        text = dump.read_text()
        if re.search(rf"^desc: Trigger: .*{_MARK}$", text, re.MULTILINE):
            if total >= 0:
                yield total
            total = 0
        elif total >= 0:
            found = re.search(r"^summary: (\d+)", text, re.MULTILINE)
            total += int(found[1]) if found else 0
        number += 1


def _child() -> None:
    """Call every kernel between marks; print their names and units."""
    from benchmarks.kernels import Kernels

    found = Kernels().all()
    for kernel in found.values():
        for _ in range(REPEATS):
            kernels.events.xxh3(b"")
            kernel.call()
    kernels.events.xxh3(b"")
    print(json.dumps([(name, kernel.unit, kernel.units) for name, kernel in found.items()]))


def main() -> None:
    """Print the counts."""
    if sys.argv[1:] == ["--child"]:
        _child()
        return
    if not available():
        sys.exit("there are no compiled kernels, or there are no valgrind and nm")
    print(compiler())
    for name, count in counted().items():
        print(f"{name:12} {count['machine']:12,.1f} for each {count['unit']}")


if __name__ == "__main__":
    main()
