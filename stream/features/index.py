"""The rows of users by id: a dict, or the compiled kernel's table, which looks ids up where they lie.

Invariant: rows are numbered in the order in which ids are added, so that both give the same.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import repeat
from typing import Protocol

import numpy as np
import numpy.typing as npt

from stream import kernels
from stream.features.texts import Texts

Rows = npt.NDArray[np.int64]


class UserIndex(Protocol):
    """An index over a list of distinct ids, by row, which it alone appends to."""

    def rows(self, user_ids: Sequence[str]) -> Rows:
        """The row of each (n,); -1 for who is unknown."""

    def get(self, user_id: str) -> int | None:
        """The row; None for who is unknown."""

    def add(self, user_id: str) -> int:
        """The row; who is unknown gets the next one."""

    @property
    def nbytes(self) -> int:
        """Bytes in use, without the ids."""


def index_of(user_ids: list[str]) -> UserIndex:
    """An index over these ids."""
    return _Compiled(user_ids) if kernels.on() else _Dict(user_ids)


class _Dict:
    def __init__(self, user_ids: list[str]) -> None:
        self._ids = user_ids
        self._rows = {user_id: row for row, user_id in enumerate(user_ids)}

    def rows(self, user_ids: Sequence[str]) -> Rows:
        return np.fromiter(map(self._rows.get, user_ids, repeat(-1)), np.int64, len(user_ids))

    def get(self, user_id: str) -> int | None:
        return self._rows.get(user_id)

    def add(self, user_id: str) -> int:
        row = self._rows.setdefault(user_id, len(self._ids))
        if row == len(self._ids):
            self._ids.append(user_id)
        return row

    @property
    def nbytes(self) -> int:
        return sys.getsizeof(self._rows) + len(self._rows) * sys.getsizeof(2**20)


class _Compiled:
    def __init__(self, user_ids: list[str]) -> None:
        self._index = kernels.index.Index(user_ids)
        self.add = self._index.add

    def rows(self, user_ids: Sequence[str]) -> Rows:
        if not isinstance(user_ids, Texts):
            return np.fromiter(map(self._index.get, user_ids), np.int64, len(user_ids))
        found = np.empty(len(user_ids), np.int64)
        spans = user_ids.spans
        self._index.find(spans.data, spans.starts, spans.lengths, found)
        return found

    def get(self, user_id: str) -> int | None:
        row = self._index.get(user_id)
        return None if row < 0 else row

    @property
    def nbytes(self) -> int:
        return self._index.nbytes
