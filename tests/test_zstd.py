"""One place for zstd: what it writes is read back, damage is seen, and no context is shared."""

from __future__ import annotations

import threading

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from stream import zstd


@given(body=st.binary(max_size=5_000), checksum=st.booleans())
def test_what_is_compressed_is_read_back_by_anybody(body: bytes, checksum: bool) -> None:
    packed = zstd.compress(body, checksum=checksum)
    assert zstandard.frame_content_size(packed) == len(body)
    assert zstandard.get_frame_parameters(packed).has_checksum == checksum
    assert zstandard.ZstdDecompressor().decompress(packed) == zstd.decompressor().decompress(packed) == body
    assert zstd.compress(memoryview(body), checksum=checksum) == packed


def test_a_checksum_tells_what_is_damaged() -> None:
    packed = bytearray(zstd.compress(bytes(range(256)), checksum=True))
    packed[-6] ^= 1
    with pytest.raises(zstandard.ZstdError):
        zstd.decompressor().decompress(bytes(packed))


def test_a_window_that_is_too_large_is_refused() -> None:
    large = zstandard.ZstdCompressor(compression_params=zstandard.ZstdCompressionParameters(window_log=24))
    writer = large.compressobj()
    packed = writer.compress(bytes(1 << 20)) + writer.flush()
    assert zstd.decompressor().decompress(packed, max_output_size=1 << 20) == bytes(1 << 20)
    with pytest.raises(zstandard.ZstdError, match="memory"):
        zstd.decompressor(1 << 20).decompress(packed, max_output_size=1 << 20)


def test_every_thread_has_its_own_and_keeps_it() -> None:
    seen: list[object] = []
    thread = threading.Thread(target=lambda: seen.append(zstd.decompressor()))
    thread.start()
    thread.join()
    assert seen[0] is not zstd.decompressor()
    assert zstd.decompressor() is zstd.decompressor() is not zstd.decompressor(1 << 20)
