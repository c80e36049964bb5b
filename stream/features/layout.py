"""Compiles declared features to the columns of the user table.

Invariant: a column's name says all that its content depends on (events, field, horizon, tile size), so two
features that need the same column share it, and a stored column of the same name means the same.

Columns of one dtype live side by side in one 2-D array, a *group*, so that a batch touches few arrays:

- float32: decayed sums and tiles. Counts are exact up to 2^24 in one tile. A sum of money errs by at most 6e-8 of
  its size at each addition: after 1,000 purchases by a few cents in 100,000. It is read on a log scale or by a
  person, never by accounting, and half the bytes are half the state that is kept, packed and restored.
- uint8: tiles of half-hours, of which a tile of 5 days holds 240 at most.
- uint32: events ever accepted. int64: times. uint64: bitmaps of half-hours and hashes of event ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
import xxhash

from stream.features.batch import FIELDS, KINDS
from stream.features.spec import (
    AnyFeature,
    Count,
    CountOf,
    Diversity,
    Filter,
    Mean,
    Ratio,
    Recency,
    Sum,
    SumOf,
    Tenure,
    TopShare,
    Visits,
    VisitsOf,
)

DAY_MS = 86_400_000
HALF_HOUR_MS = 1_800_000
WORD_BITS = 64
NEVER = np.iinfo(np.int64).min
"""In a column of times: it has not happened."""

LAST = "last"
FIRST = "first"
EVENTS = "events"
RECENT_IDS = "recent_ids"


@dataclass(frozen=True, slots=True)
class Column:
    """One named column, `width` values a user. Stored wider or narrower, a `resizable` one keeps its last values."""

    name: str
    dtype: np.dtype[Any]
    width: int = 1
    default: float = 0
    resizable: bool = False

    @property
    def nbytes(self) -> int:
        """A user."""
        return self.dtype.itemsize * self.width


@dataclass(frozen=True, slots=True)
class Extra:
    """A column that a consumer of the table keeps beside the features: one value a user, numeric."""

    name: str
    dtype: str
    default: float = 0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a column is: columns start to stop of the array of a group."""

    group: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Group:
    """A 2-D array of all columns of one dtype, in this order."""

    dtype: np.dtype[Any]
    columns: tuple[Column, ...]
    width: int


@dataclass(frozen=True, slots=True)
class Measure:
    """What one event contributes: `one`, or a field's value; `has:field` is one for each event that carries it."""

    value: str
    kinds: tuple[str, ...]
    categories: tuple[str, ...]

    @property
    def key(self) -> str:
        """Part of the names of columns that hold it."""
        return f"{self.value}[{','.join(self.kinds)}]" + (
            orjson.dumps(self.categories).decode() if self.categories else ""
        )


@dataclass(frozen=True, slots=True)
class HalfHours:
    """Distinct half-hours with such events contribute one each; `bitmap` names the column that remembers them."""

    measure: Measure
    bitmap: str

    @property
    def key(self) -> str:
        """Part of the names of columns that hold it."""
        return f"half-hours {self.measure.key}"


Source = Measure | HalfHours


@dataclass(frozen=True, slots=True)
class Decayed:
    """A decayed sum of a source; with `buckets`, one for each hash bucket of the category."""

    column: str
    source: Source
    half_life: int
    buckets: int = 1


@dataclass(frozen=True, slots=True)
class Ring:
    """A ring of `tiles` sums of a source, each of `tile` milliseconds."""

    column: str
    source: Source
    tile: int
    tiles: int


@dataclass(frozen=True, slots=True)
class Latest:
    """The time of the latest event of a measure."""

    column: str
    measure: Measure


@dataclass(frozen=True, slots=True)
class DecayedTerm:
    """Read a decayed sum."""

    column: str
    half_life: int


@dataclass(frozen=True, slots=True)
class WindowTerm:
    """Read the last `tiles` tiles of a ring."""

    column: str
    tile: int
    tiles: int


ReadTerm = DecayedTerm | WindowTerm


@dataclass(frozen=True, slots=True)
class Reader:
    """How a feature's value comes out of columns: `how` is value, ratio, age, diversity or top_share."""

    how: str
    terms: tuple[ReadTerm, ...] = ()
    column: str = ""


@dataclass(frozen=True, slots=True)
class Layout:
    """The compiled features. Two layouts with one fingerprint store the same bytes."""

    features: tuple[AnyFeature, ...]
    readers: tuple[Reader, ...]
    extras: tuple[Extra, ...]
    lateness_ms: int
    dedupe_depth: int
    groups: tuple[Group, ...]
    places: dict[str, Place]
    decayed: tuple[Decayed, ...]
    rings: tuple[Ring, ...]
    latest: tuple[Latest, ...]
    half_hours: tuple[HalfHours, ...]
    fingerprint: str

    @property
    def names(self) -> tuple[str, ...]:
        """Of the features, in the order of the vector."""
        return tuple(feature.name for feature in self.features)

    @property
    def bytes_per_user(self) -> int:
        """In columns; the index of user ids comes on top."""
        return sum(group.width * group.dtype.itemsize for group in self.groups)

    def group_of(self, dtype: Any) -> int | None:
        """The index of the group of a dtype, where there is one."""
        wanted = np.dtype(dtype)
        return next((index for index, group in enumerate(self.groups) if group.dtype == wanted), None)


def compile_layout(
    features: Iterable[AnyFeature],
    extras: Sequence[Extra] = (),
    *,
    lateness_ms: int = 2 * DAY_MS,
    dedupe_depth: int = 16,
) -> Layout:
    """Columns for `features` and `extras`; `dedupe_depth` recent event ids a user, 0 for none.

    Raises ValueError for extras that collide, are not numeric, or for a negative depth or lateness.
    """
    if dedupe_depth < 0 or lateness_ms < 0:
        raise ValueError("dedupe_depth and lateness_ms must not be negative")
    compiler = _Compiler(lateness_ms)
    specs = tuple(features)
    readers = tuple(compiler.feature(spec) for spec in specs)
    return compiler.finish(specs, readers, tuple(extras), dedupe_depth)


@dataclass
class _Compiler:
    lateness_ms: int
    decayed: dict[str, Decayed] = field(default_factory=dict)
    rings: dict[tuple[Source, int], int] = field(default_factory=dict)
    latest: dict[str, Latest] = field(default_factory=dict)
    half_hours: dict[Measure, HalfHours] = field(default_factory=dict)
    pending: list[tuple[Source, int]] = field(default_factory=list)

    def feature(self, spec: AnyFeature) -> Reader:
        """The reader of one feature; notes the columns that it needs."""
        match spec:
            case Count():
                return Reader("value", (self._term(spec, _measure("one", spec)),))
            case Sum():
                return Reader("value", (self._term(spec, _measure(spec.field, spec)),))
            case Visits():
                return Reader("value", (self._term(spec, self._visits(spec)),))
            case Mean():
                total = self._term(spec, _measure(spec.field, spec))
                return Reader("ratio", (total, self._term(spec, _presence(spec.field, spec))))
            case Ratio():
                parts = (spec.numerator, spec.denominator)
                return Reader("ratio", tuple(self._term(spec, self._source(part)) for part in parts))
            case Recency():
                return Reader("age", column=self._latest(_measure("one", spec)))
            case Tenure():
                return Reader("age", column=FIRST)
            case Diversity() | TopShare():
                column = self._decay(_measure("one", spec), spec.half_life, spec.buckets)
                return Reader(spec.aggregate, (DecayedTerm(column, spec.half_life),))

    def _source(self, term: CountOf | SumOf | VisitsOf) -> Source:
        match term:
            case CountOf():
                return _measure("one", term)
            case SumOf():
                return _measure(term.field, term)
            case VisitsOf():
                return self._visits(term)

    def _visits(self, spec: Filter) -> HalfHours:
        measure = _measure("one", spec)
        return self.half_hours.setdefault(measure, HalfHours(measure, f"seen half-hours {measure.key}"))

    def _term(self, spec: Count | Sum | Mean | Visits | Ratio, source: Source) -> ReadTerm:
        if spec.half_life is not None:
            return DecayedTerm(self._decay(source, spec.half_life), spec.half_life)
        assert spec.window is not None and spec.tiles is not None
        tile = spec.window // spec.tiles
        # Windows over the same tiles share the longest one's ring.
        self.rings[source, tile] = max(spec.tiles, self.rings.get((source, tile), 0))
        return WindowTerm(_ring_name(source, tile), tile, spec.tiles)

    def _decay(self, source: Source, half_life: int, buckets: int = 1) -> str:
        name = f"decayed {source.key} by {half_life}ms" + (f" in {buckets} buckets" if buckets > 1 else "")
        self.decayed[name] = Decayed(name, source, half_life, buckets)
        return name

    def _latest(self, measure: Measure) -> str:
        if not measure.kinds and not measure.categories:
            return LAST
        name = f"latest {measure.key}"
        self.latest[name] = Latest(name, measure)
        return name

    def finish(
        self, specs: tuple[AnyFeature, ...], readers: tuple[Reader, ...], extras: tuple[Extra, ...], dedupe_depth: int
    ) -> Layout:
        """Lay the noted columns out."""
        decayed = tuple(sorted(self.decayed.values(), key=lambda item: (item.half_life, item.column)))
        rings = tuple(
            sorted(
                (Ring(_ring_name(source, tile), source, tile, tiles) for (source, tile), tiles in self.rings.items()),
                key=lambda ring: (ring.tile, ring.tiles, ring.column),
            )
        )
        latest = tuple(sorted(self.latest.values(), key=lambda item: item.column))
        half_hours = tuple(sorted(self.half_hours.values(), key=lambda item: item.bitmap))
        # The half-hours of the lateness, the one that it begins in and the one that the latest event is in.
        words = -(-(self.lateness_ms // HALF_HOUR_MS + 2) // WORD_BITS)
        columns = [
            Column(LAST, np.dtype("<i8"), default=NEVER),
            Column(FIRST, np.dtype("<i8"), default=NEVER),
            Column(EVENTS, np.dtype("<u4")),
            *(Column(item.column, np.dtype("<f4"), item.buckets) for item in decayed),
            *(Column(ring.column, _ring_dtype(ring), ring.tiles) for ring in rings),
            *(Column(item.column, np.dtype("<i8"), default=NEVER) for item in latest),
            *(Column(item.bitmap, np.dtype("<u8"), words, resizable=True) for item in half_hours),
        ]
        if dedupe_depth:
            columns.append(Column(RECENT_IDS, np.dtype("<u8"), dedupe_depth, resizable=True))
        columns += _extra_columns(extras)
        groups, places = _place(columns)
        return Layout(
            specs,
            readers,
            extras,
            self.lateness_ms,
            dedupe_depth,
            groups,
            places,
            decayed,
            rings,
            latest,
            half_hours,
            _fingerprint(groups),
        )


def _measure(value: str, spec: Filter) -> Measure:
    kinds = spec.kinds if len(spec.kinds) < len(KINDS) else ()
    return Measure(value, kinds, spec.categories)


def _presence(name: str, spec: Filter) -> Measure:
    """Counts the events that carry a field: all of them where it is never missing, so that the count is shared."""
    return _measure("one" if FIELDS[name].always else f"has:{name}", spec)


def _ring_name(source: Source, tile: int) -> str:
    return f"tiles {source.key} of {tile}ms"


def _ring_dtype(ring: Ring) -> np.dtype[Any]:
    # A tile can begin inside a half-hour, so it holds one more than fit.
    bounded = isinstance(ring.source, HalfHours) and ring.tile // HALF_HOUR_MS + 1 <= np.iinfo(np.uint8).max
    return np.dtype("u1") if bounded else np.dtype("<f4")


def _extra_columns(extras: Sequence[Extra]) -> list[Column]:
    columns = []
    for extra in extras:
        dtype = np.dtype(extra.dtype).newbyteorder("<")
        if dtype.kind not in "iufb":
            raise ValueError(f"extra column {extra.name!r}: dtype {extra.dtype!r} is not numeric")
        columns.append(Column(f"extra {extra.name}", dtype, default=extra.default))
    return columns


def _place(columns: Sequence[Column]) -> tuple[tuple[Group, ...], dict[str, Place]]:
    by_dtype: dict[str, list[Column]] = {}
    for column in columns:
        by_dtype.setdefault(column.dtype.str, []).append(column)
    groups: list[Group] = []
    places: dict[str, Place] = {}
    for index, members in enumerate(by_dtype.values()):
        start = 0
        for column in members:
            if column.name in places:
                raise ValueError(f"column {column.name!r} is declared twice")
            places[column.name] = Place(index, start, start + column.width)
            start += column.width
        groups.append(Group(members[0].dtype, tuple(members), start))
    return tuple(groups), places


def _fingerprint(groups: tuple[Group, ...]) -> str:
    described = [[group.dtype.str, [[c.name, c.width] for c in group.columns]] for group in groups]
    return xxhash.xxh3_64_hexdigest(orjson.dumps(described))
