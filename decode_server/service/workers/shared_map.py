"""Maps a range of shared memory without keeping a descriptor of it, so that who has the map can never have more.

Python's own mmap keeps a copy of the descriptor for as long as the map is there. It knows not what lies in the memory.
"""

from __future__ import annotations

import ctypes
import mmap
import os

_FAILED = ctypes.c_void_p(-1).value
_WRITABLE, _READABLE = 0x200, 0x100  # of a memoryview: PyBUF_WRITE, PyBUF_READ
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_view_of = ctypes.pythonapi.PyMemoryView_FromMemory
_view_of.restype, _view_of.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int)


def map_shared(fd: int, length_bytes: int, *, offset: int = 0, writable: bool = False) -> memoryview:
    """These bytes of the memory of a descriptor, which may be closed; they stay mapped until the process ends.

    `offset` is a multiple of the system's page size. Raises OSError.
    """
    protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    address = _libc.mmap(None, length_bytes, protection, mmap.MAP_SHARED, fd, offset)
    if address == _FAILED:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    view: memoryview = _view_of(address, length_bytes, _WRITABLE if writable else _READABLE)
    return view
