from __future__ import annotations

import os
import resource
import threading
from pathlib import Path

import pytest

from stream.campaigns.logfile import append


def test_lines_are_appended_and_the_directory_is_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "log.jsonl"
    append(path, [b"one", b"two"], fsync=True)
    append(path, [b"three"], fsync=False)
    assert path.read_bytes() == b"one\ntwo\nthree\n"


def test_a_line_that_a_crash_cut_short_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"whole\nhal")
    append(path, [b"next"], fsync=True)
    assert path.read_bytes() == b"whole\nhal\nnext\n"


def test_a_rotated_file_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    append(path, [b"old"], fsync=True)
    path.rename(tmp_path / "log.1")
    append(path, [b"new"], fsync=True)
    assert path.read_bytes() == b"new\n"


def test_a_disk_that_fills_up_in_the_middle_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    append(path, [b"first"], fsync=True)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            append(path, [b"x" * 600, b"y" * 600], fsync=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"first\n"
    append(path, [b"second"], fsync=True)
    assert path.read_bytes() == b"first\nsecond\n"


def test_a_full_disk_is_an_error() -> None:
    with pytest.raises(OSError, match="No space left"):
        append(Path("/dev/full"), [b"x"], fsync=True)


def test_writers_do_not_mix_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"

    def write(letter: bytes) -> None:
        for _ in range(50):
            append(path, [letter * 3_000, letter * 3_000], fsync=False)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = path.read_bytes().splitlines()
    assert len(lines) == 300
    assert all(len(set(line)) == 1 and len(line) == 3_000 for line in lines)


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(20):
        append(tmp_path / "log", [b"x"], fsync=False)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
