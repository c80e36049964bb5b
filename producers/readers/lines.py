"""Lines of a file, plain or gzip, in blocks: memory stays flat, whatever the file holds.

A row is a line, always: a stray quote cannot swallow what follows, and `wc -l` is an independent count. A line
loses its terminator and nothing else; an empty line is a row too. A line beyond `MAX_LINE` bytes is cut there.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, cast

import xxhash

from producers.source import SourceError

BLOCK: Final = 1 << 20
MAX_LINE: Final = 8 << 20
CHEAP_BYTES: Final = 16 << 20
"""A file up to this size on disk is counted when somebody asks for its total."""
HEAD: Final = 1 << 16

_GZIP: Final = b"\x1f\x8b"
_UTF8_BOM: Final = b"\xef\xbb\xbf"
_FOREIGN: Final = {
    b"PK\x03\x04": "a zip archive or an Excel workbook; unpack it, or save it as CSV",
    b"PAR1": "a Parquet file; convert it to CSV or JSON Lines",
    b"BZh": "compressed with bzip2; recompress it with gzip",
    b"\xfd7zXZ": "compressed with xz; recompress it with gzip",
    b"\x28\xb5\x2f\xfd": "compressed with zstd; recompress it with gzip",
    b"\xff\xfe": "UTF-16 text; convert it to UTF-8",
    b"\xfe\xff": "UTF-16 text; convert it to UTF-8",
}


def line_blocks(path: Path) -> Iterator[list[bytes]]:
    """The lines of a file in order, in lists of about a mebibyte, without "\\n" or "\\r\\n" and without a BOM.

    Raises SourceError: no such file, not readable, damaged gzip, a known other format.
    """
    with _open(path) as file:
        tail = b""
        first = True
        while block := file.read(BLOCK):
            if first:
                block, first = block.removeprefix(_UTF8_BOM), False
            returns = b"\r" in block or tail.endswith(b"\r")
            lines = block.split(b"\n")
            lines[0] = (tail + lines[0])[:MAX_LINE]
            tail = lines.pop()
            if lines:
                yield [line.removesuffix(b"\r") for line in lines] if returns else lines
        if tail:
            yield [tail.removesuffix(b"\r")]


def count_lines(path: Path) -> int | None:
    """How many lines there are, or None where the file is too large to count them in passing."""
    with _reading(path):
        if path.stat().st_size > CHEAP_BYTES:
            return None
    return sum(len(lines) for lines in line_blocks(path))


def identity(path: Path) -> str:
    """Name, size and a hash of the first bytes, as they lie on disk."""
    with _reading(path), path.open("rb") as file:
        head = file.read(HEAD)
        return f"{path.name}:{path.stat().st_size}:{xxhash.xxh3_64_hexdigest(head)}"


@contextmanager
def _open(path: Path) -> Iterator[BinaryIO]:
    with _reading(path), path.open("rb") as raw:
        magic = raw.read(6)
        raw.seek(0)
        if magic.startswith(_GZIP):
            with gzip.open(raw) as unpacked:
                yield cast(BinaryIO, unpacked)
            return
        for signature, what in _FOREIGN.items():
            if magic.startswith(signature):
                raise SourceError(f"{path}: this is {what}")
        yield raw


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise SourceError(f"{path}: no such file") from None
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise SourceError(f"{path}: the gzip data is damaged or ends early ({error}); fetch the file again") from None
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror or error}") from None
