"""A trainer in a process of its own, fed by a server that it starts itself: prints the server's process once it has a
batch, then goes on, or does what it is told.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path

from framefeed.manifest import read_manifest
from tests.integration.test_feed import POLICY
from trainer_client.loader import ClipLoader, LoaderOptions
from trainer_client.samples import VideoWindows


def children_of(parent: int) -> list[int]:
    """The processes that another one started, by /proc."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == parent and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def servers_of(parent: int) -> list[int]:
    """Those of them that are servers."""
    found = []
    for pid in children_of(parent):
        with contextlib.suppress(OSError):
            if b"serve" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                found.append(pid)
    return found


def main(root: Path, then: str) -> None:
    dataset = VideoWindows(read_manifest(root), window_s=1.0)
    loader = ClipLoader(dataset, POLICY, LoaderOptions(servers="local", root=root, batch_clips=2, stall_s=60.0))
    next(loader)
    print(*servers_of(os.getpid()), flush=True)
    if then == "drop":
        del loader
    elif then == "fork" and os.fork() == 0:
        loader.close()
        os._exit(0)
    if then == "fork":
        os.wait()
        for _ in range(3):
            next(loader)
        print("went on", flush=True)
    while then != "end":
        time.sleep(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
