"""Appending whole lines to a file, or nothing at all.

Invariant: after `append` the file holds all of the lines, or it is as it was; a line that an earlier crash left
unfinished is ended first, so that it spoils no other. Several processes may append to one file (flock).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Sequence
from pathlib import Path


def append(path: Path, lines: Sequence[bytes], *, fsync: bool) -> None:
    """Append lines (without their ends) and make them durable where `fsync` is set; the directory is created.

    Raises OSError (full disk, no permission), with the file as it was. Opened anew each time: it may be rotated.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        size = os.fstat(fd).st_size
        whole = size == 0 or os.pread(fd, 1, size - 1) == b"\n"
        data = b"".join([b"" if whole else b"\n", *(line + b"\n" for line in lines)])
        try:
            _write(fd, data)
            if fsync:
                os.fsync(fd)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(fd, size)
            raise
    finally:
        os.close(fd)
    if new and fsync:
        _sync_directory(path.parent)


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:  # a disk that fills up takes a part first
        view = view[os.write(fd, view) :]


def _sync_directory(path: Path) -> None:
    """A new file's name is durable only with its directory."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
