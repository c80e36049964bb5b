"""Gates: what may hold an action back after a rule has fired. The cap is the first; consent and holdouts fit the seam.

A gate owns no state: its rows live in the partition's table under its own name, so that they are restored and
committed with everything else. A person's changes all come through one partition, so a cap counts exactly.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from schemas.change import SegmentChange
from stream.campaigns.rules import Campaign
from stream.campaigns.table import Row, StateTable

_SEPARATOR = "\x1f"


class Gate(ABC):
    """Decides whether a campaign that fired may act on a user now."""

    name: str
    """Prefix of its keys, and label of what it held back."""

    @abstractmethod
    def admits(self, table: StateTable, campaign: Campaign, change: SegmentChange, now: int) -> bool:
        """Whether the action may go ahead at `now` (epoch milliseconds). Changes nothing."""

    def fired(self, table: StateTable, campaign: Campaign, change: SegmentChange, now: int) -> None:  # noqa: B027
        """Every gate admitted it and the action goes out: remember what is needed."""

    def expired(self, row: Row, now: int) -> bool:
        """Whether a row can no longer change an answer, so that it may be forgotten."""
        return False

    def key(self, *parts: str) -> str:
        """Of a row of this gate. Only the last part may hold arbitrary text."""
        return _SEPARATOR.join((self.name, *parts))

    def owns(self, key: str) -> bool:
        """Whether a row is this gate's."""
        return key.startswith(self.name + _SEPARATOR)


class Caps(Gate):
    """At most `at_most` actions of one campaign for one user within any `per` before now.

    Row: [time at which it expires, times of the last actions ...]. A time ahead of now (the clock was set back)
    counts, so that a clock step never mails anybody twice.
    """

    name = "cap"

    def admits(self, table: StateTable, campaign: Campaign, change: SegmentChange, now: int) -> bool:
        """Fewer than `at_most` within the window (now - per, now]."""
        cap = campaign.cap
        if cap is None:
            return True
        row = table.get(self.key(campaign.name, change.user_id))
        return row is None or sum(time > now - cap.per for time in row[1:]) < cap.at_most

    def fired(self, table: StateTable, campaign: Campaign, change: SegmentChange, now: int) -> None:
        """Note the time; older ones than the cap can count are let go."""
        cap = campaign.cap
        if cap is None:
            return
        key = self.key(campaign.name, change.user_id)
        times = [*(table.get(key) or [0])[1:], now][-cap.at_most :]
        table.put(key, [max(times) + cap.per, *times])

    def expired(self, row: Row, now: int) -> bool:
        """Past the end of the window that the newest action opened."""
        return bool(row[0] <= now)
