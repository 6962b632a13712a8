"""seccomp: takes from this process the system calls that no decoder needs: sockets, programs, other processes, mounts,
and to see more of a shared file than it has mapped (the C library copies where it cannot mremap).

What is left is what was open already. A filter is a small program of the kernel's packet filter (BPF), the same for
all threads. It knows nothing of who asks for it. Source: docs.kernel.org/userspace-api/seccomp_filter.html.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

_PR_SET_NO_NEW_PRIVS = 38
_SET_MODE_FILTER, _ALL_THREADS = 1, 1
_KILL, _ERRNO, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data; the low half of the argument
_CLONE_THREAD = 0x10000
_X32 = 0x40000000  # the other calling convention of x86-64 begins here

_NAMES = (
    "socket", "socketpair", "connect", "bind", "listen", "accept", "accept4", "execve", "execveat", "ptrace", "kill",
    "process_vm_readv", "process_vm_writev", "kcmp", "bpf", "perf_event_open", "mount", "umount2", "pivot_root",
    "chroot", "unshare", "setns", "keyctl", "add_key", "request_key", "init_module", "finit_module", "delete_module",
    "kexec_load", "kexec_file_load", "open_by_handle_at", "userfaultfd", "personality", "reboot", "mremap",
    "remap_file_pages",
)  # fmt: skip
_X86_64 = (
    41, 53, 42, 49, 50, 43, 288, 59, 322, 101, 62, 310, 311, 312, 321, 298, 165, 166, 155, 161, 272, 308, 250, 248, 249,
    175, 313, 176, 246, 320, 304, 323, 135, 169, 25, 216,
)  # fmt: skip
_AARCH64 = (
    198, 199, 203, 200, 201, 202, 242, 221, 281, 117, 129, 270, 271, 272, 280, 241, 40, 39, 41, 51, 97, 268, 219, 217,
    218, 105, 273, 106, 104, 294, 265, 282, 92, 142, 216, 234,
)  # fmt: skip
# pidfd_send_signal, io_uring_setup, _enter and _register, pidfd_open, pidfd_getfd: the same everywhere.
_EVERYWHERE = (424, 425, 426, 427, 434, 438)
_CLONE3 = 435  # its flags lie behind a pointer: libraries fall back to clone where it is not there
# Architecture: (its audit number, the denied, clone, fork and vfork where they exist).
_TABLES = {
    "x86_64": (0xC000003E, _X86_64, 56, (57, 58)),
    "aarch64": (0xC00000B7, _AARCH64, 220, ()),
}

_libc = ctypes.CDLL(None, use_errno=True)


def forbid_new_privileges() -> None:
    """No program that this process ever starts gains rights (no_new_privs). Raises OSError."""
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "no_new_privs cannot be set")


def forbid_calls(*, allowed: tuple[str, ...] = ()) -> str:
    """From now on the calls named here, but for those `allowed`, fail with EPERM, in all threads; new threads can be
    started, processes cannot.

    Returns what is in force, in a few words. Raises OSError, and changes nothing, where the kernel does not have it or
    the architecture is not known here; no_new_privs must be set before.
    """
    table = _TABLES.get(platform.machine())
    if table is None:
        raise OSError(errno.ENOSYS, f"no table of system calls for {platform.machine()}")
    architecture, numbers, clone, forks = table
    denied = tuple(number for name, number in zip(_NAMES, numbers, strict=True) if name not in allowed)
    program = _program(architecture, denied, clone, forks)
    code = ctypes.create_string_buffer(b"".join(program))
    head = struct.pack("@HP", len(program), ctypes.addressof(code))
    number = {"x86_64": 317, "aarch64": 277}[platform.machine()]
    if _libc.syscall(number, _SET_MODE_FILTER, _ALL_THREADS, ctypes.c_char_p(head)) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return f"seccomp without {len(denied)} kinds of calls"


def _program(architecture: int, denied: tuple[int, ...], clone: int, forks: tuple[int, ...]) -> list[bytes]:
    """The filter's instructions, each (code, jump if true, jump if false, value)."""
    deny = _step(_RETURN, _ERRNO | errno.EPERM)
    program = [_step(_LOAD, _ARCHITECTURE), _step(_JUMP_EQUAL, architecture, 1, 0), _step(_RETURN, _KILL)]
    program += [_step(_LOAD, _NUMBER), _step(_JUMP_AT_LEAST, _X32, 0, 1), deny]
    for number in (*denied, *forks, *_EVERYWHERE):
        program += [_step(_JUMP_EQUAL, number, 0, 1), deny]
    program += [_step(_JUMP_EQUAL, _CLONE3, 0, 1), _step(_RETURN, _ERRNO | errno.ENOSYS)]
    program += [_step(_JUMP_EQUAL, clone, 0, 3), _step(_LOAD, _FIRST_ARGUMENT)]
    program += [_step(_JUMP_SET, _CLONE_THREAD, 1, 0), deny]
    return [*program, _step(_RETURN, _ALLOW)]


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
