"""The broker's jars: fetched by Maven once for each version of tests/kafka/pom.xml, into .cache/kafka."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

POM = Path(__file__).with_name("pom.xml")
CACHE = Path(__file__).resolve().parents[2] / ".cache" / "kafka"


class NoJarsError(Exception):
    """Java or Maven is missing, or Maven could not fetch; the message says which."""


def java() -> str:
    """The java program. Raises NoJarsError where there is none."""
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=f"{home}/bin" if home else None) or shutil.which("java")
    if found is None:
        raise NoJarsError("java is not installed")
    return found


def classpath() -> str:
    """The class path of the broker, fetching the jars if need be (about 50 MB, once).

    Safe to call from several processes at once. Raises NoJarsError.
    """
    java()
    target = CACHE / f"jars-{hashlib.sha256(POM.read_bytes()).hexdigest()[:12]}"
    done = target / ".complete"
    if not done.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with (CACHE / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                _fetch(target)
                done.touch()
    return f"{target}/*"


def _fetch(target: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise NoJarsError("mvn (Maven) is not installed, and the broker's jars are not in .cache/kafka yet")
    shutil.rmtree(target, ignore_errors=True)
    run = subprocess.run(
        [
            maven,
            "--batch-mode",
            "--quiet",
            f"--file={POM}",
            "dependency:copy-dependencies",
            "-DincludeScope=runtime",
            f"-DoutputDirectory={target}",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode != 0 or not any(target.glob("kafka_*.jar")):
        lines = [line for line in (run.stdout + run.stderr).splitlines() if "ERROR" in line]
        raise NoJarsError("mvn could not fetch the broker's jars: " + (lines[0] if lines else "no message"))
