"""The bars, and what was measured against each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.quality import forest, shops, vectors
from stream.backtest.backtest import Result
from stream.backtest.moves import Following


@dataclass(frozen=True, slots=True)
class Bar:
    """One line of the table."""

    what: str
    target: str
    figure: str
    met: bool | None
    """None where there is no bar, only a figure."""
    seeds: tuple[float, ...] = field(default=())


def of_vectors(scenario: str, found: Sequence[vectors.Found]) -> list[Bar]:
    """Of worlds of vectors, one a seed."""
    where = f"vectors, {scenario}"
    ratio = [one.ari / one.oracle for one in found]
    argmin = [one.ari_argmin / one.oracle for one in found]
    bars = [
        _least(f"{where}: window ARI over the refit oracle's", 0.98, ratio),
        Bar(f"{where}: the same of the nearest prototype alone", "", _told(argmin), None, tuple(argmin)),
    ]
    stuck = sum(one.stuck for one in found)
    bars.append(Bar(f"{where}: seeds stuck at the end", "0", f"{stuck} of {len(found)}", stuck == 0))
    bars.append(_least(f"{where}: id continuity", 0.97, [one.id_continuity for one in found]))
    spurious = sum(one.spurious for one in found)
    bars.append(Bar(f"{where}: spurious ids", "0", f"{spurious} in {len(found)} seeds", spurious == 0))
    moves = sum(one.moves for one in found)
    flips, by_model = sum(one.flips for one in found), sum(one.flips_by_model for one in found)
    alone = sum(one.flips_argmin for one in found)
    bars.append(_most(f"{where}: flips per true move", 1.3, [one.flips / one.moves for one in found], flips / moves))
    bars.append(
        Bar(
            f"{where}: of them by new versions, and of the nearest prototype alone",
            "",
            f"{by_model / moves:.2f}, {alone / moves:.1f}",
            None,
        )
    )
    return [*bars, *_following(where, [one.following for one in found])]


def of_shops(scenario: str, found: Sequence[shops.Found]) -> list[Bar]:
    """Of shops, one a seed."""
    where = f"shop, {scenario}"
    ours = [one.result.overall["resegment"] for one in found]
    flips = [score.flips_per_true_move or 0.0 for score in ours]
    ever = [one.held_ever / one.people for one in found]
    caught, bots = sum(one.caught for one in found), sum(one.bots for one in found)
    verdicts = [one.result.verdict.following for one in found if one.result.verdict is not None]
    new_ids = [float(one.new_ids) for one in found]
    errors = [one.result.stays.error for one in found if one.result.stays.error is not None]
    changes = scenario == "birth_death"
    return [
        _least(f"{where}: window ARI over the refit oracle's", 0.98, [one.ari_ratio for one in found]),
        _least(f"{where}: id continuity", 0.97, [score.id_continuity or 0.0 for score in ours]),
        Bar(
            f"{where}: ids born or split after the first checkpoint",
            "" if changes else "0",
            f"{sum(new_ids):.0f} in {len(found)} seeds",
            None if changes else not any(new_ids),
            tuple(new_ids),
        ),
        _most(f"{where}: flips per true move", 1.3, flips),
        *_following(where, verdicts),
        *_oracle(where, found),
        Bar(f"{where}: calibration error of the confidence", "", _told(errors), None, tuple(errors)),
        _least(f"{where}: AUC of bots against people", 0.97, [one.auc for one in found]),
        Bar(f"{where}: bots that were held", "", f"{caught} of {bots}", None),
        _most(f"{where}: share of people held, at a time", 0.005, [one.held_now for one in found]),
        Bar(f"{where}: share of people ever held", "", _told(ever, 4), None, tuple(ever)),
    ]


def of_forest(found: forest.Found) -> list[Bar]:
    """Of Shuttle."""
    return [
        _least("forest on Shuttle: AUC", 0.99, [found.auc]),
        Bar("forest on Shuttle: average precision", "", f"{found.precision:.3f}", None),
        Bar("forest on Shuttle: the same bits as River", "yes", "yes" if found.bit_equal else "no", found.bit_equal),
    ]


def of_history(name: str, result: Result) -> list[Bar]:
    """Of a real history: the bar is what the others reach there."""
    ours, oracle, rfm8 = (result.overall[method] for method in ("resegment", "oracle", "rfm8"))
    bars: list[Bar] = []
    if ours.eta2_next_spend is not None and oracle.eta2_next_spend is not None and rfm8.eta2_next_spend is not None:
        bars += [
            _against(
                f"{name}: η² of next spend, against the refit oracle", ours.eta2_next_spend, oracle.eta2_next_spend
            ),
            _against(f"{name}: η² of next spend, against RFM in 8 cells", ours.eta2_next_spend, rfm8.eta2_next_spend),
        ]
    else:
        last = {method: scores.lift_best_segment for method, scores in result.checkpoints[-1].scores.items()}
        rfm = max(last["rfm8"] or 0.0, last["rfm25"] or 0.0)
        mine = last["resegment"] or 0.0
        bars += [
            _against(f"{name}: lift at the last checkpoint, against the refit oracle", mine, last["oracle"] or 0.0),
            _against(f"{name}: lift at the last checkpoint, against the better RFM", mine, rfm),
        ]
    return bars


def _oracle(where: str, found: Sequence[shops.Found]) -> list[Bar]:
    """What could be followed at all from these features: by k-means refitted to everybody at every checkpoint."""
    verdicts = [one.result.verdict.oracle for one in found if one.result.verdict is not None]
    flips = [one.result.overall["oracle"].flips_per_true_move or 0.0 for one in found]
    missed = sum(one.missed for one in verdicts)
    could = missed + sum(one.followed for one in verdicts)
    share = f"{missed / could:.1%} of {could}" if could else "–"
    return [
        Bar(f"{where}: flips per true move of the refit oracle", "", _told(flips, 2), None, tuple(flips)),
        Bar(f"{where}: movers missed by the refit oracle", "", share, None),
    ]


def _following(where: str, found: Sequence[Following]) -> list[Bar]:
    missed = sum(one.missed for one in found)
    could = missed + sum(one.followed for one in found)
    delays = [one.delay_looks for one in found if one.delay_looks is not None]
    share = missed / could if could else 0.0
    return [
        _most(f"{where}: median delay, looks", 2.0, delays, float(np.median(delays)) if delays else 0.0),
        Bar(f"{where}: movers missed", "≤ 2%", f"{share:.1%} of {could}", share <= 0.02),
    ]


def _least(what: str, target: float, values: Sequence[float]) -> Bar:
    return Bar(what, f"≥ {target:g}", _told(values), float(np.mean(values)) >= target, tuple(values))


def _most(what: str, target: float, values: Sequence[float], overall: float | None = None) -> Bar:
    middle = float(np.mean(values)) if overall is None else overall
    digits = 4 if target < 0.1 else 2
    return Bar(what, f"≤ {target:g}", _told(values, digits, middle), middle <= target, tuple(values))


def _against(what: str, ours: float, theirs: float) -> Bar:
    return Bar(what, f"> {theirs:.3f}", f"{ours:.3f}", ours >= theirs, (ours, theirs))


def _told(values: Sequence[float], digits: int = 3, middle: float | None = None) -> str:
    """The mean, and the worst and best where there are several."""
    if not values:
        return "–"
    mean = float(np.mean(values)) if middle is None else middle
    if len(values) == 1:
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"
