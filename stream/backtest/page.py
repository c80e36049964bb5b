"""The report as one HTML file: no scripts, nothing loaded from elsewhere, every text escaped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, Final

from stream.backtest import figures
from stream.backtest.backtest import METHODS, Result
from stream.backtest.definitions import FAIRNESS, LOWER_IS_BETTER, MEASURES, TITLES, best_of, headline
from stream.backtest.definitions import METHODS as METHODS_IN_WORDS
from stream.backtest.document import iso
from stream.durations import format_duration
from stream.segments.assign import NONE

OVER_TIME: Final = ("silhouette", "eta2_next_spend", "eta2_next_purchase", "lift_best_segment", "ari_truth", "churn")

_STYLE: Final = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: #f4f6f8; color: #1f2933; font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto,
  "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 36px 20px 60px; }
h1 { font-size: 28px; line-height: 1.2; margin: 0 0 6px; letter-spacing: -0.01em; }
h2 { font-size: 18px; margin: 0 0 4px; }
.lead { color: #52606d; margin: 0 0 22px; }
section { background: #fff; border: 1px solid #e1e6eb; border-radius: 10px; padding: 20px 22px; margin: 0 0 18px;
  overflow-x: auto; }
section > p { margin: 0 0 14px; color: #52606d; max-width: 75ch; }
.tiles { display: flex; flex-wrap: wrap; gap: 12px; margin: 0 0 18px; }
.tile { flex: 1 1 150px; background: #fff; border: 1px solid #e1e6eb; border-radius: 10px; padding: 12px 16px; }
.tile b { display: block; font-size: 22px; font-weight: 650; letter-spacing: -0.01em; }
.tile span { color: #66727f; font-size: 13px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 7px 10px; text-align: right; border-bottom: 1px solid #edf0f3; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
thead th { font-weight: 600; border-bottom: 2px solid #d5dce3; }
td.ours, th.ours { background: #fdf3f0; }
td.best { font-weight: 700; }
td.best::after { content: " ●"; color: #d1432b; font-size: 10px; }
td small { color: #8794a1; }
i.key { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin-right: 6px; }
.row { display: flex; flex-wrap: wrap; gap: 10px 14px; align-items: flex-start; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 6px 18px; margin: 0; }
dt { font-weight: 600; } dd { margin: 0; color: #3e4c59; }
svg { max-width: 100%; height: auto; font-family: inherit; }
footer { color: #8794a1; font-size: 13px; }
@media (max-width: 700px) { dl { grid-template-columns: 1fr; } dd { margin-bottom: 8px; } }
"""


def page(result: Result, found: Mapping[str, Any], titles: Mapping[str, str]) -> str:
    """`found` is the document of this result; `titles` are the features' in a marketer's words."""
    source = found["source"]
    name = escape(str(source["file"]).rpartition("/")[2])
    body = "".join(_sections(result, titles))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Backtest of {name}</title><style>{_STYLE}</style></head><body><main>"
        f"<h1>Backtest of {name}</h1>"
        f'<p class="lead">{escape(_period(result))}</p>{body}'
        f"<footer>resegment {escape(str(found['resegment_version']))} · {escape(str(source['fingerprint']))}</footer>"
        "</main></body></html>\n"
    )


def _period(result: Result) -> str:
    plan = result.plan
    return (
        f"{iso(plan.start)[:10]} to {iso(plan.end)[:10]}, replayed through the live code and halted at "
        f"{len(plan.times)} checkpoints. At each, every method is judged by what people did in the next "
        f"{format_duration(plan.horizon)}."
    )


def _sections(result: Result, titles: Mapping[str, str]) -> Iterator[str]:
    colour = figures.colours(list(result.names))
    last = result.checkpoints[-1]
    churns = [one.scores["resegment"].churn for one in result.checkpoints]
    causes = [churn.by_cause for churn in churns if churn is not None and churn.by_cause is not None]
    yield _tiles(result)
    yield _section(
        "How the methods compare",
        "Over all checkpoints, on the same users at the same times. ● marks the best; – means that nobody can say.",
        _comparison(result),
    )
    yield _section("The same over time", "", f'<div class="row">{"".join(_over_time(result))}</div>' + _legend())
    yield _section(
        "Who is in which segment",
        "Shares of all users known by then. A segment keeps its colour, and its id, for as long as it lives.",
        figures.sizes(result.checkpoints, result.names, colour),
    )
    if last.profiles:
        yield _section(
            "What the segments are",
            "At the last checkpoint. Each number says how far the segment's people are from everybody, in robust "
            "standard deviations: red is more, blue is less. Point at a cell for its typical value.",
            figures.profiles(last, titles, colour),
        )
    yield _section(
        "Where people went",
        "From a checkpoint to the next, all of them added up; each row is 100% of the people who were there. Grey is "
        "staying, red is leaving.",
        _transitions(result, colour),
    )
    if len(causes) > 1:
        yield _section(
            "Why they moved",
            "Changes since the checkpoint before, for each 100 people judged: they came (entered), behaved differently "
            "(behaviour), did nothing (inactivity), the segments moved (model), or quarantine took or released them "
            "(anomaly).",
            # Without the first one: everybody entered before it, and the first models came.
            figures.churn(result.checkpoints[1:], causes[1:]),
        )
    yield _confidence(result)
    if result.verdict is not None:
        yield _truth(result, colour)
    yield _section("What the figures mean", FAIRNESS, _definitions())


def _tiles(result: Result) -> str:
    history, ledger = result.history, result.ledger
    shown = (
        (f"{history.rows:,}", "rows of data"),
        (f"{len(history.users):,}", "users"),
        (f"{ledger.segments}", "learned segments at the end"),
        (f"{result.checkpoints[-1].model_version}", "versions of the model"),
        (f"{ledger.changes:,}", "segment changes"),
        (f"{ledger.anomalies:,}", "times somebody was put into quarantine"),
    )
    return (
        '<div class="tiles">'
        + "".join(f'<div class="tile"><b>{n}</b><span>{w}</span></div>' for n, w in shown)
        + "</div>"
    )


def _section(title: str, words: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{f'<p>{escape(words)}</p>' if words else ''}{content}</section>"


def _key(name: str) -> str:
    return f'<i class="key" style="background:{figures.METHOD_COLOURS[name]}"></i>{escape(name)}'


def _comparison(result: Result) -> str:
    head = "".join(f'<th{_ours(name)} title="{escape(METHODS_IN_WORDS[name])}">{_key(name)}</th>' for name in METHODS)
    rows = []
    for measure, title in TITLES.items():
        values = [headline(result.overall[name], measure) for name in METHODS]
        best = best_of(values, measure)
        cells = []
        for i, (name, value) in enumerate(zip(METHODS, values, strict=True)):
            marks = " ".join(m for m, yes in (("ours", name == "resegment"), ("best", i in best)) if yes)
            cells.append(f'<td class="{marks}">{_figure(value, measure)}</td>')
        direction = "lower is better" if measure in LOWER_IS_BETTER else "higher is better"
        label = f'<td title="{escape(MEASURES[measure])}">{escape(title)} <small>{direction}</small></td>'
        rows.append(f"<tr>{label}{''.join(cells)}</tr>")
    return f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _ours(name: str) -> str:
    return ' class="ours"' if name == "resegment" else ""


def _figure(value: float | None, measure: str) -> str:
    if value is None:
        return "<small>–</small>"
    return (
        f"{value:.1%}"
        if measure == "churn"
        else f"{value:.2f}"
        if measure.startswith(("lift", "flips"))
        else f"{value:.3f}"
    )


def _over_time(result: Result) -> Iterator[str]:
    times = [one.at_ms for one in result.checkpoints]
    for measure in OVER_TIME:
        values = {name: [headline(one.scores[name], measure) for one in result.checkpoints] for name in METHODS}
        if any(value is not None for one in values.values() for value in one):
            yield figures.series(TITLES[measure], times, values)


def _legend() -> str:
    return (
        '<div class="row" style="margin-top:8px">'
        + "".join(f"<span>{_key(name)}</span>" for name in METHODS)
        + "</div>"
    )


def _transitions(result: Result, colour: Mapping[int, str]) -> str:
    transitions = result.transitions
    # People without a segment come first, and nobody goes there: their column would be empty.
    order = sorted(
        range(len(transitions.segments)), key=lambda i: (transitions.segments[i] <= NONE, abs(transitions.segments[i]))
    )
    segments = [transitions.segments[i] for i in order]
    names = [result.names[segment] for segment in segments]
    counts = transitions.counts[order][:, order]
    return figures.matrix(
        names, names, counts, row_colours=[colour[s] for s in segments], title="Transitions between segments", same=True
    )


def _confidence(result: Result) -> str:
    after = format_duration(result.stay_ms)
    curves = {f"still there {after} later": result.stays}
    words = (
        "Every change is published with a confidence. On the dashed line it keeps its word: of the changes with 80%, "
        "four in five hold. Since the first checkpoint; dots are as large as the number of changes behind them."
    )
    if result.verdict is not None:
        curves["the true persona's segment"] = result.verdict.right
    errors = ", ".join(
        f"{name}: expected calibration error {curve.error:.3f}"
        for name, curve in curves.items()
        if curve.error is not None
    )
    return _section(
        "Can the confidence be believed?",
        words,
        figures.reliability(curves) + f"<p><small>{escape(errors)}</small></p>",
    )


def _truth(result: Result, colour: Mapping[int, str]) -> str:
    assert result.verdict is not None
    following, crosstab = result.verdict.following, result.verdict.crosstab
    words = f"{following.moves:,} people truly became another persona between the first and the last checkpoint. "
    if (missed := following.missed_share) is not None:
        words += (
            f"Of the {following.followed + following.missed:,} moves that could be seen, {missed:.1%} were missed; "
            + (
                f"the others took {following.delay_looks:.0f} looks ({following.delay_days:.1f} days) at the median. "
                if following.followed
                else ""
            )
        )
    words += (
        f"The rest could not be seen: {following.there_already:,} were in the right segment before, "
        f"{following.unseen:,} were hardly there afterwards, and the new persona of {following.homeless:,} has no "
        "segment of its own. "
    )
    if (missed := result.verdict.oracle.missed_share) is not None:
        words += f"The oracle missed {missed:.1%} of its moves: so much the features do not show in time. "
    words += "Below: true personas of the people in each segment at the last checkpoint."
    return _section(
        "Against the truth",
        words,
        figures.matrix(
            [result.names[segment] for segment in crosstab.segments],
            [persona.replace("_", " ") for persona in crosstab.personas],
            crosstab.counts,
            row_colours=[colour[segment] for segment in crosstab.segments],
            title="Segments and true personas",
            same=False,
        ),
    )


def _definitions() -> str:
    entries = [(TITLES[measure], words) for measure, words in MEASURES.items()]
    entries += list(METHODS_IN_WORDS.items())
    return "<dl>" + "".join(f"<dt>{escape(term)}</dt><dd>{escape(words)}</dd>" for term, words in entries) + "</dl>"
