# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Rows through half-space trees: what the leaves that they end in are worth, added up tree after tree."""

from libc.math cimport isnan

cdef enum:
    # Rows that go down a tree side by side: each waits for its own loads, and the others go on meanwhile.
    ABREAST = 8


def collect(
    const double[:, ::1] z,
    const short[:, ::1] feature,
    const double[:, ::1] threshold,
    const unsigned char[::1] missing_right,
    const double[::1] worth,
    double[::1] out,
):
    """Fill `out` (m,) with the sums over t complete trees in heap order of what rows `z` (m, d) reach.

    `feature` and `threshold` (t, i) of the inner nodes: a value below the threshold goes left, NaN where
    `missing_right` (t * i,) says; `worth` (t * (i + 1),) of the leaves. Raises ValueError for other shapes, trees that
    are not complete, and features beyond d.
    """
    cdef Py_ssize_t m = z.shape[0], d = z.shape[1], trees = feature.shape[0], inner = feature.shape[1]
    cdef Py_ssize_t i, j, start, stop, tree, height = 0
    cdef short least = 0, most = 0
    if inner < 1 or inner & (inner + 1) or threshold.shape[0] != trees or threshold.shape[1] != inner:
        raise ValueError(f"{trees} trees of {inner} nodes, thresholds for {threshold.shape[0]} of {threshold.shape[1]}")
    if missing_right.shape[0] != trees * inner or worth.shape[0] != trees * (inner + 1) or out.shape[0] != m:
        raise ValueError(f"{missing_right.shape[0]} ways, {worth.shape[0]} leaves and {out.shape[0]} sums do not fit")
    for i in range(trees):
        for j in range(inner):
            least = feature[i, j] if feature[i, j] < least else least
            most = feature[i, j] if feature[i, j] > most else most
    if least < 0 or most >= d:
        raise ValueError(f"a tree asks for a feature beyond the {d} that there are")
    while (1 << height) <= inner:
        height += 1
    if not m:
        return
    with nogil:
        # So many rows at a time for which a tree stays in the first-level cache.
        for start in range(0, m, 128):
            stop = min(start + 128, m)
            for i in range(start, stop):
                out[i] = 0.0
            for tree in range(trees):
                i = start
                while i + ABREAST <= stop:
                    descend(&z[i, 0], d, &feature[tree, 0], &threshold[tree, 0], &missing_right[tree * inner],
                            &worth[tree * (inner + 1)], inner, height, &out[i], ABREAST)
                    i += ABREAST
                while i < stop:
                    descend(&z[i, 0], d, &feature[tree, 0], &threshold[tree, 0], &missing_right[tree * inner],
                            &worth[tree * (inner + 1)], inner, height, &out[i], 1)
                    i += 1


cdef inline void descend(
    const double* z,
    Py_ssize_t d,
    const short* feature,
    const double* threshold,
    const unsigned char* missing_right,
    const double* worth,
    Py_ssize_t inner,
    Py_ssize_t height,
    double* out,
    const int rows,
) noexcept nogil:
    """`rows` of them, at most ABREAST, down one tree."""
    cdef Py_ssize_t node[ABREAST]
    cdef Py_ssize_t level
    cdef double value
    cdef int row
    for row in range(rows):
        node[row] = 0
    for level in range(height):
        for row in range(rows):
            value = z[row * d + feature[node[row]]]
            if isnan(value):
                node[row] = 2 * node[row] + 1 + (missing_right[node[row]] != 0)
            else:
                node[row] = 2 * node[row] + 1 + (not value < threshold[node[row]])
    for row in range(rows):
        out[row] += worth[node[row] - inner]
