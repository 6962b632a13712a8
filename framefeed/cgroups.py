"""The control groups that a process is in, and the CPU time that they leave it; reads /proc and /sys/fs/cgroup.

Both versions of them: v2's one tree, and v1's tree for each controller. It knows nothing of what is done with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_PROC, _MOUNT = Path("/proc"), Path("/sys/fs/cgroup")
_V1_TREES = ("cpu", "cpu,cpuacct")


def own_groups(mount: Path = _MOUNT, proc: Path = _PROC) -> list[Path]:
    """The group we are in and all above it, as folders below `mount`, which is the last; of v1 relative to a tree's."""
    groups = {mount: None}
    for line in lines_of(proc / "self/cgroup"):  # number:controllers:/path
        group = mount / line.split(":", 2)[-1].strip("/")
        groups |= dict.fromkeys((group, *(above for above in group.parents if above.is_relative_to(mount))))
    return sorted(groups, key=lambda group: -len(group.parts))


def read_cpu_quota(mount: Path = _MOUNT, proc: Path = _PROC) -> float | None:
    """CPUs' worth of time that this process's groups may use, or None without a limit. It does not block."""
    return min(_quotas(mount, proc), default=None)


def lines_of(path: Path) -> list[str]:
    """A file's lines; none where it cannot be read."""
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _quotas(mount: Path, proc: Path) -> Iterator[float]:
    for group in own_groups(mount, proc):
        yield from _share(lines_of(group / "cpu.max"))
        for tree in _V1_TREES:
            folder = mount / tree / group.relative_to(mount)
            texts = [lines_of(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
            yield from _share([" ".join(line for text in texts for line in text)])


def _share(lines: list[str]) -> Iterator[float]:
    """Of "QUOTA PERIOD" in microseconds; nothing for "max", -1 and what is neither."""
    words = lines[0].split() if lines else []
    if len(words) == 2 and all(word.isdecimal() and int(word) > 0 for word in words):
        yield int(words[0]) / int(words[1])
