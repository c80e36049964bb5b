"""One webhook call: signed as Standard Webhooks 1.0 says, bounded in time, and judged.

The signature is HMAC-SHA256 over "id.timestamp.body", base64, prefixed "v1,". The id is the action's and stays the
same over all attempts (the receiver's idempotency key); the timestamp is the attempt's own, by the wall clock.
TLS certificates are verified; redirects are not followed. https://www.standardwebhooks.com
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import re
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from typing import Any, Literal

import orjson
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from schemas.cloudevents import rfc3339
from stream.campaigns.backoff import LONGEST_PAUSE_MS
from stream.campaigns.rules import WebhookSink

SECRET_PREFIX = "whsec_"  # noqa: S105 - the prefix of secrets, no secret
MIN_SECRET_BYTES, MAX_SECRET_BYTES = 24, 64
_MAX_ANSWER_BYTES = 65_536
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


Failure = Literal["timeout", "connection"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one attempt. `retry`: it may go better later; `refused`: it will not. `detail` is for a person,
    `failure` says what came in place of a status."""

    verdict: Literal["delivered", "retry", "refused"]
    http_status: int | None = None
    detail: str = ""
    retry_after_ms: int | None = None
    failure: Failure = "connection"
    seconds: float = field(default=0.0, compare=False)


def body_of(action: str, trigger: str, occurred_at: int) -> bytes:
    """The body for an action (given as its JSON), the same at every attempt."""
    return orjson.dumps(
        {
            "type": f"campaign.{trigger}",
            "timestamp": rfc3339(occurred_at).decode(),
            "data": orjson.Fragment(action),
        }
    )


def sign(keys: Sequence[bytes], message_id: str, timestamp: int, body: bytes) -> str:
    """The webhook-signature header: one signature for each key, so that a secret can be changed without a gap."""
    content = b"%s.%d.%s" % (message_id.encode(), timestamp, body)
    digests = (hmac.new(key, content, hashlib.sha256).digest() for key in keys)
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)


def decode_secrets(text: str) -> tuple[bytes, ...]:
    """The keys in a secret's text: base64, with or without whsec_; several, divided by spaces, while one replaces
    another. Raises ValueError without repeating any of it."""
    keys = []
    for word in text.split():
        encoded = word.removeprefix(SECRET_PREFIX)
        try:
            key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
        except ValueError:
            raise ValueError("is no base64 text") from None
        if not MIN_SECRET_BYTES <= len(key) <= MAX_SECRET_BYTES:
            raise ValueError(f"holds {len(key)} bytes; it must be {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} random ones")
        keys.append(key)
    if not keys:
        raise ValueError("is empty")
    return tuple(keys)


class Webhook:
    """One campaign's webhook, with its secrets at hand.

    Raises ValueError, naming the key and the variable, where a secret is missing or of no use.
    """

    def __init__(self, sink: WebhookSink, environ: Mapping[str, str], client: urllib3.PoolManager) -> None:
        self.sink = sink
        self._client = client
        self._keys = _keys(sink, environ)
        self._headers = {name: _expand(name, value, environ) for name, value in sink.headers.items()}

    @property
    def signed(self) -> bool:
        """Whether there is a secret to sign with."""
        return bool(self._keys)

    def send(self, action_id: str, body: bytes, call: Call) -> Answer:
        """One attempt. Blocks at most `timeout` or so, never raises; `call.cancel()` ends it from another thread."""
        began = time.monotonic()
        answer = self._attempt(action_id, body, call)
        return replace(answer, seconds=time.monotonic() - began)

    def _attempt(self, action_id: str, body: bytes, call: Call) -> Answer:
        timestamp = int(time.time())
        headers = {
            **self._headers,
            "content-type": "application/json",
            "user-agent": "resegment",
            "webhook-id": action_id,
            "webhook-timestamp": str(timestamp),
        }
        if self._keys:
            headers["webhook-signature"] = sign(self._keys, action_id, timestamp, body)
        seconds = self.sink.timeout / 1000
        _current.call = call
        try:
            response = self._client.request(
                "POST",
                self.sink.url,
                body=body,
                headers=headers,
                redirect=False,
                retries=False,
                preload_content=False,
                timeout=urllib3.Timeout(total=seconds),
            )
            _finish(response)
        except Exception as error:
            return _explain(error, seconds)
        finally:
            _current.call = None
            call.sock = None
        return judge(response.status, response.headers)


def judge(status: int, headers: Mapping[str, str]) -> Answer:
    """2xx is success; 408, 425, 429 and 5xx may pass; all else will be the same next time."""
    if 200 <= status < 300:
        return Answer("delivered", status)
    if status in (408, 425, 429) or status >= 500:
        return Answer("retry", status, f"HTTP {status}", _retry_after(headers))
    hint = {
        410: "the receiver wants no more of these: switch the campaign off",
        401: "the receiver does not accept the credentials or the signature",
    }.get(status, "redirects are not followed: write the new URL" if 300 <= status < 400 else "the receiver refused it")
    return Answer("refused", status, f"HTTP {status}: {hint}")


class Call:
    """A handle on one attempt, to end it when it is overdue.

    urllib3's time-outs bound each read, not the whole: a receiver that answers byte by byte would hold a thread
    for days.
    """

    def __init__(self) -> None:
        self.sock: socket.socket | None = None

    def cancel(self) -> None:
        """Shut the socket down, so that the thread that waits on it sees an error at once. Safe at any time."""
        sock = self.sock
        if sock is not None:
            with contextlib.suppress(OSError):  # it has just ended by itself
                # The plain method also for TLS: that class's own one changes what the other thread is using.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)


def client(connections: int) -> urllib3.PoolManager:
    """A connection pool whose requests can be cancelled. Certificates are verified against the system's."""
    manager = urllib3.PoolManager(num_pools=64, maxsize=connections, retries=False)
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}
    return manager


class _Current(threading.local):
    call: Call | None = None


_current = _Current()


def _note(sock: socket.socket | None) -> None:
    if _current.call is not None:
        _current.call.sock = sock


class _Connection(HTTPConnection):
    def connect(self) -> None:
        super().connect()
        _note(self.sock)

    def request(self, *args: Any, **kwargs: Any) -> None:
        _note(self.sock)  # one that is used again
        super().request(*args, **kwargs)


class _TLSConnection(HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        _note(self.sock)

    def request(self, *args: Any, **kwargs: Any) -> None:
        _note(self.sock)
        super().request(*args, **kwargs)


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TLSPool(HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


def _finish(response: urllib3.BaseHTTPResponse) -> None:
    """Read what little an answer says, so that the connection can be used again; the status has decided already."""
    try:
        answer = response.read(_MAX_ANSWER_BYTES, decode_content=False)
        if len(answer) < _MAX_ANSWER_BYTES:
            response.release_conn()
            return
    except (urllib3.exceptions.HTTPError, OSError):
        pass
    response.close()


def _retry_after(headers: Mapping[str, str]) -> int | None:
    """Milliseconds that the receiver asks to wait (given as seconds or an HTTP date), at most a day; None: it does not
    say."""
    text = headers.get("retry-after", "").strip()
    if not text:
        return None
    if re.fullmatch(r"[0-9]{1,10}", text):
        wait = int(text) * 1000
    else:
        try:
            # Against the receiver's own clock where it shows it: ours may be off.
            shown = headers.get("date")
            now = parsedate_to_datetime(shown).timestamp() if shown else time.time()
            wait = int((parsedate_to_datetime(text).timestamp() - now) * 1000)
        except (ValueError, OverflowError):
            return None
    return min(max(wait, 0), LONGEST_PAUSE_MS)


def _explain(error: Exception, seconds: float) -> Answer:
    """What went wrong, without URL or content."""
    failure: Failure = "connection"
    match error:
        case urllib3.exceptions.NameResolutionError():
            detail = "the receiver's name cannot be resolved"
        case urllib3.exceptions.NewConnectionError():  # to urllib3 also a ConnectTimeoutError
            detail = "no connection: refused, or no route"
        case urllib3.exceptions.ConnectTimeoutError():
            failure, detail = "timeout", f"no connection within {seconds:g} s"
        case urllib3.exceptions.ReadTimeoutError():
            failure, detail = "timeout", f"no answer within {seconds:g} s"
        case urllib3.exceptions.SSLError():
            detail = f"TLS: {error}"
        case urllib3.exceptions.ProtocolError():
            detail = "the connection broke before an answer"
        case _:
            detail = f"the request failed ({type(error).__name__})"
    return Answer("retry", detail=detail, failure=failure)


def _keys(sink: WebhookSink, environ: Mapping[str, str]) -> tuple[bytes, ...]:
    if sink.secret_env is None:
        return ()
    if sink.secret_env not in environ:
        raise ValueError(f"secret_env: environment variable {sink.secret_env} is not set")
    try:
        return decode_secrets(environ[sink.secret_env])
    except ValueError as error:
        raise ValueError(
            f"secret_env: the secret in {sink.secret_env} {error}; make one with `openssl rand -base64 32` "
            f"and put {SECRET_PREFIX} before it"
        ) from None


def _expand(name: str, value: str, environ: Mapping[str, str]) -> str:
    def one(match: re.Match[str]) -> str:
        if match[1] not in environ:
            raise ValueError(f"headers.{name}: environment variable {match[1]} is not set")
        return environ[match[1]]

    text = _VARIABLE.sub(one, value)
    if not text.isprintable():
        raise ValueError(f"headers.{name}: the variable in it holds a control character, perhaps a line end")
    return text
