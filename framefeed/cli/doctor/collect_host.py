"""Reads the facts of this machine: limits, memory, ports, mounts, GPUs, Docker. It judges nothing.

Whatever cannot be read is told as such; a command that hangs costs its time limit.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import resource
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from framefeed.cgroups import lines_of
from framefeed.cli.doctor.host_facts import DockerFacts, GpuFacts, HostFacts, NfsFacts
from framefeed.cli.doctor.mounts import mount_of, parse_mountinfo
from framefeed.errors import BadInput
from framefeed.name_lookup import connect_to
from framefeed.show_value import one_line, show_value

NFS_PORT = 2049
_COMMAND_S = 10.0
_PROC = Path("/proc")
_MODULES = Path("/lib/modules")


def collect_host(*, root: Path | None, ports: Sequence[int], nfs: str, nfs_options: str, limit_s: float) -> HostFacts:
    """The facts. `root` is a folder of videos, `nfs` SERVER or SERVER:PORT, "" for none; blocks for seconds."""
    soft_files, hard_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    memory = _memory_of(lines_of(_PROC / "meminfo"))
    folder = "" if root is None else os.path.realpath(root)
    mounts = parse_mountinfo("\n".join(lines_of(_PROC / "self/mountinfo")))
    return HostFacts(
        soft_files=soft_files,
        hard_files=hard_files,
        memory_bytes=memory.get("MemAvailable", 0),
        ports=tuple(ports),
        taken_ports=_taken(ports),
        docker=read_docker(),
        gpu=read_gpu(),
        root=folder,
        mount=mount_of(folder, mounts) if folder else None,
        nfs=read_nfs(nfs, nfs_options, limit_s=limit_s) if nfs else None,
    )


def read_docker() -> DockerFacts:
    """What `docker version` and `docker compose version` say."""
    if shutil.which("docker") is None:
        return DockerFacts()
    said, trouble = _run("docker", "version", "--format", "{{json .}}")
    engine = api = ""
    with contextlib.suppress(ValueError, AttributeError):  # an engine that is away: null, or words
        server = json.loads(said).get("Server") or {}
        engine, api = str(server.get("Version", "")), str(server.get("ApiVersion", ""))
    compose, _ = _run("docker", "compose", "version", "--short")
    return DockerFacts(installed=True, engine=engine, api=api, compose=compose.strip(), trouble=trouble)


def read_gpu() -> GpuFacts:
    """What nvidia-smi lists, and which modules are installed."""
    torch, flash_attn = (importlib.util.find_spec(name) is not None for name in ("torch", "flash_attn"))
    if shutil.which("nvidia-smi") is None:
        return GpuFacts(torch=torch, flash_attn=flash_attn)
    said, trouble = _run("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
    rows = [line.rpartition(", ") for line in said.splitlines() if ", " in line]
    return GpuFacts(
        names=tuple(name for name, _, _ in rows),
        driver=rows[0][2] if rows else "",
        trouble=trouble if not rows else "",
        torch=torch,
        flash_attn=flash_attn,
    )


def read_nfs(place: str, options: str, *, limit_s: float) -> NfsFacts:
    """Whether this kernel can mount by NFS, and how fast the server is connected to. Raises BadInput for no place."""
    try:
        where = urlsplit(f"//{place}")
        server, port = where.hostname, NFS_PORT if where.port is None else where.port
    except ValueError:
        server, port = None, NFS_PORT
    if not server or not port or "@" in place or where.netloc != place:
        raise BadInput(f"--nfs is {show_value(place)}, wanted SERVER or SERVER:PORT, IPv6 as [ADDRESS]:PORT")
    connect_s, trouble = None, ""
    began_s = time.monotonic()
    try:
        connect_to(server, port, limit_s=limit_s).close()
        connect_s = time.monotonic() - began_s
    except OSError as error:
        trouble = f"cannot be connected to: {error}"
    given = tuple(options.split(","))
    return NfsFacts(server=place, client=_has_nfs_client(), connect_s=connect_s, options=given, trouble=trouble)


def _has_nfs_client() -> bool | None:
    """None in a container whose host's modules cannot be seen."""
    if any(line.split()[-1] in ("nfs", "nfs4") for line in lines_of(_PROC / "filesystems") if line.split()):
        return True
    modules = _MODULES / os.uname().release
    if not modules.is_dir():
        return None
    listed = [line for name in ("modules.dep", "modules.builtin") for line in lines_of(modules / name)]
    return any("/nfs/nfs" in line.partition(":")[0] for line in listed)


def _memory_of(lines: Sequence[str]) -> dict[str, int]:
    """/proc/meminfo in bytes."""
    parts = (line.split() for line in lines)
    return {words[0].rstrip(":"): int(words[1]) << 10 for words in parts if len(words) == 3 and words[1].isdecimal()}


def _taken(ports: Sequence[int]) -> dict[int, str]:
    taken = {}
    for port in ports:
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind(("0.0.0.0", port))  # noqa: S104  # to see whether it can be had, and never to listen
            except OSError as error:
                taken[port] = str(error.strerror)
    return taken


def _run(*command: str) -> tuple[str, str]:
    """(what a command said, what is wrong with it)."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", one_line(str(error))
    return done.stdout, one_line(done.stderr.strip()) if done.returncode else ""
