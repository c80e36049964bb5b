"""Named arrays to bytes and back: a JSON header, then the raw little-endian columns, compressed.

Invariant: `unpack(pack(arrays))` gives the same names, dtypes, shapes and bits; anything damaged is a ValueError.
Not npz: that costs 30 times the time on small arrays, and a zip file's directory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import orjson
import zstandard
from numpy.typing import NDArray

from stream import zstd

MAGIC: Final = b"RSA1"
# What one packed value may grow to: a damaged or hostile header must not exhaust memory.
LARGEST: Final = 1 << 28
_DTYPES: Final = frozenset({"<f8", "<f4", "<i8", "<i4", "<i2", "|i1", "<u8", "<u4", "|u1", "|b1"})


def pack(arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, Any] | None = None) -> bytes:
    """`meta` are JSON values that travel in the header. Raises ValueError for a dtype that is not plain numbers."""
    columns = []
    parts = []
    for name, array in arrays.items():
        dtype = array.dtype.newbyteorder("<")
        if dtype.str not in _DTYPES:
            raise ValueError(f"array {name!r} has the dtype {array.dtype}; only plain numbers can be packed")
        columns.append([name, dtype.str, array.shape])
        parts.append(np.ascontiguousarray(array, dtype).tobytes())
    header = orjson.dumps({"columns": columns, "meta": dict(meta or {})})
    body = b"".join([len(header).to_bytes(4, "little"), header, *parts])
    return MAGIC + zstd.compress(body, checksum=True)


def unpack(data: bytes) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The arrays (read-only views of one buffer) and the meta. Raises ValueError where it is not what `pack` wrote."""
    if data[:4] != MAGIC:
        raise ValueError(f"these bytes begin with {data[:4]!r}, not with {MAGIC!r}: they are no packed arrays")
    try:
        # A frame that says how large its content is is given that much room, whatever the most may be.
        claimed = zstandard.frame_content_size(data[4:])
        if claimed > LARGEST:
            raise ValueError(f"they claim to hold {claimed} bytes")
        body = zstd.decompressor().decompress(data[4:], max_output_size=LARGEST)
        size = int.from_bytes(body[:4], "little")
        header = orjson.loads(body[4 : 4 + size])
        columns, meta = header["columns"], header["meta"]
    except (zstandard.ZstdError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"packed arrays are damaged: {error}") from error
    at = 4 + size
    arrays: dict[str, NDArray[Any]] = {}
    for name, dtype, shape in columns:
        if dtype not in _DTYPES:
            raise ValueError(f"packed array {name!r} claims the dtype {dtype!r}")
        count = int(np.prod(shape, dtype=np.int64))
        length = count * np.dtype(dtype).itemsize
        if count < 0 or at + length > len(body):
            raise ValueError(f"packed arrays are damaged: {name!r} ends behind the data")
        arrays[name] = np.frombuffer(body, dtype, count, at).reshape(shape)
        at += length
    if at != len(body):
        raise ValueError(f"packed arrays are damaged: {len(body) - at} bytes too many")
    return arrays, meta
