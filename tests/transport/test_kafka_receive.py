"""What the client receives in larger pieces is what it receives in its own."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.errors import KafkaConnectionError
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport

from stream.transport import kafka_receive

_theirs = KafkaTCPTransport.__dict__["_sock_recv"]
"""The client's own, where nobody has installed ours before this module was imported."""


class Connection:
    """As much of the client's transport as receiving needs."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock


@contextmanager
def connected() -> Iterator[tuple[socket.socket, Connection]]:
    one, other = socket.socketpair()
    with one, other:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        other.setblocking(False)
        yield one, Connection(other)


@given(sizes=st.lists(st.integers(1, 150_000), max_size=6), seed=st.integers(0, 99))
def test_all_that_was_sent_arrives_in_order(sizes: list[int], seed: int) -> None:
    rng = random.Random(seed)
    with connected() as (sender, connection):
        for size in sizes:
            content, received = rng.randbytes(size), b""
            sender.settimeout(5.0)
            sent = 0
            while len(received) < size:
                if sent < size:
                    sent += sender.send(content[sent : sent + 60_000])
                piece, error = kafka_receive._receive(connection)
                assert error is None
                received += piece
            assert received == content
        assert kafka_receive._receive(connection) == (b"", None), "there is nothing, and that is no error"


def test_it_takes_larger_pieces_and_asks_no_more_than_it_must() -> None:
    class Counted:
        def __init__(self, pieces: list[bytes]) -> None:
            self.pieces, self.asked = pieces, []  # type: ignore[var-annotated]

        def recv(self, size: int) -> bytes:
            self.asked.append(size)
            if not self.pieces:
                raise BlockingIOError
            return self.pieces.pop(0)

    full = bytes(kafka_receive._PIECE)
    sock = Counted([full, full, b"end"])
    assert kafka_receive._receive(Connection(sock)) == (full + full + b"end", None)
    assert sock.asked == [kafka_receive._PIECE] * 3
    sock = Counted([full])
    assert kafka_receive._receive(Connection(sock)) == (full, None)
    assert len(sock.asked) == 2


@pytest.mark.parametrize("cause", ["closed", "reset"])
def test_the_end_of_a_connection_comes_with_what_came_before_it(cause: str) -> None:
    class Ending:
        def __init__(self) -> None:
            self.pieces: list[Any] = [bytes(kafka_receive._PIECE), b"" if cause == "closed" else ConnectionResetError()]

        def recv(self, size: int) -> bytes:
            piece = self.pieces.pop(0)
            if isinstance(piece, Exception):
                raise piece
            return piece  # type: ignore[no-any-return]

    content, error = kafka_receive._receive(Connection(Ending()))
    assert len(content) == kafka_receive._PIECE
    assert isinstance(error, KafkaConnectionError)
    assert ("disconnected" in str(error)) == (cause == "closed")


def test_it_is_put_in_place_once_and_not_where_the_client_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KafkaTCPTransport, "_sock_recv", lambda self: (b"", None))
    assert not kafka_receive.supported()
    assert not kafka_receive.install(), "another version receives as it does"
    assert KafkaTCPTransport._sock_recv is not kafka_receive._receive

    def like_theirs(self: Any) -> Any:
        return self._sock.recv(4096)

    monkeypatch.setattr(KafkaTCPTransport, "_sock_recv", like_theirs)
    assert kafka_receive.install() and kafka_receive.install()
    assert KafkaTCPTransport._sock_recv is kafka_receive._receive
    assert KafkaSSLTransport._sock_recv is not kafka_receive._receive, "TLS has its own"


def test_the_client_that_is_locked_is_the_known_one() -> None:
    assert _theirs is kafka_receive._receive or kafka_receive.supported()
