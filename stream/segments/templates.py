"""Texts of one shape: a template with gaps, filled row by row from columns."""

from __future__ import annotations

import re
from collections.abc import Sequence

from stream import kernels

_GAP = re.compile(rb"%[bd]")


class Template:
    """A text with gaps, `%b` for bytes and `%d` for whole numbers, and no other per cent sign.

    The compiled kernel (`stream/kernels/templates.pyx`) fills it where it is there, else Python, to the same bytes.
    """

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._parts = tuple(_GAP.split(text))

    def fill(self, *columns: Sequence[bytes] | Sequence[int]) -> list[bytes]:
        """The texts of all rows. Parameters: a list for each gap, all of one length. Raises ValueError for others."""
        if kernels.on():
            return kernels.templates.fill(self._parts, columns, len(columns[0]))
        return [self._text % row for row in zip(*columns, strict=True)]

    def one(self, *contents: bytes | int) -> bytes:
        """One text."""
        return self._text % contents
