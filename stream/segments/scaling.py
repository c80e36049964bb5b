"""The scale that segments live on: signed log, robust z-score, clip. Frozen within a model version.

Invariant: `transform` is row by row (no row depends on another, nor on the size of the batch), monotone in every
feature, bounded by ±clip times the feature's weight, and never gives NaN or infinity: what is missing is 0, neutral.

Why not the textbook MAD: shop features are inflated with zeros (most people have no review, no refund, no purchase
this hour), and a decayed sum makes those zeros tiny positive numbers. MAD and IQR are then 0, or worse, 1e-6, and
everybody who did anything ends up at the clip. So the spread is the larger of three: the MAD and the IQR, which are
right for a bulk, and the standard deviation after winsorising at 1% and 99%, which sees a minority of any kind and
still no handful of bots. Rare behaviour (under 10% of people) is floored so that a typical active user is at z = 3:
dividing by the standard deviation of a thing that one user in 500 does would put them at 20 and let them decide
the segments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from schemas.model import FeatureScale

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

CLIP: Final = 8.0
WINSOR: Final = 0.01
RARE_Z: Final = 3.0
SKEW: Final = 1.0
MAD_TO_SIGMA: Final = 1.4826
IQR_TO_SIGMA: Final = 0.7413
ROUNDING: Final = 1e-9
"""Differences below this share of a feature's size are rounding, not differences between people."""
NEGLIGIBLE: Final = 1e-3
"""Of counts, days, money, stars and shares: what is left of a decayed event after ten half-lives is no behaviour."""


class FeatureInfo(Protocol):
    """What learning needs to know of a declared feature (stream.features.spec.FeatureSpec has it)."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def title(self) -> str:
        """In a marketer's words."""
        ...

    @property
    def log(self) -> bool | None:
        """Scale by logarithm: yes, no, or (None) as the data's skew says."""
        ...

    @property
    def learn(self) -> bool:
        """Whether segments are learned from it; if not it is only reported."""
        ...

    @property
    def weight(self) -> float:
        """How much it counts among those that segments are learned from; 1 is usual."""
        ...


@dataclass(frozen=True, slots=True)
class Feature:
    """A plain FeatureInfo, for tests and tools."""

    name: str
    title: str = ""
    log: bool | None = None
    learn: bool = True
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class AffineMap:
    """Takes points from one scaler's axes to another's, apart from the clip: `z * slope + shift`, per axis."""

    slope: FloatArray
    shift: FloatArray

    def __call__(self, points: FloatArray) -> FloatArray:
        """Map (n, d) points."""
        return points * self.slope + self.shift


@dataclass(frozen=True, slots=True, eq=False)
class Scaler:
    """Columns of length F, one entry a feature. Axis j of the scaled space is feature j, so d = F."""

    features: tuple[str, ...]
    log: BoolArray
    centre: FloatArray
    spread: FloatArray
    weight: FloatArray
    clip: float = CLIP

    @classmethod
    def fit(
        cls,
        x: FloatArray,
        features: Sequence[FeatureInfo],
        weights: FloatArray | None = None,
        log: Mapping[str, bool] | None = None,
        clip: float = CLIP,
    ) -> Scaler:
        """Learn the scale from a population.

        Parameters: `x` (m, F) with NaN where unknown; `weights` (m,) of the rows (how many people each stands for);
        `log` by feature keeps an earlier choice, because a scale whose kind changes is no affine map of the old one.
        A feature that is the same for everybody, or unknown for everybody, or not to be learned, gets weight 0.
        """
        if x.ndim != 2 or x.shape[1] != len(features):
            raise ValueError(f"expected a matrix of {len(features)} features, got one of shape {x.shape}")
        if np.isinf(x).any():
            raise ValueError("features must be finite, or NaN where unknown; found infinity")
        rows = np.ones(len(x)) if weights is None else weights
        earlier = log or {}
        chosen = np.array(
            [earlier[f.name] if f.name in earlier else _wants_log(f.log, x[:, j]) for j, f in enumerate(features)], bool
        )
        t = _transform(x, chosen)
        scales = [_centre_and_spread(t[:, j], rows) for j in range(len(features))]
        spread = np.array([s for _, s in scales], np.float64)
        wanted = np.array([f.weight if f.learn else 0.0 for f in features], np.float64)
        return cls(
            features=tuple(f.name for f in features),
            log=chosen,
            centre=np.array([c for c, _ in scales], np.float64),
            spread=np.where(spread > 0, spread, 1.0),
            weight=np.where(spread > 0, wanted, 0.0),
            clip=clip,
        )

    def transform(self, x: FloatArray) -> FloatArray:
        """(m, F) features to (m, d) scaled coordinates, C-contiguous; NaN becomes 0."""
        z = self.standardise(x)
        z *= self.weight
        return z

    def standardise(self, x: FloatArray) -> FloatArray:
        """The same without the weights: robust standard deviations from the population, also for inert features."""
        z = _transform(x, self.log)
        z -= self.centre
        z /= self.spread
        np.clip(z, -self.clip, self.clip, out=z)
        # fmax and fmin would be shorter, but they turn NaN into the clip.
        z[np.isnan(z)] = 0.0
        return z

    def inverse(self, z: FloatArray) -> FloatArray:
        """Scaled points (n, d) back to feature units (n, F); NaN for features of weight 0."""
        with np.errstate(divide="ignore", invalid="ignore"):
            unweighted = np.where(self.weight > 0, z / self.weight, np.nan)
        t = unweighted * self.spread + self.centre
        return np.where(self.log, np.copysign(np.expm1(np.abs(t)), t), t)

    @property
    def active(self) -> NDArray[np.intp]:
        """Axes that can differ between people."""
        return np.flatnonzero(self.weight > 0)

    def map_to(self, other: Scaler) -> AffineMap:
        """The exact map of this scaler's axes to the other's, so that a refreshed scale loses no learned centre.

        An axis that was inert here starts at the other's 0, its median. Raises ValueError where the features, or
        the kind of scale of one that is active in both, differ.
        """
        alive = (self.weight > 0) & (other.weight > 0)
        if self.features != other.features or not np.array_equal(self.log[alive], other.log[alive]):
            raise ValueError("these scalers have different features or kinds of scale; fit with log= of the first")
        gain = np.divide(other.weight, self.weight, out=np.zeros_like(self.weight), where=alive)
        slope = gain * (self.spread / other.spread)
        shift = np.where(alive, other.weight * ((self.centre - other.centre) / other.spread), 0.0)
        return AffineMap(slope, shift)

    @property
    def log_choices(self) -> dict[str, bool]:
        """By feature, for `fit`; only of features that anybody has ever differed in."""
        return {f: bool(g) for f, g, w in zip(self.features, self.log, self.weight, strict=True) if w > 0}

    def aligned(self, features: Sequence[FeatureInfo]) -> Scaler:
        """The same scale for another list of features: one that it does not know is inert until the next fit."""
        known = {name: j for j, name in enumerate(self.features)}
        columns = np.array([known.get(f.name, -1) for f in features], np.intp)

        def pick(values: NDArray[Any], default: float) -> NDArray[Any]:
            return np.where(columns >= 0, values[columns], default).astype(values.dtype)

        return Scaler(
            features=tuple(f.name for f in features),
            log=pick(self.log, False),
            centre=pick(self.centre, 0.0),
            spread=pick(self.spread, 1.0),
            weight=pick(self.weight, 0.0),
            clip=self.clip,
        )

    def moved(self, other: Scaler) -> float:
        """How far the other scale is, in the worst feature: shift of the centre in spreads, or log of the spreads'
        ratio, whichever is larger; infinite where a feature came alive or died."""
        if not np.array_equal(self.weight > 0, other.weight > 0):
            return float("inf")
        active = self.active
        if not len(active):
            return 0.0
        a, b = self.spread[active], other.spread[active]
        shift = np.abs(self.centre[active] - other.centre[active]) / np.minimum(a, b)
        return float(np.maximum(shift, np.abs(np.log(a / b))).max())

    def to_scales(self) -> tuple[FeatureScale, ...]:
        """As published."""
        return tuple(
            FeatureScale(feature=n, log=bool(g), centre=float(c), spread=float(s), weight=float(w))
            for n, g, c, s, w in zip(self.features, self.log, self.centre, self.spread, self.weight, strict=True)
        )

    @classmethod
    def from_scales(cls, scales: Sequence[FeatureScale], clip: float) -> Scaler:
        """The inverse of `to_scales`, to the bit."""
        return cls(
            features=tuple(s.feature for s in scales),
            log=np.array([s.log for s in scales], bool),
            centre=np.array([s.centre for s in scales], np.float64),
            spread=np.array([s.spread for s in scales], np.float64),
            weight=np.array([s.weight for s in scales], np.float64),
            clip=clip,
        )


def weighted_quantiles(values: FloatArray, weights: FloatArray, q: Sequence[float]) -> FloatArray:
    """Quantiles of weighted values: the smallest value with at least that share of the weight at or below it."""
    order = np.argsort(values, kind="stable")
    cumulative = np.cumsum(weights[order])
    # Rounding must not push a quantile past the end, nor 0.5 of four equal weights to the third.
    at = np.searchsorted(cumulative, np.asarray(q) * cumulative[-1] * (1.0 - 1e-12), side="left")
    result: FloatArray = values[order][np.minimum(at, len(values) - 1)]
    return result


def _transform(x: FloatArray, log: BoolArray) -> FloatArray:
    """A new C-contiguous array; the log columns as sign(x) * log1p(|x|)."""
    # One pass over everything: masks cost more than the logarithms they save.
    t = np.array(x, dtype=np.float64, order="C")
    if log.all():
        return np.copysign(np.log1p(np.abs(t)), t)
    columns = np.flatnonzero(log)
    part = t[:, columns]
    t[:, columns] = np.copysign(np.log1p(np.abs(part)), part)
    return t


def _wants_log(hint: bool | None, values: FloatArray) -> bool:
    """Whether a feature is skewed enough to be read on a logarithmic scale (never one that is mostly negative)."""
    if hint is not None:
        return hint
    known = values[~np.isnan(values)]
    if len(known) < 3 or np.quantile(known, 0.25) < 0:
        return False
    low, high = np.quantile(known, [WINSOR, 1 - WINSOR])
    clipped = np.clip(known, low, high)
    deviation = clipped - clipped.mean()
    sigma = float(np.sqrt(np.mean(deviation**2)))
    # Divided first: the cube of a tiny spread is 0.
    return sigma > 0 and float(np.mean((deviation / sigma) ** 3)) > SKEW


def _centre_and_spread(t: FloatArray, weights: FloatArray) -> tuple[float, float]:
    """Of one feature on its (log) axis; spread 0 means the same for everybody."""
    known = ~np.isnan(t)
    t, weights = t[known], weights[known]
    if not len(t):
        return 0.0, 0.0
    low, lower, centre, upper, high = weighted_quantiles(t, weights, [WINSOR, 0.25, 0.5, 0.75, 1 - WINSOR]).tolist()
    if t.min() == t.max():
        return centre, 0.0
    mad = float(weighted_quantiles(np.abs(t - centre), weights, [0.5])[0]) * MAD_TO_SIGMA
    iqr = (upper - lower) * IQR_TO_SIGMA
    clipped = np.clip(t, low, high)
    mean = float(np.average(clipped, weights=weights))
    sigma = float(np.sqrt(np.average((clipped - mean) ** 2, weights=weights)))
    away = np.abs(t - centre)
    if away.max() <= ROUNDING * max(1.0, abs(centre)):
        return centre, 0.0
    different = away > NEGLIGIBLE
    if not different.any():  # a feature of tiny numbers
        different = away > 0
    typical = float(weighted_quantiles(away[different], weights[different], [0.5])[0])
    return centre, max(mad, iqr, sigma, typical / RARE_Z)
