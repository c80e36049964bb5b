from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

KINDS: dict[str, int]

_Ints = npt.NDArray[np.int64]
_Field = tuple[str, str, Sequence[str], Sequence[str], bool, float, float, bool, int]

class Reader:
    def __init__(self, tags: Sequence[str], fields: Sequence[_Field]) -> None: ...
    def read(
        self,
        data: bytes | npt.NDArray[np.uint8],
        starts: _Ints,
        lengths: _Ints,
        key_data: bytes | None,
        key_starts: _Ints | None,
        key_lengths: _Ints | None,
        limit: int,
        positions: npt.NDArray[np.int32],
        tags: npt.NDArray[np.int8],
        times: _Ints,
        numbers: npt.NDArray[np.float64],
        hashes: npt.NDArray[np.uint64],
        spans: _Ints,
        currencies: npt.NDArray[np.int32],
    ) -> int: ...

def xxh3(data: bytes) -> int: ...
