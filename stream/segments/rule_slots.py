"""Which bit of a user's row means which rule, and what is under way since the rules were edited.

Invariants. A bit keeps its meaning for as long as anybody can have it set: a rule that was taken out keeps its bit
until every user was looked at since, and only then may another rule have it. So rows that were written at different
times agree, and the order of the rules in the configuration means nothing. Each edit begins an `epoch`; a row carries
the epoch in which its rules were last decided, so that what the edit moves is told apart from what people do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.features.layout import Extra
from stream.features.table import UserTable
from stream.segments.rules import MAX_RULES

WORD_BITS: Final = 64
WORDS: Final = MAX_RULES // WORD_BITS

EPOCH: Final = "rule_epoch"
_WORD_NAMES: Final = tuple(f"rules_{word}" for word in range(WORDS))

COLUMNS: Final = (*(Extra(name, "<u8") for name in _WORD_NAMES), Extra(EPOCH, "<i4"))
"""What is kept of a user: WORDS words of bits, and the epoch."""

Rows = NDArray[np.intp]
Words = NDArray[np.uint64]
"""(m, WORDS)"""


class RuleDefinition(NamedTuple):
    """A rule as the slots know it."""

    id: str
    name: str
    digest: str
    """Of what decides membership."""


@dataclass(slots=True)
class Slot:
    """One rule's bit."""

    bit: int
    id: str
    name: str
    digest: str | None
    """None: the rule was taken out, and its members are on their way out."""
    since: int
    """The epoch that brought this definition."""


class RuleSlots:
    """The slots of one partition's users, and how many users are in each rule segment."""

    def __init__(self) -> None:
        self.slots: dict[str, Slot] = {}
        self.epoch = 1
        self.settled = True
        """Nobody is left whose rules were last decided in an earlier epoch."""
        self.sizes: Counter[str] = Counter()

    def adopt(self, rules: Iterable[RuleDefinition]) -> None:
        """Take the configured rules over. What is new, gone or defined otherwise begins an epoch.

        A rule for which no bit is free waits; adopt again once the present epoch is settled.
        """
        wanted = {rule.id: rule for rule in rules}
        epoch = self.epoch + 1
        edited = False
        for slot in self.slots.values():
            if slot.id not in wanted and slot.digest is not None:
                slot.digest, slot.since, edited = None, epoch, True
        free = sorted(set(range(WORDS * WORD_BITS)) - {slot.bit for slot in self.slots.values()}, reverse=True)
        for identifier, rule in sorted(wanted.items()):
            known = self.slots.get(identifier)
            if known is None and free:
                self.slots[identifier] = Slot(free.pop(), *rule, since=epoch)
                edited = True
            elif known is not None:
                known.name = rule.name
                if known.digest != rule.digest:
                    known.digest, known.since, edited = rule.digest, epoch, True
        if edited:
            self.epoch, self.settled = epoch, False

    def settle(self) -> None:
        """Everybody was decided in this epoch: free the bits of rules that were taken out; nobody has them set."""
        self.settled = True
        for identifier in [slot.id for slot in self.slots.values() if slot.digest is None]:
            del self.slots[identifier]

    def of(self, words: Words) -> list[Slot]:
        """The rule segments of one user with these words (1, WORDS), by id."""
        return sorted((slot for slot in self.slots.values() if has(words, slot.bit)[0]), key=lambda slot: slot.id)

    def count(self, words: Words) -> None:
        """Count the members anew, of everybody's words."""
        self.sizes = Counter({slot.id: int(has(words, slot.bit).sum()) for slot in self.slots.values()})

    def members(self) -> Counter[tuple[str, str]]:
        """Users by (id, name) of each rule segment that anybody is in."""
        return +Counter({(slot.id, slot.name): self.sizes[slot.id] for slot in self.slots.values()})

    def to_meta(self) -> dict[str, Any]:
        """As JSON values."""
        slots = [[slot.bit, slot.id, slot.name, slot.digest, slot.since] for slot in self.slots.values()]
        return {"epoch": self.epoch, "settled": self.settled, "slots": slots}

    @classmethod
    def from_meta(cls, meta: dict[str, Any] | None) -> RuleSlots:
        """The inverse; None is state from before there were rules. Sizes are not in it: `count`."""
        self = cls()
        if meta is not None:
            self.epoch, self.settled = meta["epoch"], meta["settled"]
            self.slots = {fields[1]: Slot(*fields) for fields in meta["slots"]}
        return self


def read_words(table: UserTable, rows: Rows | slice | list[int]) -> Words:
    """The words of these rows, a copy."""
    return np.stack([table.column(name)[rows] for name in _WORD_NAMES], axis=1)


def write_words(table: UserTable, rows: Rows, words: Words) -> None:
    """Put them back."""
    for name, word in zip(_WORD_NAMES, words.T, strict=True):
        table.column(name)[rows] = word


def has(words: Words, bit: int) -> NDArray[np.bool_]:
    """(m,) Whether a bit is set."""
    mask = np.uint64(1 << bit % WORD_BITS)
    result: NDArray[np.bool_] = (words[:, bit // WORD_BITS] & mask) != 0
    return result


def put(words: Words, bit: int, where: NDArray[np.bool_]) -> None:
    """Set a bit, which must be clear, in the rows where it is due."""
    words[:, bit // WORD_BITS] |= where.astype(np.uint64) << np.uint64(bit % WORD_BITS)


def bits_of(words: NDArray[np.uint64]) -> Iterator[int]:
    """The set bits of one row (WORDS,), ascending."""
    for word, value in enumerate(words.tolist()):
        while value:
            yield word * WORD_BITS + (value & -value).bit_length() - 1
            value &= value - 1
