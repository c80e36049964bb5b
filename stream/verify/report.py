"""What a verification found, and how much it looked at."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any, Final

SHOWN: Final = 50
"""Findings of one kind that are kept; the rest is counted. One broken thing can show in every user."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One invariant that does not hold at one place."""

    check: str
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.check}: {self.where}: {self.what}"


@dataclass(slots=True)
class Report:
    """Findings by check, counts of what was read, and notes on what could not be checked to the last record."""

    findings: list[Finding] = field(default_factory=list)
    found: Counter[str] = field(default_factory=Counter)
    """How many findings of each check there are, the ones not kept included."""
    checked: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    still: bool = True
    """Nothing was written meanwhile: everything was compared exactly, and not within bounds."""

    @property
    def ok(self) -> bool:
        """Nothing was found."""
        return not self.found

    def add(self, check: str, where: str, what: str) -> None:
        """A finding."""
        self.found[check] += 1
        if self.found[check] <= SHOWN:
            self.findings.append(Finding(check, where, what))

    def note(self, text: str) -> None:
        """Something that a person should know; each text once."""
        if text not in self.notes:
            self.notes.append(text)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "ok": self.ok,
            "still": self.still,
            "findings": [asdict(one) for one in self.findings],
            "found": dict(self.found),
            "checked": dict(self.checked),
            "notes": self.notes,
        }
