"""A worker whose decoder was taken over: it tries what the video's name says and tells by a pixel whether it could.

255: it could; 1: it was refused. `fill` takes memory until there is none; `who` says with which number the worker
began; `scribble` writes over all that can be written for as far as a part of the buffer pool is long, both ways; `lie`
and `flood` say what is not so to the front.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from decode_server.clips.clip_reader import ReadClips
from decode_server.clips.read_watch import ReadWatch
from decode_server.service.workers.shared_map import map_shared
from decode_server.service.workers.worker import DecodeBackend, main
from decode_server.service.workers.worker_messages import Done, Effort, Setup, Stuck, pack_message
from framefeed.clip import ClipInfo, Colour
from framefeed.crops import Box
from framefeed.request import ClipRequest
from framefeed.wire import ClipReply, pack_unsealed

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mremap.restype = ctypes.c_void_p


def checked(result: int) -> None:
    """Raises OSError for what the C library refused."""
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")


def mapped(address: int | None) -> None:
    """Raises OSError where the C library says that nothing was mapped."""
    checked(-1 if address == ctypes.c_void_p(-1).value else 0)


def fill() -> None:
    """Take memory without end; a bound ends it."""
    taken = []
    while True:
        taken.append(bytearray(64 << 20))


def attacks(root: Path, outside: Path) -> dict[str, Callable[[], object]]:
    """What a decoder has no business to do."""
    front = os.getppid()
    return {
        "passwd": lambda: Path("/etc/passwd").read_bytes(),
        "outside": outside.read_bytes,
        "through_link": (root / "link").read_bytes,
        "write_root": lambda: (root / "new").write_bytes(b"x"),
        "write_tmp": lambda: Path("/tmp/framefeed-hostile").write_bytes(b"x"),
        "truncate_root": lambda: os.truncate(root / "clip", 0),
        "unlink_root": lambda: os.unlink(root / "clip"),
        "environ": lambda: Path(f"/proc/{front}/environ").read_bytes(),
        "memory_of_front": lambda: Path(f"/proc/{front}/mem").open("rb"),
        "inet": socket.socket,
        "inet6": lambda: socket.socket(socket.AF_INET6),
        "unix": lambda: socket.socket(socket.AF_UNIX),
        "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
        "io_uring": lambda: checked(_libc.syscall(425, 8, ctypes.create_string_buffer(120))),
        "execute": lambda: subprocess.run(["/bin/true"], check=True),
        "execute_here": lambda: os.execv("/bin/true", ["true"]),
        "fork": os.fork,
        "ptrace": lambda: checked(_libc.ptrace(16, front, 0, 0)),
        "signal_front": lambda: os.kill(front, 0),
        "unshare": lambda: checked(_libc.unshare(0x10000000)),
        "mount": lambda: checked(_libc.mount(b"none", b"/mnt", b"tmpfs", 0, None)),
        "fill": fill,
    }


def reaches(out: memoryview) -> dict[str, Callable[[], object]]:
    """Ways to more of the buffer pool than the part that `out` lies in."""
    page = ctypes.addressof(ctypes.c_char.from_buffer(out)) // 4096 * 4096
    grown = 1 << 40
    return {
        "map_pool": lambda: [map_shared(fd, 4096) for fd in range(3, 256) if _is_memory(fd)] or checked(-1),
        "maps": Path("/proc/self/maps").read_bytes,
        "grow_part": lambda: mapped(_libc.mremap(*map(ctypes.c_void_p, (page, 4096, grown, 1)))),
        "copy_part": lambda: mapped(_libc.mremap(*map(ctypes.c_void_p, (page, 0, 8192, 1)))),
        "turn_part": lambda: checked(_libc.remap_file_pages(*map(ctypes.c_void_p, (page, 4096, 0, 1 << 16, 0)))),
    }


def _is_memory(fd: int) -> bool:
    try:
        return fcntl.fcntl(fd, fcntl.F_GET_SEALS) >= 0
    except OSError:
        return False


def scribble(out: memoryview, part_bytes: int) -> None:
    """Write over each page on both sides of `out` that can be written to, up to the first that cannot."""
    page = ctypes.addressof(ctypes.c_char.from_buffer(out)) // 4096 * 4096
    readable, writable = os.pipe()
    for step in (4096, -4096):
        for at in range(page, page + (part_bytes if step > 0 else -part_bytes), step):
            os.write(writable, b"\xee")
            if _libc.read(readable, ctypes.c_void_p(at), 1) != 1:  # the kernel looks whether it may be written to
                os.read(readable, 1)
                break
            ctypes.memset(at, 0xEE, 4096)


def lie() -> None:
    """End the first job that the server had with a reply to another attempt."""
    info = ClipInfo(
        pts_s=(0.0,), box=Box(x_px=0, y_px=0, width_px=2, height_px=2), flipped=False, colour=Colour(), read_bytes=0,
        fed_packets=1,
    )  # fmt: skip
    reply = pack_unsealed(ClipReply(attempt=12345, server="here", info=info))
    effort = Effort(0.0, 1.0, {}, [], (0, 0))
    os.write(int(sys.argv[1]), pack_message(Done(1, "clip", reply, "", 0, {}, effort)))


def flood() -> None:
    """Tell without end of a read of a job that this worker does not have."""
    while True:
        os.write(int(sys.argv[1]), pack_message(Stuck(1 << 40, "a read", True)))


def allowed(root: Path) -> dict[str, Callable[[], object]]:
    """What decoding needs."""
    return {
        "read_root": (root / "clip").read_bytes,
        "list_root": lambda: list(root.iterdir()),
        "thread": lambda: threading.Thread(target=lambda: None).start(),
        "import": lambda: __import__("wave"),
        "memory": lambda: bytearray(256 << 20),
    }


class HostileEngine:
    def __init__(self, root: Path, part_bytes: int, number: int) -> None:
        self._part_bytes, self._number = part_bytes, number
        self._tries = {**attacks(root, root.parent / "outside"), **allowed(root)}

    def decode_together(
        self,
        requests: Sequence[ClipRequest],
        outs: Sequence[memoryview],
        *,
        cancelled: Callable[[], bool],
        ahead: ReadClips | None,
    ) -> list[ClipInfo]:
        return [self._decode(request, out) for request, out in zip(requests, outs, strict=True)]

    def _decode(self, request: ClipRequest, out: memoryview) -> ClipInfo:
        tries = {**self._tries, **reaches(out), "scribble": lambda: scribble(out, self._part_bytes)}
        tries |= {"lie": lie, "flood": flood}
        if request.video == "who":
            out[:] = bytes([self._number]) * len(out)
            return self._info(request)
        try:
            tries[request.video]()
        except (OSError, subprocess.SubprocessError):
            out[:] = b"\x01" * len(out)
        else:
            out[:] = b"\xff" * len(out)
        return self._info(request)

    def _info(self, request: ClipRequest) -> ClipInfo:
        return ClipInfo(
            pts_s=(0.0,) * request.sampling.frames,
            box=Box(x_px=0, y_px=0, width_px=2, height_px=2),
            flipped=False,
            colour=Colour(),
            read_bytes=0,
            fed_packets=1,
        )

    def close(self) -> None:
        pass


def hostile_backend(setup: Setup) -> DecodeBackend:
    root = Path(setup.root)
    return DecodeBackend(
        engine=lambda: HostileEngine(root, setup.part_bytes, 1 + setup.part_offset // setup.part_bytes),
        codec=lambda video: "hostile",
        watch=ReadWatch(),
        fingerprint="hostile",
        videos=1,
        readable=(root,),
    )


if __name__ == "__main__":
    raise SystemExit(main(hostile_backend))
