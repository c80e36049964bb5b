"""Larger pieces from the client's sockets.

kafka-python takes 4 KB at a time from a socket until it has no more, and lets go of the interpreter's lock for each of
them. Beside a thread that works it gets the lock back after a turn of that one (`stream/runtime/interpreter.py`): what
a busy topic brings in a batch is a hundred such pieces. `install` puts a larger piece in that place, for the whole
process. Connections with TLS stay as they are: their layer gives no more than 16 KB at a time.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from kafka.errors import KafkaConnectionError
from kafka.net.transport import KafkaTCPTransport

log = logging.getLogger(__name__)

_PIECE: Final = 1 << 16
"""Below what the C library takes from the system anew each time."""
_CLIENTS_PIECE: Final = 4096


def supported() -> bool:
    """Whether this version of the client receives as the one that is known does."""
    code = getattr(getattr(KafkaTCPTransport, "_sock_recv", None), "__code__", None)
    return code is not None and code.co_argcount == 1 and _CLIENTS_PIECE in code.co_consts


def install() -> bool:
    """Let the client receive so, where its version allows it; returns whether it does."""
    if getattr(KafkaTCPTransport, "_sock_recv", None) is _receive:
        return True
    if not supported():
        log.warning("this version of kafka-python is not known: it receives 4 KB at a time, and batches wait for it")
        return False
    KafkaTCPTransport._sock_recv = _receive
    return True


def _receive(self: Any) -> tuple[bytes, Exception | None]:
    """What the socket has, and the error that ends the connection, as the client's own `_sock_recv`."""
    pieces: list[bytes] = []
    error: Exception | None = None
    while True:
        try:
            piece = self._sock.recv(_PIECE)
        except (BlockingIOError, InterruptedError):
            break
        except Exception as cause:
            log.exception("%s: error receiving network data, closing the socket", self)
            error = KafkaConnectionError(cause)
            break
        if not piece:
            log.error("%s: socket disconnected", self)
            error = KafkaConnectionError("socket disconnected")
            break
        pieces.append(piece)
        if len(piece) < _PIECE:
            break  # there is no more, or the next look will tell
    return b"".join(pieces), error
