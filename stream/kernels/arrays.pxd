"""The memory of numpy's arrays, behind a check of their type and shape."""

from cpython.buffer cimport PyBUF_FORMAT, PyBUF_ND, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.string cimport strchr

cdef enum:
    BUFFERS = 24

cdef struct Held:
    Py_buffer buffers[BUFFERS]
    int count


cdef inline void* hold(
    Held* held, object array, const char* formats, Py_ssize_t size, Py_ssize_t rows, Py_ssize_t width, bint write
) except NULL:
    """Where an array lies: at least `rows` numbers one after the other, or with a `width` a table of so many rows.

    `formats` are the letters of the struct module that its numbers may have, `size` their bytes: which letter stands
    for which size depends on the machine. Raises ValueError for any other array. `let_go` must follow.
    """
    cdef Py_buffer* view = &held.buffers[held.count]
    cdef const char* given
    if held.count == BUFFERS:
        raise ValueError("too many arrays")
    PyObject_GetBuffer(array, view, PyBUF_FORMAT | PyBUF_ND | (PyBUF_WRITABLE if write else 0))
    held.count += 1
    given = view.format + (view.format[0] == c"<")
    if given[0] == 0 or given[1] != 0 or strchr(formats, given[0]) == NULL or view.itemsize != size:
        raise ValueError(f"an array has type {view.format.decode()!r}, wanted one of {formats.decode()!r}")
    if view.ndim != (2 if width else 1) or view.shape[0] < rows or (width and view.shape[1] != width):
        raise ValueError(f"an array has shape {[view.shape[i] for i in range(view.ndim)]}, wanted {rows} of {width}")
    return view.buf


cdef inline void let_go(Held* held) noexcept:
    while held.count:
        held.count -= 1
        PyBuffer_Release(&held.buffers[held.count])
