"""What `framefeed doctor` is told of a machine that is to decode: its CPUs, and what its FFmpeg was built with.

It reads; what that means is decided by pure functions.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

import av

from decode_server.service.cpu_findings import check_cpus
from decode_server.service.workers.domains import Cpu, read_cpus
from decode_server.service.workers.fingerprint import decoder_fingerprint
from decode_server.service.workers.topology import SYSFS_CPUS, WorkerSlot, read_sockets
from framefeed.cgroups import read_cpu_quota
from framefeed.cli.doctor.finding import Asked, Finding, good, warn

_DECODERS = ("h264", "hevc", "vp9", "libdav1d", "mpeg4", "mjpeg")
_ENCODERS = ("libx264",)  # of `framefeed chunk`'s profiles for servers


def probe(_: Asked) -> list[Finding]:
    """Its CPUs and codecs, whatever is asked. Does not block."""
    quota_cpus = read_cpu_quota()
    found = check_cpus(_cpus(os.sched_getaffinity(0)), _cpus(_all_cpus(SYSFS_CPUS)), quota_cpus=quota_cpus)
    encoders = [name for name in _ENCODERS if _encodes(name)]
    return [*found, *check_codecs(av.codecs_available, encoders, fingerprint=decoder_fingerprint())]


def check_codecs(decoders: Collection[str], encoders: Collection[str], *, fingerprint: str) -> list[Finding]:
    """What is missing of the codecs that most videos are in."""
    missing = [name for name in _DECODERS if name not in decoders]
    found = [good("decoder", f"{fingerprint}: servers of one run have the same")]
    if missing:
        change = "PyAV's wheel (pip install --force-reinstall av), which has all; or chunks in h264"
        found.append(warn("FFmpeg", f"no decoder {', '.join(missing)}", change))
    if without := [name for name in _ENCODERS if name not in encoders]:
        change = "PyAV's wheel; needed where `framefeed chunk` runs, and not for serving"
        found.append(warn("FFmpeg", f"no encoder {', '.join(without)}", change))
    return found


def _encodes(name: str) -> bool:
    try:
        av.Codec(name, "w")
    except av.codec.codec.UnknownCodecError:
        return False
    return True


def _cpus(numbers: Collection[int]) -> Sequence[Cpu]:
    sockets = read_sockets(SYSFS_CPUS, frozenset(numbers))
    return read_cpus(SYSFS_CPUS, [WorkerSlot(socket=socket.id, cpus=socket.cpus) for socket in sockets])


def _all_cpus(sysfs_cpus: Path) -> set[int]:
    """Those that are on: the kernel tells no core of one that is off."""
    folders = [folder for folder in sysfs_cpus.glob("cpu[0-9]*") if folder.name[3:].isdecimal()]
    on = {int(folder.name[3:]) for folder in folders if (folder / "topology").is_dir()}
    return on or set(os.sched_getaffinity(0))
