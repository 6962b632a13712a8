"""What facts of a machine mean for framefeed, finding by finding. Pure: the same facts, the same findings."""

from __future__ import annotations

import re
from collections.abc import Sequence

from framefeed.cli.doctor.finding import Finding, bad, good, warn
from framefeed.cli.doctor.host_facts import DockerFacts, GpuFacts, HostFacts, NfsFacts, ReadSpeed
from framefeed.cli.doctor.mounts import WANTED, check_mount, check_nfs_options

CLIP_READ_BYTES = 160_000  # of chunks by `framefeed chunk` (docs/operations.md, sizing)
_FEW_FILES, _SOME_FILES, _ENOUGH_FILES = 1024, 8192, 65536
_LEAST_MEMORY_BYTES = 1 << 30
_SLOW_CONNECT_S = 0.05
_PLUGIN = "the Compose plugin, 2.20 or later"
_ENGINE, _API, _COMPOSE = (20, 10), (1, 41), (2, 20)


def check_host(facts: HostFacts) -> list[Finding]:
    """All findings of a machine, in the order in which a reader wants them."""
    found = [*check_files(facts), *check_memory(facts), *check_ports(facts.ports, facts.taken_ports)]
    if facts.root:
        found += check_mount(facts.mount, facts.root)
    if facts.nfs is not None:
        found += check_nfs(facts.nfs)
    return [*found, *check_gpu(facts.gpu), *check_docker(facts.docker)]


def check_files(facts: HostFacts) -> list[Finding]:
    """Limits of open files: servers and trainers raise the soft one to the hard one themselves."""
    what = "open files"
    if 0 <= facts.hard_files < _FEW_FILES:
        change = f"ulimit -Hn {_ENOUGH_FILES}; LimitNOFILE= or Compose's ulimits for services"
        return [bad(what, f"at most {facts.hard_files}", change)]
    if 0 <= facts.hard_files < _SOME_FILES:
        change = f"{_ENOUGH_FILES} for a server of many trainers: ulimit -Hn, LimitNOFILE= or Compose's ulimits"
        return [warn(what, f"at most {facts.hard_files}", change)]
    most = "any number" if facts.hard_files < 0 else str(facts.hard_files)
    return [good(what, f"{facts.soft_files} now, {most} for the asking")]


def check_memory(facts: HostFacts) -> list[Finding]:
    """Memory that is free now."""
    gib = facts.memory_bytes / (1 << 30)
    if facts.memory_bytes < _LEAST_MEMORY_BYTES:
        change = "at least 1 GiB: 256 MiB of replies, 60 MiB of front and gateway, 40 MiB a worker"
        return [warn("memory", f"{gib:.1f} GiB are free", change)]
    return [good("memory", f"{gib:.1f} GiB are free")]


def check_ports(wanted: Sequence[int], taken: dict[int, str]) -> list[Finding]:
    """Ports that servers would listen at."""
    found = []
    for port, why in taken.items():
        change = f"--bind and --metrics-port name others, or end what listens there (ss -ltnp sport = :{port})"
        found.append(warn(f"port {port}", why, change))
    free = [str(port) for port in wanted if port not in taken]
    return found + ([good("ports", f"{', '.join(free)} free")] if free else [])


def check_nfs(facts: NfsFacts) -> list[Finding]:
    """An NFS server before it is mounted: a mount without a client, or of a server that is away, hangs for minutes."""
    what = f"NFS server {facts.server}"
    found = []
    if facts.client is False:
        change = "install nfs-common (or nfs-utils), which brings one; else a mount hangs for minutes"
        found.append(bad("NFS client", "this kernel has none", change))
    elif facts.client is None:
        change = "on the host itself: grep nfs4 /proc/filesystems, or modprobe nfsv4"
        found.append(warn("NFS client", "cannot be told from here", change))
    else:
        found.append(good("NFS client", "this kernel has one"))
    if facts.connect_s is None:
        change = "the right name and port, an open firewall, a server that runs; else a mount hangs"
        found.append(bad(what, facts.trouble, change))
    elif facts.connect_s > _SLOW_CONNECT_S:
        seen = f"took {1000 * facts.connect_s:.0f} ms to connect"
        found.append(warn(what, seen, "a server in the same network: each read of a clip waits for one such round"))
    else:
        found.append(good(what, f"connects in {1000 * facts.connect_s:.1f} ms"))
    return found + check_nfs_options(facts.options, what=f"options for {facts.server}")


def check_speed(speed: ReadSpeed, *, folder: str, clips_s: float) -> list[Finding]:
    """Measured reading against the need of `clips_s` clips a second (0: not known)."""
    what = f"reading {folder}"
    if not speed.read_bytes:
        return [bad(what, speed.trouble or "nothing was read", "a folder of videos that this user may read")]
    could = speed.bytes_s / CLIP_READ_BYTES
    rate = f"{speed.bytes_s / 1e6:.0f} MB/s by {speed.threads} threads"
    seen = f"{rate}: {could:.0f} clips/s of {CLIP_READ_BYTES // 1000} kB"
    if speed.trouble:
        return [bad(what, f"{speed.trouble}; {rate} until then", "the storage: reads must come to an end")]
    if clips_s and could < clips_s:
        need = f"--clips-s {clips_s:g} want {clips_s * CLIP_READ_BYTES / 1e6:.0f} MB/s"
        change = f"{need}: NFS with {WANTED}, faster storage or smaller chunks"
        return [bad(what, seen, change)]
    if clips_s and could < 2 * clips_s:
        return [warn(what, seen, f"twice the need of --clips-s {clips_s:g}, since other jobs read as well")]
    return [good(what, seen)]


def check_gpu(facts: GpuFacts) -> list[Finding]:
    """GPUs, for trainers: a box that decodes needs none."""
    if facts.trouble:
        change = "the driver: nvidia-smi must list the GPUs; not needed where only decode servers run"
        return [warn("GPU", facts.trouble, change)]
    if not facts.names:
        return [good("GPU", "none: this machine can decode, or train on CPUs")]
    count = len(facts.names)
    found = [good("GPU", f"{count} × {facts.names[0]}, driver {facts.driver}")]
    if not facts.torch:
        found.append(warn("torch", "not installed", "pip install 'framefeed[trainer]' where a trainer is to run"))
    elif not facts.flash_attn:
        change = "pip install 'framefeed[flash]'; without it attention is PyTorch's"
        found.append(warn("flash-attn", "not installed", change))
    else:
        found.append(good("flash-attn", "installed"))
    return found


def check_docker(facts: DockerFacts) -> list[Finding]:
    """Engine and Compose for deploy/compose.yaml; a box without them starts systemd's unit or joins a Ray fleet."""
    if not facts.installed:
        return [good("Docker", "not installed: deploy/systemd or framefeed fleet start servers here")]
    if not facts.engine:
        change = "start it (systemctl start docker), or add this user to the group docker"
        return [warn("Docker", facts.trouble or "its engine does not answer", change)]
    found = [
        _version("Docker engine", facts.engine, _ENGINE, "a newer engine"),
        _version("Docker API", facts.api, _API, "a newer engine, or DOCKER_API_VERSION unset"),
    ]
    if not facts.compose:
        return [
            *found,
            bad("Compose", "docker compose is no command here", _PLUGIN),
        ]
    return [*found, _version("Compose", facts.compose, _COMPOSE, _PLUGIN)]


def _version(what: str, seen: str, least: tuple[int, int], change: str) -> Finding:
    numbers = tuple(int(number) for number in re.findall(r"\d+", seen)[:2])
    if len(numbers) == 2 and numbers >= least:
        return good(what, seen)
    return bad(what, f"{seen}, wanted {least[0]}.{least[1]} or later", change)
