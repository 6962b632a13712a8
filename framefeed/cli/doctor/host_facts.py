"""What was read of a machine, as values: recorded once, judged anywhere. They know neither how nor what it means."""

from __future__ import annotations

from dataclasses import dataclass, field

from framefeed.cli.doctor.mounts import Mount


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadSpeed:
    """How fast files of a folder were read, past this machine's cache: bytes and seconds, by how many threads."""

    read_bytes: int
    took_s: float
    threads: int
    trouble: str = ""

    @property
    def bytes_s(self) -> float:
        """0 where nothing was read."""
        return self.read_bytes / self.took_s if self.took_s > 0 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerFacts:
    """`installed`: the command is there; versions are "" where they were not told, and `trouble` says why."""

    installed: bool = False
    engine: str = ""
    api: str = ""
    compose: str = ""
    trouble: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuFacts:
    """`names` of NVIDIA's GPUs, `driver` its version, and the modules that are installed beside them."""

    names: tuple[str, ...] = ()
    driver: str = ""
    trouble: str = ""
    torch: bool = False
    flash_attn: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NfsFacts:
    """An NFS server that is to be mounted: whether this kernel has a client (None: it cannot be told), how long the
    server took to be connected to (None: `trouble` says why), and the options that it is to be mounted with.
    """

    server: str
    client: bool | None
    connect_s: float | None
    options: tuple[str, ...]
    trouble: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """A machine. `ports` that are wanted, and of those in use what the system said; limits of open files, -1 none."""

    soft_files: int
    hard_files: int
    memory_bytes: int
    swap_bytes: int = 0
    ports: tuple[int, ...] = ()
    taken_ports: dict[int, str] = field(default_factory=dict)
    docker: DockerFacts = DockerFacts()
    gpu: GpuFacts = GpuFacts()
    root: str = ""
    mount: Mount | None = None
    speed: ReadSpeed | None = None
    nfs: NfsFacts | None = None
