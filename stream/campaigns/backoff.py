"""When to try again: one action after its attempts, and one endpoint after everybody's.

Invariant: nothing here waits for longer than a day after `now`; a time further ahead than that was set by a clock that
has been put back since, and is void. What is known of an endpoint is not worth keeping over a restart.
"""

from __future__ import annotations

from dataclasses import dataclass

import xxhash

from stream.campaigns.settings import DeliverySettings

LONGEST_PAUSE_MS = 24 * 3_600_000
FAILURES_TO_PROBE = 3
"""Failures in a row after which an endpoint gets one request at a time, now and then."""
PROBE_FIRST_MS, PROBE_LONGEST_MS = 1_000, 60_000


def backoff_ms(settings: DeliverySettings, action_id: str, attempts: int) -> int:
    """An action's wait after so many attempts: exponential, and of that between half and all, as its id decides."""
    grown = settings.retry_first * settings.retry_factor ** min(attempts - 1, 64)
    share = xxhash.xxh3_64_intdigest(f"{action_id}:{attempts}".encode()) / 2**64
    return round(min(grown, settings.retry_longest) * (0.5 + share / 2))


@dataclass(slots=True)
class Endpoint:
    """A URL or a file: what is under way there, and whether it works. Times are epoch milliseconds."""

    busy: int = 0
    failures: int = 0
    """In a row."""
    closed_until: int = 0

    @property
    def probing(self) -> bool:
        """It failed so often that it is only tried now and then."""
        return self.failures >= FAILURES_TO_PROBE

    def admits(self, now: int, slots: int) -> bool:
        """Whether one more request may begin."""
        if now < self.closed_until <= now + LONGEST_PAUSE_MS:
            return False
        return self.busy < (1 if self.probing else slots)

    def failed(self, now: int, retry_after: int = 0) -> None:
        """An attempt was in vain; the endpoint may have asked to be left alone for `retry_after` milliseconds."""
        self.failures += 1
        pause = 0
        if self.probing:
            pause = min(PROBE_LONGEST_MS, PROBE_FIRST_MS << min(self.failures - FAILURES_TO_PROBE, 16))
        held = self.closed_until if self.closed_until <= now + LONGEST_PAUSE_MS else 0
        self.closed_until = max(held, now + max(pause, retry_after))

    def works(self) -> None:
        """It has answered. A time for which it asked to be left alone still holds."""
        self.failures = 0
