"""Decodes records into a batch of valid events, and says of each other record why it is none.

Invariant: every record is either in the batch or rejected, once; whatever the bytes, nothing is raised, and one bad
event costs its neighbours at most a second look at the chunk that it came in. No detail holds a value of the event.
Where a JSON object names a key twice, the last one counts.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from functools import lru_cache
from operator import attrgetter, itemgetter
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import orjson
import xxhash
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from schemas.dead_letter import Reason
from schemas.events import EVENT_TYPES, EVENTS, Currency
from stream import kernels
from stream.durations import Duration, format_duration
from stream.features import kernel
from stream.features.batch import KIND_CODES, PURCHASE, REFUND, EventBatch, Floats, Hashes, Ints
from stream.features.plain import codes_of, made, read
from stream.features.times import parse_rfc3339
from stream.transport.base import Record
from stream.transport.records import keys_of, taken, timestamps_of, values_of
from stream.transport.spans import list_of, packed

_CHUNK = 250
"""Records validated in one call: the call is cheap by then, and a bad event costs few others a second look."""
_REVIEW = KIND_CODES["review"]
_BROWSE = KIND_CODES["browse"]
_TYPES = frozenset(EVENT_TYPES)
_NOT_FINITE = re.compile(r"NaN|Infinity")

_Fault = tuple[Reason, str | None, str]
"""Reason, field and detail."""

Rate = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]


class CurrencySettings(BaseModel):
    """Into which currency amounts are brought. Without a base they are taken as they are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: Currency | None = Field(default=None, description="An event that names no currency is in this one")
    rates: dict[Currency, Rate] = Field(default_factory=dict, description="What one unit is worth in the base currency")

    @model_validator(mode="after")
    def _consistent(self) -> CurrencySettings:
        if self.rates and self.base is None:
            raise ValueError("rates: need a base currency; set base, such as 'EUR'")
        if self.base is not None and self.rates.get(self.base, 1.0) != 1.0:
            raise ValueError(f"rates: {self.base} is the base currency, so its rate is 1")
        return self


class IngestSettings(BaseModel):
    """Which events are accepted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_event_bytes: int = Field(default=64 * 1024, ge=256)
    earliest: date = Field(default=date(1995, 1, 1), description="Events from before this day (UTC) are too old")
    allowed_skew: Duration = Field(
        default=5 * 60_000,
        le=30 * 60_000,
        description="How far event time may run ahead of the clock; 30 minutes at most, because a Kafka broker refuses "
        "records whose time is an hour ahead of its own",
    )
    allowed_lateness: Duration = Field(
        default=2 * 86_400_000, description="How far an event may be behind the latest event of its partition"
    )
    key: Literal["user_id", "any"] = Field(
        default="user_id",
        description="What a record's key must be. Anything but the user id may spread one user over partitions, who is "
        "then two users; 'any' is for producers that keep users together by another key",
    )
    dedupe_depth: int = Field(default=16, ge=0, le=256, description="Event ids remembered for each user, 8 bytes each")
    currency: CurrencySettings = CurrencySettings()

    @field_validator("earliest")
    @classmethod
    def _after_the_epoch(cls, earliest: date) -> date:
        if earliest < date(1971, 1, 1):
            raise ValueError("must be 1971-01-01 or later: times near 1970 are what an unset clock sends")
        return earliest

    @property
    def earliest_ms(self) -> int:
        """Epoch milliseconds of `earliest`."""
        return int(datetime(self.earliest.year, self.earliest.month, self.earliest.day, tzinfo=UTC).timestamp()) * 1000


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that is no valid event."""

    index: int
    """In the list that was decoded."""
    reason: Reason
    field: str | None
    detail: str
    """For a person; holds no value of the event."""


def decode(
    records: Sequence[Record], now_ms: int | None, settings: IngestSettings
) -> tuple[EventBatch, list[Rejected]]:
    """The valid events of `records` in order, and the others in order, with the reason. Raises nothing.

    `now_ms` is the wall clock; None where the clock is the data's own: then each record's timestamp is its now.
    """
    if not kernels.on():
        return _decode(records, now_ms, settings)
    latest = (timestamps_of(records) if now_ms is None else now_ms) + settings.allowed_skew
    keys = packed(keys_of(records)) if settings.key == "user_id" else None
    values, limit, money = packed(values_of(records)), settings.max_event_bytes, settings.currency
    batch, left = kernel.read(values, keys, limit, settings.earliest_ms, latest, money.rates, money.base)
    if not len(left):
        return batch, []
    others, rejected = _decode(records if len(left) == len(records) else taken(records, left), now_ms, settings)
    others.position = left[others.position].astype(np.int32)
    rejected = [replace(one, index=int(left[one.index])) for one in rejected]
    return (batch.merged(others) if len(batch) else others), rejected


def _decode(
    records: Sequence[Record], now_ms: int | None, settings: IngestSettings
) -> tuple[EventBatch, list[Rejected]]:
    """`decode` without the compiled kernel."""
    rejected: list[Rejected] = []
    positions: list[int] = []
    events: list[Any] = []
    values = list_of(values_of(records))
    for start in range(0, len(values), _CHUNK):
        read, where = _read(values[start : start + _CHUNK], start, settings.max_event_bytes, rejected)
        events += read
        positions += where
    columns = _Columns(events, positions, settings.currency)
    columns.check_users(rejected)
    if settings.key == "user_id":
        columns.check_keys(records, rejected)
    columns.check_currencies(rejected)
    now: int | Ints = now_ms if now_ms is not None else columns.timestamps(records)
    columns.check_times(now, settings, rejected)
    rejected.sort(key=lambda one: one.index)
    return columns.batch(), rejected


def _read(
    values: Sequence[bytes | None], start: int, limit: int, rejected: list[Rejected]
) -> tuple[list[Any], Sequence[int]]:
    """The valid events of some values, and their indices. Those that are not plain go the long way."""
    plain = [value if value is not None and len(value) <= limit else b"" for value in values]
    events = read(plain)
    odd = [at for at, event in enumerate(events) if event is None]
    if not odd:
        return events, range(start, start + len(values))
    parsed, where = _parse([values[at] for at in odd], [start + at for at in odd], limit, rejected)
    parsed, where = _validate(parsed, where, rejected)
    for event, index in zip(parsed, where, strict=True):
        events[index - start] = made(event)
    valid = [at for at, event in enumerate(events) if event is not None]
    return [events[at] for at in valid], [start + at for at in valid]


def _parse(
    values: Sequence[bytes | None], indices: Sequence[int], limit: int, rejected: list[Rejected]
) -> tuple[list[Any], list[int]]:
    parsed: list[Any] = []
    where: list[int] = []
    for index, value in zip(indices, values, strict=True):
        if not value:
            rejected.append(Rejected(index, "empty", None, "the record has no value"))
        elif len(value) > limit:
            rejected.append(Rejected(index, "too_large", None, f"{len(value)} bytes; the limit is {limit}"))
        else:
            try:
                parsed.append(orjson.loads(value))
                where.append(index)
            except orjson.JSONDecodeError as error:
                rejected.append(_not_json(index, value, error))
    return parsed, where


def _not_json(index: int, value: bytes, error: orjson.JSONDecodeError) -> Rejected:
    try:
        bytes(value).decode()
    except UnicodeDecodeError as undecodable:
        return Rejected(index, "not_utf8", None, f"byte {undecodable.start} is not UTF-8")
    if "infinity" in error.msg or _NOT_FINITE.search(error.doc[max(0, error.pos - 2) : error.pos + 9]):
        return Rejected(index, "not_finite", None, f"a number at character {error.pos} is NaN or infinite")
    return Rejected(index, "not_json", None, error.msg)


def _validate(parsed: list[Any], where: list[int], rejected: list[Rejected]) -> tuple[list[Any], list[int]]:
    try:
        tagged = _TYPES.issuperset(map(itemgetter("type"), parsed))
    except (TypeError, KeyError, IndexError):  # no dict, not hashable, missing
        tagged = False
    if not tagged:
        # Before pydantic sees them: it would print what stands for the type, and a nested bomb has no end.
        parsed, where = _drop(parsed, where, {at: no for at, e in enumerate(parsed) if (no := _untyped(e))}, rejected)
    try:
        return EVENTS.validate_python(parsed), where
    except ValidationError as error:
        lines = error.errors(include_url=False, include_context=False, include_input=False)
    bad: dict[int, _Fault] = {}
    for line in lines:
        at = line["loc"][0]
        assert isinstance(at, int)
        if at not in bad:
            bad[at] = _invalid(line["type"], str(line["loc"][2]), line["msg"], parsed[at])
    good, where = _drop(parsed, where, bad, rejected)
    return EVENTS.validate_python(good), where


def _drop(
    parsed: list[Any], where: list[int], bad: dict[int, _Fault], rejected: list[Rejected]
) -> tuple[list[Any], list[int]]:
    rejected += [Rejected(where[at], *fault) for at, fault in bad.items()]
    good = [at for at in range(len(parsed)) if at not in bad]
    return [parsed[at] for at in good], [where[at] for at in good]


def _untyped(event: Any) -> _Fault | None:
    if not isinstance(event, dict):
        return "not_an_object", None, "the event must be a JSON object"
    if (kind := event.get("type")) is None:
        return "missing_field", "type", "is required"
    if not isinstance(kind, str) or kind not in _TYPES:
        return "unknown_type", "type", f"must be one of {', '.join(EVENT_TYPES)}"
    return None


def _invalid(kind: str, name: str, message: str, event: dict[str, Any]) -> _Fault:
    """The reason in one line of a ValidationError."""
    if name == "user_id" and event.get(name) in (None, ""):
        return "no_user", name, "whose behaviour is it? user_id is required"
    if event.get(name) is None:
        return "missing_field", name, "is required"
    if kind == "finite_number":
        return "not_finite", name, "must be a finite number"
    if name == "occurred_at":
        return "invalid_field", name, "must be RFC 3339 with an offset, or epoch milliseconds"
    return "invalid_field", name, message


@lru_cache(maxsize=65_536)
def _label_hash(label: str | None) -> int:
    return xxhash.xxh3_64_intdigest(label.encode()) if label is not None else 0


class _Columns:
    """Valid events on their way into columns; `keep` shrinks with every check that needs more than the schema."""

    def __init__(self, events: list[Any], positions: list[int], currency: CurrencySettings) -> None:
        self._events = events
        self._positions = np.array(positions, np.int32)
        self._currency = currency
        self._count = len(events)
        self._keep = np.ones(self._count, bool)
        self._user_ids: list[str] = list(map(attrgetter("user_id"), events))
        self._kind = np.fromiter(codes_of(events), np.int8, self._count)
        self._sales = np.flatnonzero(self._kind == PURCHASE)
        self._factors = np.ones(len(self._sales))
        self._time, self._real = self._times()

    def _reject(self, at: Iterable[Any], rejected: list[Rejected], reason: Reason, field: str, detail: str) -> None:
        for event in at:
            if self._keep[event]:
                self._keep[event] = False
                rejected.append(Rejected(int(self._positions[event]), reason, field, detail))

    def timestamps(self, records: Sequence[Record]) -> Ints:
        """When the records arrived."""
        return timestamps_of(records)[self._positions]

    def check_users(self, rejected: list[Rejected]) -> None:
        """An id needs something to see in it, and no control characters: they break logs, files and databases."""
        joined = "".join(self._user_ids)
        if joined.isprintable() and " " not in joined:
            return
        blank = [at for at, user_id in enumerate(self._user_ids) if not user_id.strip()]
        self._reject(blank, rejected, "no_user", "user_id", "is only white space")
        control = [
            at for at, user_id in enumerate(self._user_ids) if not user_id.isprintable() and _has_control(user_id)
        ]
        self._reject(control, rejected, "invalid_field", "user_id", "has control characters")

    def check_keys(self, records: Sequence[Record], rejected: list[Rejected]) -> None:
        """The key must be the user id: it is what keeps a user's events in one partition, and in order."""
        keys = list_of(keys_of(records))
        if len(keys) != self._count:
            keys = [keys[at] for at in self._positions.tolist()]
        wanted = list(map(str.encode, self._user_ids))
        if keys == wanted:
            return
        without = [at for at, key in enumerate(keys) if not key]
        self._reject(without, rejected, "no_key", "key", "the record needs a key, the user id")
        other = [at for at, (key, user) in enumerate(zip(keys, wanted, strict=True)) if key != user]
        detail = "the record's key must be its user_id; see ingest.key where yours keeps users together otherwise"
        self._reject(other, rejected, "key_mismatch", "key", detail)

    def check_currencies(self, rejected: list[Rejected]) -> None:
        """With a base currency, every other one needs a rate."""
        base = self._currency.base
        if base is None or not len(self._sales):
            return
        rates = {**self._currency.rates, base: 1.0}
        factors = [rates.get(self._events[at].currency or base) for at in self._sales.tolist()]
        self._factors = np.array(factors, np.float64)
        unknown = self._sales[np.isnan(self._factors)]
        self._reject(
            unknown, rejected, "unknown_currency", "currency", f"has no rate to {base}; add one to currency.rates"
        )

    def check_times(self, now: int | Ints, settings: IngestSettings, rejected: list[Rejected]) -> None:
        """No time that does not exist, is older than events can be, or runs ahead of the clock."""
        time = self._time
        if not self._real.all():
            self._reject(
                np.flatnonzero(~self._real),
                rejected,
                "invalid_field",
                "occurred_at",
                "is a date or time that does not exist",
            )
        too_old = np.flatnonzero(time < settings.earliest_ms)
        self._reject(too_old, rejected, "too_old", "occurred_at", f"is before {settings.earliest.isoformat()}")
        ahead = np.flatnonzero(time > now + settings.allowed_skew)
        skew = format_duration(settings.allowed_skew)
        self._reject(ahead, rejected, "too_far_in_future", "occurred_at", f"is more than {skew} ahead of the clock")

    def batch(self) -> EventBatch:
        """The events that are still kept."""
        amount = self._sparse("amount", self._sales)
        discount = self._sparse("discount", self._sales)
        amount[self._sales] *= self._factors
        discount[self._sales] *= self._factors
        kind = np.where((self._kind == PURCHASE) & (amount < 0), np.int8(REFUND), self._kind)
        event_ids: list[str] = list(map(attrgetter("event_id"), self._events))
        batch = EventBatch(
            position=self._positions,
            user_ids=self._user_ids,
            event_ids=event_ids,
            kind=kind,
            time=self._time,
            id_hash=self._hashes(xxhash.xxh3_64_intdigest, map(str.encode, event_ids)),
            amount=amount,
            quantity=self._sparse("quantity", self._sales),
            discount=discount,
            dwell_ms=self._sparse("dwell_ms", np.flatnonzero(kind == _BROWSE)),
            rating=self._sparse("rating", np.flatnonzero(kind == _REVIEW)),
            category=self._hashes(_label_hash, map(attrgetter("category"), self._events)),
        )
        return batch if self._keep.all() else batch.take(np.flatnonzero(self._keep))

    def _sparse(self, name: str, carriers: npt.NDArray[np.intp]) -> Floats:
        """A field that only some kinds carry; NaN for the others, and where it is null or absent."""
        values = np.full(self._count, np.nan)
        if len(carriers):
            own = map(self._events.__getitem__, carriers.tolist())
            values[carriers] = np.array(list(map(attrgetter(name), own)), np.float64)
        return values

    def _hashes(self, digest: Callable[[Any], int], texts: Iterable[Any]) -> Hashes:
        return np.fromiter(map(digest, texts), np.uint64, self._count)

    def _times(self) -> tuple[Ints, npt.NDArray[np.bool_]]:
        given: list[int | str] = list(map(attrgetter("occurred_at"), self._events))
        types = set(map(type, given))
        if types == {str}:
            return parse_rfc3339(given)  # type: ignore[arg-type]
        real = np.ones(self._count, bool)
        if str not in types:
            return np.array(given, np.int64), real
        times = np.zeros(self._count, np.int64)
        texts = [at for at, value in enumerate(given) if isinstance(value, str)]
        times[texts], real[texts] = parse_rfc3339([given[at] for at in texts])  # type: ignore[misc]
        numbers = [at for at, value in enumerate(given) if isinstance(value, int)]
        times[numbers] = [given[at] for at in numbers]
        return times, real


def _has_control(text: str) -> bool:
    return any(unicodedata.category(character) == "Cc" for character in text)
