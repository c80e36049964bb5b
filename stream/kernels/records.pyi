import numpy as np
import numpy.typing as npt

def read(data: bytes | npt.NDArray[np.uint8], count: int, out: npt.NDArray[np.int64]) -> int: ...
