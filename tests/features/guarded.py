"""Bytes that end where memory ends: whoever reads one byte behind them dies by SIGSEGV, and the test run with it."""

from __future__ import annotations

import ctypes
import mmap
from typing import Any

import numpy as np
import numpy.typing as npt

_libc: Any = ctypes.CDLL(None, use_errno=True)


class Guarded:
    """Room for bytes, with a page behind it that may not be touched. Parameter: the most bytes."""

    def __init__(self, most: int) -> None:
        pages = -(-most // mmap.PAGESIZE)
        self._map = mmap.mmap(-1, (pages + 1) * mmap.PAGESIZE)
        self._room = np.frombuffer(self._map, np.uint8, pages * mmap.PAGESIZE)
        guard = ctypes.c_void_p(self._room.ctypes.data + self._room.nbytes)
        if _libc.mprotect(guard, mmap.PAGESIZE, 0):
            raise OSError(ctypes.get_errno(), "mprotect")

    def put(self, data: bytes) -> npt.NDArray[np.uint8]:
        """The bytes at the end; good until the next call."""
        place = self._room[self._room.nbytes - len(data) :]
        place[:] = np.frombuffer(data, np.uint8)
        return place
