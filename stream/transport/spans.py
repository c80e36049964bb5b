"""Contents of one buffer, made into bytes when they are asked for: most are read where they lie.

Invariant: `Spans` is a sequence like the list of its contents. `list_of` and `joined` take either.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import overload

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


class Spans(Sequence[bytes | None]):
    """n contents of `data`, at `starts` (n,), of `lengths` (n,) bytes; a negative length is null."""

    __slots__ = ("data", "lengths", "starts")

    def __init__(self, data: bytes, starts: Ints, lengths: Ints) -> None:
        self.data = data
        self.starts = starts
        self.lengths = lengths

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, at: int) -> bytes | None: ...
    @overload
    def __getitem__(self, at: slice) -> Spans: ...
    def __getitem__(self, at: int | slice) -> bytes | Spans | None:
        """One content, or spans of some."""
        if isinstance(at, slice):
            return Spans(self.data, self.starts[at], self.lengths[at])
        start, length = int(self.starts[at]), int(self.lengths[at])
        return self.data[start : start + length] if length >= 0 else None

    def __iter__(self) -> Iterator[bytes | None]:
        return iter(self.list())

    def list(self) -> list[bytes | None]:
        """All of them."""
        ends = (self.starts + np.maximum(self.lengths, 0)).tolist()
        found: list[bytes | None] = list(map(self.data.__getitem__, map(slice, self.starts.tolist(), ends)))
        for at in np.flatnonzero(self.lengths < 0).tolist():
            found[at] = None
        return found

    def __repr__(self) -> str:
        return f"Spans({len(self)} contents, {len(self.data)} bytes)"


def list_of(contents: Sequence[bytes | None]) -> list[bytes | None]:
    """As a list."""
    if isinstance(contents, list):
        return contents
    return contents.list() if isinstance(contents, Spans) else list(contents)


def contents_at(contents: Sequence[bytes | None], positions: npt.NDArray[np.integer]) -> Sequence[bytes | None]:
    """Those at these positions."""
    if isinstance(contents, Spans):
        return Spans(contents.data, contents.starts[positions], contents.lengths[positions])
    return [contents[at] for at in positions.tolist()]


def packed(contents: Sequence[bytes | None]) -> Spans:
    """As spans of one buffer."""
    if isinstance(contents, Spans):
        return contents
    lengths = np.fromiter((-1 if content is None else len(content) for content in contents), np.int64, len(contents))
    sizes = np.maximum(lengths, 0)
    return Spans(b"".join(filter(None, contents)), np.cumsum(sizes) - sizes, lengths)


def joined(*columns: Sequence[Sequence[bytes | None]]) -> list[Sequence[bytes | None]]:
    """For each column, a sequence of at least one part, its parts one after the other.

    The i-th parts of all columns lie in one buffer, where they are spans: then the columns share the new one.
    """
    if len(columns[0]) == 1:
        return [column[0] for column in columns]
    groups: list[tuple[Spans, ...]] = []
    for parts in zip(*columns, strict=True):
        data = getattr(parts[0], "data", None)
        group = tuple(part for part in parts if isinstance(part, Spans) and part.data is data)
        if len(group) < len(parts):
            return [list(chain.from_iterable(map(list_of, column))) for column in columns]
        groups.append(group)
    pieces: list[memoryview] = []
    shifts: list[int] = []
    size = 0
    for group in groups:
        # A part may be a few records of a large buffer.
        first = min(int(part.starts.min()) for part in group)
        last = max(int((part.starts + part.lengths).max()) for part in group)
        pieces.append(memoryview(group[0].data)[first : max(first, last)])
        shifts.append(size - first)
        size += len(pieces[-1])
    data = b"".join(pieces)
    return [
        Spans(
            data,
            np.concatenate([group[column].starts + shift for group, shift in zip(groups, shifts, strict=True)]),
            np.concatenate([group[column].lengths for group in groups]),
        )
        for column in range(len(columns))
    ]
