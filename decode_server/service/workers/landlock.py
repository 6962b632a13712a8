"""Landlock: lets this process read beneath given paths, and touch no other file, port or socket by name. Linux ≥ 5.13.

It knows nothing of who asks for it. Source: docs.kernel.org/userspace-api/landlock.html (ABI versions 1 to 6).
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterable
from pathlib import Path

_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446  # system calls, the same on every architecture
_ABI_ONLY = 1  # flag of _CREATE: say which version there is
_PATH_BENEATH, _NET_PORT = 1, 2
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_FS_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # how many rights over files each version knows; later ones: as 5
_BIND_TCP, _CONNECT_TCP = 1 << 0, 1 << 1  # from version 4
_ABSTRACT_SOCKETS, _SIGNALS = 1 << 0, 1 << 1  # scopes, from version 6

_libc = ctypes.CDLL(None, use_errno=True)


def restrict_to_reading(paths: Iterable[Path], *, bind_ports: Iterable[int] = ()) -> str:
    """From now on this thread, and all that it starts, may read beneath these paths and open nothing else; and bind TCP
    sockets to these ports, of which 0 is any that the system picks.

    Paths that are not there are passed over. Returns what is in force, in a few words. Raises OSError, and changes
    nothing, where the kernel has no Landlock or does not allow it; no_new_privs must be set before.
    """
    abi = _call(_CREATE, None, 0, _ABI_ONLY)
    rights = (1 << _FS_RIGHTS.get(abi, _FS_RIGHTS[5])) - 1
    net = _BIND_TCP | _CONNECT_TCP if abi >= 4 else 0
    scoped = _ABSTRACT_SOCKETS | _SIGNALS if abi >= 6 else 0
    size_bytes = 24 if abi >= 6 else 16 if abi >= 4 else 8
    ruleset = _call(_CREATE, struct.pack("=QQQ", rights, net, scoped), size_bytes, 0)
    try:
        for path in paths:
            _allow(ruleset, path)
        for port in bind_ports if net else ():
            _call(_ADD_RULE, ruleset, _NET_PORT, struct.pack("=QQ", _BIND_TCP, port), 0)
        _call(_RESTRICT, ruleset, 0, 0)
    finally:
        os.close(ruleset)
    return f"Landlock {abi}"


def _allow(ruleset: int, path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        rule = struct.pack("=Qi", _READ_FILE | (_READ_DIR if folder else 0), descriptor)
        _call(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
    finally:
        os.close(descriptor)


def _call(number: int, *arguments: int | bytes | None) -> int:
    _libc.syscall.restype = ctypes.c_long
    result = int(_libc.syscall(ctypes.c_long(number), *map(_argument, arguments)))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def _argument(value: int | bytes | None) -> object:
    return ctypes.c_long(value) if isinstance(value, int) else ctypes.c_char_p(value)
