"""Logs on standard error: one JSON object a line, or plain lines for a terminal; never personal data.

Invariant: no user id reaches a log. Who logs about a user writes `user_tag(user_id)`; a field called `user_id` that
slips in, at any depth, is turned into its tag; messages of exceptions that quote their input are masked. A log call
never raises and always writes exactly one line of JSON.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
import secrets
import sys
import threading
import traceback
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TextIO

import orjson
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["auto", "json", "plain"]

_OWN_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_USER_FIELDS = ("user_id", "user_ids")
_CLIENT_INTERNALS = ("kafka", "urllib3")
_MAX_DEPTH = 6
_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"")
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(0x20), 0x7F)} | {0x09: "\t", 0x0A: "\\n", 0x0D: "\\r"}
_COLOURS = {"warning": "\x1b[33m", "error": "\x1b[31m", "critical": "\x1b[31m", "debug": "\x1b[2m"}


class LogSettings(BaseModel):
    """What is logged, and how."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    level: Level = Field(default="info", description="Least severe level that is written")
    format: Format = Field(default="auto", description="json, plain, or auto: plain on a terminal, else json")
    user_tag_key: SecretStr | None = Field(
        default=None,
        description="Key of the hash that stands for a user. Without one each process makes its own, "
        "so that tags link lines of one process only",
    )


class UserTag(str):
    """The stand-in for a user id; a type of its own, so that it is never hashed twice."""

    __slots__ = ()


_tag_key = secrets.token_bytes(32)


def user_tag(user_id: str | bytes) -> UserTag:
    """A short keyed hash of a user id, such as "user-5f0c2a9b41d7": the same user, the same tag, and no way back.

    Keyed by `LogSettings.user_tag_key`, or by a random key of this process.
    """
    raw = user_id.encode("utf-8", "surrogatepass") if isinstance(user_id, str) else user_id
    return UserTag("user-" + hashlib.blake2b(raw, digest_size=6, key=_tag_key).hexdigest())


def configure(settings: LogSettings | None = None, stream: TextIO | None = None) -> None:
    """Send the logs of the whole process to `stream` (standard error) as `settings` say; replaces earlier handlers.

    Uncaught exceptions, of threads too, and Python's warnings become log lines. Call it before threads start.
    """
    global _tag_key
    settings = settings or LogSettings()
    stream = stream or sys.stderr
    key = settings.user_tag_key.get_secret_value() if settings.user_tag_key else ""
    # blake2b takes keys up to 64 bytes; a longer secret is brought to that size without losing any of it.
    _tag_key = hashlib.blake2b(key.encode()).digest() if key else secrets.token_bytes(32)
    debug = settings.level == "debug"
    terminal = stream.isatty()
    plain = settings.format == "plain" or (settings.format == "auto" and terminal)
    handler = logging.StreamHandler(stream)
    handler.addFilter(RedactUsers())
    handler.setFormatter(
        PlainFormatter(debug=debug, colour=terminal and not os.environ.get("NO_COLOR"))
        if plain
        else JsonFormatter(debug=debug)
    )
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(settings.level.upper())
    for name in _CLIENT_INTERNALS:
        logging.getLogger(name).setLevel(logging.DEBUG if debug else logging.WARNING)
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread


class RedactUsers(logging.Filter):
    """Turns every field called `user_id` or `user_ids` into tags: in `extra`, inside mappings and lists there, and
    among the mapping that a message is formatted with. Lets every record pass."""

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: D102
        for name, value in list(vars(record).items()):
            if name not in _OWN_FIELDS:
                setattr(record, name, _redacted(name, value))
        if isinstance(record.args, Mapping):
            record.args = {name: _redacted(name, value) for name, value in record.args.items()}
        return True


class JsonFormatter(logging.Formatter):
    """One line of JSON: time (RFC 3339, UTC), level, logger, message, the fields of `extra`, and `exception`.

    A field whose name is taken by one of these gets an underscore behind it. With `debug` exceptions come unmasked
    and with every frame.
    """

    def __init__(self, *, debug: bool = False) -> None:
        super().__init__()
        self._debug = debug

    def format(self, record: logging.LogRecord) -> str:  # noqa: D102
        line: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
        }
        if record.threadName not in (None, "MainThread"):
            line["thread"] = record.threadName
        if record.exc_info and record.exc_info[1] is not None:
            line["exception"] = describe_exception(record.exc_info[1], debug=self._debug, logger=record.name)
        for name, value in _fields(record):
            line[f"{name}_" if name in line else name] = _plain_value(value)
        return _dump(line)


class PlainFormatter(logging.Formatter):
    """For a person at a terminal: time, level, message, fields as name=value, and the exception below."""

    def __init__(self, *, debug: bool = False, colour: bool = False) -> None:
        super().__init__()
        self._debug = debug
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:  # noqa: D102
        level = record.levelname.lower()
        shown = f"{level:<7}"
        if self._colour and level in _COLOURS:
            shown = f"{_COLOURS[level]}{shown}\x1b[0m"
        where = f"{record.name}: " if self._debug else ""
        parts = [_time(record)[11:23], shown, where + _message(record).translate(_CONTROL)]
        parts += [f"{name}={_dump(_plain_value(value)).translate(_CONTROL)}" for name, value in _fields(record)]
        line = " ".join(parts)
        if record.exc_info and record.exc_info[1] is not None:
            told: dict[str, Any] | None = describe_exception(record.exc_info[1], debug=self._debug, logger=record.name)
            lead = ""
            while told:
                line += f"\n    {lead}{told['type']}: {str(told['message']).translate(_CONTROL)}"
                line += "".join(f"\n      {frame}" for frame in told.get("frames", ()))
                told, lead = told.get("cause"), "caused by "
        return line


def describe_exception(error: BaseException, *, debug: bool = False, logger: str = "") -> dict[str, Any]:
    """{type, message, frames, cause} of an exception, without the input that it may quote.

    Frames are "file:line in function", outermost first; those inside the Kafka and HTTP clients are left out, as are
    all of an exception that such a client logged itself. With `debug` nothing is left out or masked.
    """
    told: dict[str, Any] = {"type": type(error).__qualname__, "message": str(error) if debug else _masked(error)}
    from_client = logger.split(".")[0] in _CLIENT_INTERNALS
    if frames := [] if from_client and not debug else list(_frames(error.__traceback__, debug)):
        told["frames"] = frames
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        told["cause"] = describe_exception(cause, debug=debug, logger=logger)
    return told


def _frames(trace: TracebackType | None, debug: bool) -> Iterable[str]:
    skipped = 0
    for frame in traceback.extract_tb(trace):
        parts = Path(frame.filename).parts
        package = parts[parts.index("site-packages") + 1] if "site-packages" in parts[:-1] else ""
        if package in _CLIENT_INTERNALS and not debug:
            skipped += 1
            continue
        yield f"{frame.filename}:{frame.lineno} in {frame.name}"
    if skipped:
        yield f"({skipped} more inside the client; level debug shows them)"


def _masked(error: BaseException) -> str:
    """The message, without what the caller may have passed in: ids, events, rows."""
    if isinstance(error, ValidationError):
        found = error.errors(include_url=False, include_context=False, include_input=False)
        # Pydantic's own text quotes the input; where and what kind of error is enough.
        return "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['type']}" for item in found)
    if type(error) is KeyError:
        return "(the key is not shown)"
    if type(error) is ValueError:
        return _QUOTED.sub("'…'", str(error))
    return str(error)


def _redacted(name: object, value: Any, depth: int = 0) -> Any:
    if isinstance(value, Mapping | list | tuple | set | frozenset) and depth >= _MAX_DEPTH:
        return "(too deep to show)"
    if isinstance(value, Mapping):
        return {key: _redacted(key, inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_redacted(name, inner, depth + 1) for inner in value]
    if name in _USER_FIELDS and value is not None and not isinstance(value, UserTag):
        return user_tag(value if isinstance(value, str | bytes) else str(value))
    return value


def _fields(record: logging.LogRecord) -> Iterable[tuple[str, Any]]:
    return ((name, value) for name, value in vars(record).items() if name not in _OWN_FIELDS)


def _plain_value(value: Any) -> Any:
    """Values that JSON has, and for others no more than is safe to show: an object's repr may hold a whole event."""
    if value is None or isinstance(value, bool | int | str):
        return str(value) if isinstance(value, UserTag) else value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain_value(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain_value(inner) for inner in value]
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if isinstance(value, Path | datetime):
        return str(value)
    if isinstance(value, BaseException):
        return describe_exception(value)
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        return _plain_value(value.item())
    return f"<{type(value).__qualname__}>"


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:
        # The wrong number of arguments; the values are not ours to show.
        return f"{record.msg} (arguments do not fit)"


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _dump(value: Any) -> str:
    try:
        return orjson.dumps(value).decode()
    except (TypeError, ValueError):
        # Integers beyond 64 bits and lone surrogates.
        return json.dumps(value, ensure_ascii=True)


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    logging.getLogger("stream").critical("uncaught exception", exc_info=(kind, error, trace))


def _log_uncaught_in_thread(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_value is not None and not issubclass(arguments.exc_type, SystemExit):
        name = arguments.thread.name if arguments.thread else "?"
        logging.getLogger("stream").critical(
            "uncaught exception in thread %s",
            name,
            exc_info=(arguments.exc_type, arguments.exc_value, arguments.exc_traceback),
        )
