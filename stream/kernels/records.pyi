import numpy as np
import numpy.typing as npt

def read(data: bytes, count: int, out: npt.NDArray[np.int64]) -> int: ...
