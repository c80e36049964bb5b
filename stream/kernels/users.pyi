import numpy as np
import numpy.typing as npt

def ids(user_ids: list[str], rows: npt.NDArray[np.int64]) -> tuple[bytes, bytes] | None: ...
def columns(
    array: npt.NDArray[np.uint8], rows: npt.NDArray[np.int64], size: int, out: npt.NDArray[np.uint8]
) -> None: ...
