from collections.abc import Collection, Sequence

FIELDS: dict[str, int]
ONE: int
DTYPES: tuple[str, ...]

_Indices = Sequence[int]

class Plan:
    exponents: int
    def __init__(
        self,
        groups: Sequence[tuple[int, int]],
        times: tuple[int, int, int],
        recent: tuple[int, int],
        half_lives: Sequence[tuple[int, int, int]],
        sums: Sequence[tuple[int, int, int]],
        tiles: Sequence[int],
        rings: Sequence[tuple[int, int, int, bool]],
        words: int,
        bitmaps: Sequence[tuple[int, _Indices, _Indices]],
        measures: Sequence[tuple[Collection[int], _Indices, int, bool, _Indices, _Indices, _Indices, _Indices]],
        kinds: int,
    ) -> None: ...
