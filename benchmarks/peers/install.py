"""Puts the peers where they can run: an environment of its own for Quix Streams, compiled classes for Kafka Streams.

Once for each version of the files that say what is installed, into .cache/peers: versions pinned, Python packages by
hash. `python -m benchmarks.peers.install` does it ahead of time, `... lock` resolves the lock file anew.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = HERE.parents[1] / ".cache" / "peers"
QUIX_REQUIREMENT = HERE / "quix.in"
QUIX_LOCK = HERE / "quix.lock"
STREAMS = HERE / "kafka-streams"


def quix_python() -> Path:
    """The interpreter that has Quix Streams, its Kafka client (librdkafka) and its RocksDB."""
    target = CACHE / f"quix-{_digest([QUIX_LOCK])}"
    python = target / "bin" / "python"
    if not (target / ".complete").exists():
        shutil.rmtree(target, ignore_errors=True)
        venv.create(target, with_pip=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([*pip, "--require-hashes", "--no-deps", "--requirement", str(QUIX_LOCK)])
        (target / ".complete").touch()
    return python


def streams_classpath() -> str:
    """The class path of the Kafka Streams peer, built by Maven."""
    files = [STREAMS / "pom.xml", *sorted(STREAMS.glob("src/**/*.java"))]
    target = CACHE / f"kafka-streams-{_digest(files)}"
    if not (target / ".complete").exists():
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(STREAMS, target)
        maven = shutil.which("mvn")
        if maven is None:
            sys.exit("mvn (Maven) is not installed: the Kafka Streams peer cannot be built")
        goals = [
            "compile",
            "dependency:copy-dependencies",
            "-DincludeScope=runtime",
            f"-DoutputDirectory={target}/jars",
        ]
        _run([maven, "--batch-mode", "--quiet", f"--file={target / 'pom.xml'}", *goals])
        (target / ".complete").touch()
    return f"{target}/target/classes:{target}/jars/*"


def lock() -> None:
    """Resolve `quix.lock` from `quix.in`."""
    uv = [str(Path(sys.executable).with_name("uv")), "pip", "compile", str(QUIX_REQUIREMENT), "--universal"]
    flags = ["--python-version", "3.11", "--generate-hashes", "--no-header", "--no-annotate", "--no-emit-index-url"]
    _run([*uv, *flags, "--upgrade", "--quiet", "--output-file", str(QUIX_LOCK)])


def _digest(files: list[Path]) -> str:
    whole = hashlib.sha256()
    for file in files:
        whole.update(file.read_bytes())
    return whole.hexdigest()[:12]


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command[:4])} ... failed:\n{(done.stdout + done.stderr)[-3000:]}")


if __name__ == "__main__":
    if sys.argv[1:] == ["lock"]:
        lock()
    else:
        print(quix_python(), streams_classpath(), sep="\n")
