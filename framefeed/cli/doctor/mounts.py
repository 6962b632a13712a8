"""Where a folder's bytes come from, by /proc/self/mountinfo, and whether NFS options suit chunks. Pure.

An option is checked alike before a mount (as typed) and after it (as the kernel tells it).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from framefeed.cli.doctor.finding import Finding, bad, good, warn

WANTED = "ro,hard,nfsvers=4.2,nconnect=8,noatime,nodiratime"
_LEAST_READ_BYTES = 1 << 18
_FLAGS = ("udp", "noac", "sync")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A mounted file system; `options` are those of the mount and of its file system."""

    point: str
    kind: str
    source: str
    options: tuple[str, ...]

    @property
    def is_nfs(self) -> bool:
        """Whether it is another machine's by NFS."""
        return self.kind in ("nfs", "nfs4")


def parse_mountinfo(text: str) -> tuple[Mount, ...]:
    """The lines of a mountinfo, in its order; what is no such line is left out (proc(5))."""
    mounts = []
    for line in text.splitlines():
        before, dash, after = line.partition(" - ")
        left, right = before.split(), after.split()
        if not dash or len(left) < 6 or len(right) < 3:
            continue
        options = dict.fromkeys((*left[5].split(","), *right[2].split(",")))
        mounts.append(Mount(point=_plain(left[4]), kind=right[0], source=_plain(right[1]), options=tuple(options)))
    return tuple(mounts)


def mount_of(folder: str, mounts: Sequence[Mount]) -> Mount | None:
    """The mount that an absolute path without links lies on: the deepest, and of several at one place the last."""
    path = PurePosixPath(folder)
    above = [mount for mount in mounts if path.is_relative_to(mount.point)]
    return max(reversed(above), key=lambda mount: len(PurePosixPath(mount.point).parts), default=None)


def check_mount(mount: Mount | None, folder: str) -> list[Finding]:
    """What to say of the file system that the videos lie on."""
    what = f"storage of {folder}"
    if mount is None:
        return [warn(what, "/proc/self/mountinfo tells no mount of it", "look at the folder by hand: df -T FOLDER")]
    if mount.is_nfs:
        return check_nfs_options(mount.options, what=f"NFS mount {mount.point}")
    if mount.kind.startswith("fuse") or mount.kind in ("cifs", "9p", "smb3"):
        change = "measured speed below decides; NFS or a local disk are what framefeed is tested on"
        return [warn(what, f"{mount.kind} from {mount.source}", change)]
    return [good(what, f"{mount.kind} from {mount.source} at {mount.point}")]


def check_nfs_options(options: Sequence[str], *, what: str) -> list[Finding]:
    """Each option that harms, or whose lack does; one line saying that all is well where none does."""
    found = list(_complaints(options, what))
    return found or [good(what, ",".join(options))]


def _complaints(options: Sequence[str], what: str) -> Iterator[Finding]:
    given = {name: value for name, _, value in (option.partition("=") for option in options)}
    version = given.get("nfsvers", given.get("vers", ""))
    if "soft" in given:
        yield bad(what, "soft: a read that takes long is an error", "hard; or softerr, whose errors are retried")
    elif "softerr" in given:
        yield warn(what, "softerr: an outage fails requests", "hard: reads wait for the server and go on")
    if "ro" not in given:  # the kernel also tells how the server is written to: rw
        yield warn(what, "mounted for writing", "ro: servers write nothing, and others must not")
    if not version:
        yield warn(what, "no version", "nfsvers=4.2, or the oldest that both sides know may be taken")
    elif version.split(".")[0] in ("2", "3"):
        yield warn(what, f"version {version}", "nfsvers=4.2: one port, and locks and sessions that survive a restart")
    elif version in ("4", "4.0"):
        yield warn(what, f"version {version}", "nfsvers=4.2 (4.1 at least): several connections need sessions")
    connections = given.get("nconnect", "1")
    if not connections.isdecimal() or int(connections) < 2:
        yield warn(what, "one connection to the server", "nconnect=8: one carries less than a fast network does")
    if not ({"noatime", "relatime", "ro"} & given.keys()):
        yield warn(what, "times of access are kept", "noatime,nodiratime")
    size = given.get("rsize", "")
    if size.isdecimal() and int(size) < _LEAST_READ_BYTES:
        yield warn(what, f"rsize={size}", "leave rsize out: both sides then agree on 1 MiB or what the server gives")
    for flag in _FLAGS:
        if flag in given or given.get("proto") == flag:
            yield warn(what, flag, f"without {flag}, which makes each read slower or less safe")


def _plain(text: str) -> str:
    """A path as it is: mountinfo writes blanks and the like as \\ooo."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
