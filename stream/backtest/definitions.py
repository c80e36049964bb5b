"""What the measures and the methods are, in words for the reports; the formulas are in metrics.py and track.py."""

from __future__ import annotations

from typing import Final

from stream.backtest.track import Scores

METHODS: Final = {
    "resegment": "The live segments: learned online, decided calmly, ids that last.",
    "oracle": "k-means fitted anew to everybody at every checkpoint (k-means++, 10 starts, as many cells as segments "
    "are configured), its ids matched from one checkpoint to the next. It sees what a stream cannot.",
    "rfm8": "Recency, frequency and monetary value of purchases, each above its median or not: 8 cells.",
    "rfm25": "Fifths of recency by fifths of frequency of purchases: 25 cells.",
    "naive": "River's StandardScaler | KMeans with its defaults, taught at every event of a sample of users.",
}

MEASURES: Final = {
    "silhouette": "How much nearer people are to their own cell than to the next one, -1 to 1, on the scaled features "
    "(a sample of 2,000).",
    "eta2_next_spend": "Share of the variance of log(1 + spend in the next period) that the cells explain.",
    "eta2_next_purchase": "The same of whether somebody buys at all.",
    "lift_best_segment": "P(buys next | segment) / P(buys next), of the best segment with at least 10% of the people.",
    "ari_truth": "Adjusted Rand index against the true personas of people; 1 is perfect, 0 is chance.",
    "id_continuity": "ARI of all checkpoints together over the mean of each one's own: 1 if ids keep their meaning.",
    "flips_per_true_move": "Changes from a segment to another one for each person who truly became another persona. "
    "Oracle and RFM label at checkpoints only, so they count those.",
    "churn": "share_moved: of those judged at two checkpoints in a row, how many have another label; "
    "flips_per_user_day: changes from a segment to another one for each user and day; by_cause: changes of any kind.",
}

TITLES: Final = {
    "silhouette": "Silhouette",
    "eta2_next_spend": "η² next spend",
    "eta2_next_purchase": "η² next purchase",
    "lift_best_segment": "Lift, best segment",
    "ari_truth": "ARI, truth",
    "id_continuity": "Id continuity",
    "flips_per_true_move": "Flips per true move",
    "churn": "Moved per checkpoint",
}

LOWER_IS_BETTER: Final = frozenset({"flips_per_true_move", "churn"})

FAIRNESS: Final = (
    "All methods are judged on the same users at the same times: everybody who is no newcomer at the checkpoint "
    "(few events, and for a while only). People in quarantine, and those without a segment yet, are judged too: for "
    "resegment they are cells of their own. Overall figures are means over the checkpoints; flips and changes are "
    "totals. What happens in the next period is counted from events that had not arrived at the checkpoint, and all "
    "events that had are all that any method sees."
)


def headline(scores: Scores, measure: str) -> float | None:
    """A measure's one number."""
    value = getattr(scores, measure)
    return None if value is None else value.share_moved if measure == "churn" else value


def best_of(values: list[float | None], measure: str) -> set[int]:
    """Which of the values are the best one."""
    known = [value for value in values if value is not None]
    if not known:
        return set()
    best = min(known) if measure in LOWER_IS_BETTER else max(known)
    return {i for i, value in enumerate(values) if value == best}
