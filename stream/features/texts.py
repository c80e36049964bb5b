"""Texts that lie in a buffer: of a batch's event ids only those of a user's last events are ever looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
import numpy.typing as npt

from stream.transport.spans import Spans


class Texts(Sequence[str]):
    """Texts that lie in a buffer, made when they are asked for."""

    __slots__ = ("spans",)

    def __init__(self, spans: Spans) -> None:
        self.spans = spans

    def __len__(self) -> int:
        return len(self.spans)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> Texts: ...
    def __getitem__(self, at: int | slice) -> str | Texts:
        """One text, or some."""
        if isinstance(at, slice):
            return Texts(self.spans[at])
        text = self.spans[at]
        assert text is not None
        return text.decode()

    def __iter__(self) -> Iterator[str]:
        return (text.decode() for text in self.spans if text is not None)

    def take(self, positions: npt.NDArray[np.integer]) -> Texts:
        """Those at these positions."""
        return Texts(Spans(self.spans.data, self.spans.starts[positions], self.spans.lengths[positions]))


def chosen(texts: Sequence[str], positions: npt.NDArray[np.integer]) -> Sequence[str]:
    """Those at these positions."""
    return texts.take(positions) if isinstance(texts, Texts) else [texts[at] for at in positions.tolist()]
