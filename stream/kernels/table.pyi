from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from stream.kernels.plan import Plan

_Ints = npt.NDArray[np.int64]
_Mask = npt.NDArray[np.bool_]
_Floats = npt.NDArray[np.float64]

def apply(
    plan: Plan,
    arrays: list[npt.NDArray[Any]],
    columns: tuple[npt.NDArray[Any], ...],
    row_of: _Ints,
    too_late: _Mask,
    accepted: _Mask,
    duplicate: _Mask,
    keys: _Ints,
    rows: _Ints,
    last_event: _Ints,
    parts: _Floats,
    exp2: Callable[[_Floats], _Floats],
) -> int: ...
def clock(times: _Ints, reached: int, lateness: int, too_late: _Mask) -> int: ...
