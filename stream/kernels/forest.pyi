import numpy as np
import numpy.typing as npt

_Floats = npt.NDArray[np.float64]

def collect(
    z: _Floats,
    feature: npt.NDArray[np.int16],
    threshold: _Floats,
    missing_right: npt.NDArray[np.uint8],
    worth: _Floats,
    out: _Floats,
) -> None: ...
