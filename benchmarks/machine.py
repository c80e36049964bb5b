"""What the figures were seen on: machine, versions, and the commit that was measured."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.peers.install import QUIX_LOCK, STREAMS
from tests.kafka.jars import POM, java

_PACKAGES = ("kafka-python", "msgspec", "numpy", "orjson", "pydantic", "river", "scipy", "xxhash", "zstandard")


def machine() -> dict[str, Any]:
    """Processor, cores, memory, system, and how busy it was when the run began."""
    memory = _first(r"MemTotal:\s+(\d+)", Path("/proc/meminfo"))
    return {
        "processor": _first(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo")) or platform.processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(int(memory) / 2**20, 1) if memory else None,
        "system": platform.platform(),
        "load_average_before": [round(load, 2) for load in os.getloadavg()],
    }


def versions() -> dict[str, str | None]:
    """Of everything that takes part."""
    told = subprocess.run([java(), "-version"], capture_output=True, text=True, check=False).stderr
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
        "kafka_broker": _first(r"<kafka.version>(.+)</kafka.version>", POM),
        "kafka_streams": _first(r"<kafka.version>(.+)</kafka.version>", STREAMS / "pom.xml"),
        "java": told.splitlines()[0] if told else None,
        "quixstreams": _first(r"quixstreams==(\S+)", QUIX_LOCK),
        "confluent_kafka": _first(r"confluent-kafka==(\S+)", QUIX_LOCK),
    }


def commit() -> str | None:
    """What is checked out; a plus says that files were changed since."""
    asked = ["git", "describe", "--always", "--dirty=+", "--abbrev=12"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False, cwd=Path(__file__).parent)
    return done.stdout.strip() or None


def _first(pattern: str, file: Path) -> str | None:
    try:
        found = re.search(pattern, file.read_text())
    except OSError:
        return None
    return found.group(1) if found else None
