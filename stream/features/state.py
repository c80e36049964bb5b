"""Rows of the user table as bytes: self-describing, compressed, columns by name.

`RUT1`, then one zstd frame with its checksum: the header's length (uint32), the JSON header (fingerprint, stream
time, number of users, and for each block its dtype, names and widths of its columns), the ids' lengths in
characters (uint16), the length in bytes of the joined ids (uint32) and the ids (UTF-8), then one block for each
dtype, column after column (that packs a tenth better and faster than row after row). Little-endian throughout.

Invariant: a column is read back only under the name that says what it holds; bytes of another layout are never misread.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import zstandard

from stream import kernels, zstd
from stream.features.layout import Column, Layout

_MAGIC = b"RUT1"
_LENGTH = struct.Struct("<I")

Array = npt.NDArray[Any]


class StateError(Exception):
    """Stored state that cannot be read: the message says what is wrong and what to do."""


@dataclass(slots=True)
class Unpacked:
    """Users as they were packed, with the columns of the layout that reads them."""

    user_ids: list[str]
    stream_time: int
    blocks: list[Array]
    """(users, width) for each group of the layout."""


def pack_rows(
    layout: Layout, stream_time: int, user_ids: list[str], arrays: Sequence[Array], rows: npt.NDArray[np.int64]
) -> bytes:
    """Pack the users in `rows` (n,) of a table: `user_ids` by row, `arrays` (users or more, width) for each group.

    The same bytes with and without the compiled kernels. Raises ValueError or IndexError for a row that is not there.
    """
    header = orjson.dumps(
        {
            "fingerprint": layout.fingerprint,
            "stream_time": stream_time,
            "users": len(rows),
            "blocks": [[group.dtype.str, [[c.name, c.width] for c in group.columns]] for group in layout.groups],
        }
    )
    rows = np.ascontiguousarray(rows, np.int64)
    lengths, names = _ids(user_ids, rows)
    head = b"".join([_LENGTH.pack(len(header)), header, lengths, _LENGTH.pack(len(names)), names])
    body = _compiled(layout, head, arrays, rows) if kernels.on() else _turned(head, arrays, rows)
    return _MAGIC + zstd.compress(body, checksum=True)


def _ids(user_ids: list[str], rows: npt.NDArray[np.int64]) -> tuple[bytes, bytes]:
    """The lengths of the ids in these rows, and the ids."""
    if kernels.on() and (found := kernels.users.ids(user_ids, rows)) is not None:
        return found
    chosen = [user_ids[row] for row in rows.tolist()]
    lengths = np.fromiter(map(len, chosen), "<u2", len(chosen)).tobytes()
    return lengths, "".join(chosen).encode(errors="surrogatepass")


def _compiled(layout: Layout, head: bytes, arrays: Sequence[Array], rows: npt.NDArray[np.int64]) -> memoryview:
    """The head and the columns of these rows, by the compiled kernel: each value is copied once."""
    body = np.empty(len(head) + len(rows) * layout.bytes_per_user, np.uint8)
    body[: len(head)] = np.frombuffer(head, np.uint8)
    start = len(head)
    for array in arrays:
        stop = start + len(rows) * array.shape[1] * array.itemsize
        kernels.users.columns(array.view(np.uint8), rows, array.itemsize, body[start:stop])
        start = stop
    return body.data


def _turned(head: bytes, arrays: Sequence[Array], rows: npt.NDArray[np.int64]) -> bytes:
    """The same by numpy."""
    return b"".join([head, *(array.take(rows, axis=0).tobytes(order="F") for array in arrays)])


def unpack_rows(layout: Layout, payload: bytes) -> Unpacked:
    """Read packed users for `layout`, migrating columns by name. Raises StateError for anything that is not whole."""
    if payload[:4] != _MAGIC:
        raise StateError(
            f"not the state of a user table (begins with {payload[:4]!r}): "
            "written by a newer version, or by something else; rebuild it from the events"
        )
    try:
        return _read(layout, zstd.decompressor().decompress(payload[4:]))
    except (zstandard.ZstdError, struct.error, ValueError, KeyError, TypeError, IndexError) as error:
        raise StateError(f"the state of a user table is damaged ({error}); rebuild it from the events") from error


def _read(layout: Layout, body: bytes) -> Unpacked:
    (length,) = _LENGTH.unpack_from(body)
    offset = _LENGTH.size + length
    header = orjson.loads(body[_LENGTH.size : offset])
    users: int = header["users"]
    lengths = np.frombuffer(body, "<u2", users, offset)
    offset += lengths.nbytes
    (length,) = _LENGTH.unpack_from(body, offset)
    offset += _LENGTH.size
    joined = body[offset : offset + length].decode(errors="surrogatepass")
    offset += length
    ends = np.cumsum(lengths, dtype=np.int64)
    if users and int(ends[-1]) != len(joined):
        raise ValueError("the ids do not have the lengths that were noted")
    stored: list[tuple[list[Any], Array]] = []
    for dtype, columns in header["blocks"]:
        width = sum(column[1] for column in columns)
        block = np.frombuffer(body, np.dtype(dtype), users * width, offset).reshape(width, users).T
        offset += block.nbytes
        stored.append((columns, block))
    if offset != len(body):
        raise ValueError("more bytes than the header says")
    user_ids = [joined[start:end] for start, end in zip((ends - lengths).tolist(), ends.tolist(), strict=True)]
    if len(set(user_ids)) != users:
        raise ValueError("a user comes twice")
    same = header["fingerprint"] == layout.fingerprint
    blocks = [block for _, block in stored] if same else _migrate(layout, users, stored)
    return Unpacked(user_ids, header["stream_time"], blocks)


def _migrate(layout: Layout, users: int, stored: Sequence[tuple[list[Any], Array]]) -> list[Array]:
    """Blocks for another layout: what has the same name, dtype and width is kept, the rest gets its default."""
    found: dict[tuple[str, np.dtype[Any]], Array] = {}
    for columns, block in stored:
        start = 0
        for name, width in columns:
            found[name, block.dtype] = block[:, start : start + width]
            start += width
    return [
        np.concatenate([_column(c, users, found.get((c.name, group.dtype))) for c in group.columns], axis=1)
        for group in layout.groups
    ]


def _column(column: Column, users: int, old: Array | None) -> Array:
    values = np.full((users, column.width), column.default, column.dtype)
    if old is None or (old.shape[1] != column.width and not column.resizable):
        return values
    kept = min(column.width, old.shape[1])
    values[:, column.width - kept :] = old[:, old.shape[1] - kept :]
    return values
