"""Reads features out of columns: float64, one row a user, in the order of the declared features.

NaN means unknown; infinity never occurs. Every value is a function of the columns and of the time T alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from stream.features import decay
from stream.features.batch import Floats, Ints
from stream.features.layout import DAY_MS, LAST, NEVER, DecayedTerm, Layout, Reader, ReadTerm
from stream.features.windows import window_sums

Arrays = Sequence[npt.NDArray[Any]]


def evaluate(layout: Layout, arrays: Arrays, at_ms: int | Ints, wanted: Sequence[int] | None = None) -> Floats:
    """Feature vectors (m, F) at `at_ms` of the users whose columns `arrays` holds, (m, width) for each group.

    `at_ms` is one time for all, or (m,).

    A user is never looked at before the latest event: then its time counts. Features that are not `wanted` (all are
    by default) stay NaN.
    """
    return _Evaluation(layout, arrays, at_ms).vectors(wanted)


class _Evaluation:
    """One evaluation; terms that several features read are computed once."""

    def __init__(self, layout: Layout, arrays: Arrays, at_ms: int | Ints) -> None:
        self._layout = layout
        self._arrays = arrays
        self._latest: Ints = self._column(LAST)[:, 0]
        self._at: Ints = np.maximum(self._latest, at_ms)
        self._fades: dict[int, Floats] = {}
        self._terms: dict[ReadTerm, Floats] = {}
        self._spreads: dict[DecayedTerm, dict[str, Floats]] = {}

    def vectors(self, wanted: Sequence[int] | None) -> Floats:
        readers = self._layout.readers
        result = np.empty((len(self._latest), len(readers)))
        if wanted is None:
            wanted = range(len(readers))
        elif len(wanted) < len(readers):
            result.fill(np.nan)
        for index in wanted:
            result[:, index] = self._feature(readers[index])
        return result

    def _feature(self, reader: Reader) -> Floats:
        match reader.how:
            case "value":
                return self._term(reader.terms[0])
            case "ratio":
                return _ratio(*(self._term(term) for term in reader.terms))
            case "age":
                return self._age(reader.column)
            case _:
                return self._spread(reader)

    def _column(self, name: str) -> npt.NDArray[Any]:
        place = self._layout.places[name]
        return self._arrays[place.group][:, place.start : place.stop]

    def _fade(self, half_life: int) -> Floats:
        if half_life not in self._fades:
            self._fades[half_life] = decay.fade(self._latest, self._at, half_life)
        return self._fades[half_life]

    def _term(self, term: ReadTerm) -> Floats:
        if term not in self._terms:
            column = self._column(term.column)
            self._terms[term] = (
                column[:, 0] * self._fade(term.half_life)
                if isinstance(term, DecayedTerm)
                else window_sums(column, self._latest, self._at, term.tile, term.tiles)
            )
        return self._terms[term]

    def _age(self, column: str) -> Floats:
        since = self._column(column)[:, 0]
        known = since != NEVER
        return np.where(known, (self._at - np.where(known, since, 0)) / DAY_MS, np.nan)

    def _spread(self, reader: Reader) -> Floats:
        (term,) = reader.terms
        assert isinstance(term, DecayedTerm)
        if term not in self._spreads:
            self._spreads[term] = _spread(self._column(term.column), self._fade(term.half_life))
        return self._spreads[term][reader.how]


def _spread(buckets: npt.NDArray[np.float32], fade: Floats) -> dict[str, Floats]:
    """Both features of the shares of buckets (m, n); fading changes the weight behind them, not the shares."""
    # A row a bucket: reducing over contiguous rows is three times faster than over short ones.
    shares = np.array(buckets.T, order="C")
    total = np.add.reduce(shares, axis=0)
    known = total * fade >= decay.FORGOTTEN
    shares /= np.where(known, total, np.float32(1))
    entropy = -np.add.reduce(shares * np.log(np.maximum(shares, np.finfo(np.float32).tiny)), axis=0)
    return {
        "diversity": np.where(known, np.exp(entropy, dtype=np.float64), np.nan),
        "top_share": np.where(known, np.maximum.reduce(shares, axis=0), np.nan),
    }


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    known = np.abs(denominator) >= decay.FORGOTTEN
    return np.where(known, numerator / np.where(known, denominator, 1.0), np.nan)
