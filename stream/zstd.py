"""Each thread's own zstd contexts.

Made anew for every use they cost as much as 16 KB of content, and none may be shared between threads.
"""

from __future__ import annotations

import threading
from typing import Final

import zstandard

LEVEL: Final = 1
"""Higher ones save a tenth of the bytes for several times the time, and Kafka's own 3 what a processor writes none."""


class _Own(threading.local):
    def __init__(self) -> None:
        self.compressors: dict[bool, zstandard.ZstdCompressor] = {}
        self.decompressors: dict[int, zstandard.ZstdDecompressor] = {}


_own = _Own()


def compress(body: bytes | memoryview, *, checksum: bool = False) -> bytes:
    """One frame that says how much it holds; with `checksum` it says too whether that is what it was."""
    compressor = _own.compressors.get(checksum)
    if compressor is None:
        compressor = _own.compressors[checksum] = zstandard.ZstdCompressor(level=LEVEL, write_checksum=checksum)
    return compressor.compress(body)


def decompressor(max_window_size: int = 0) -> zstandard.ZstdDecompressor:
    """This thread's, for frames that ask for a window of at most so many bytes; 0 is the library's own limit."""
    found = _own.decompressors.get(max_window_size)
    if found is None:
        found = zstandard.ZstdDecompressor(max_window_size=max_window_size)
        _own.decompressors[max_window_size] = found
    return found
