"""A server of 1.2 million videos holds their manifest once, in memory that its workers share."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from framefeed.manifest import MANIFEST_NAME, MAP_NAME, PACKETS_NAME, MapNote, VideoEntry, pack_entry
from framefeed.record_map import Record, RecordWriter
from tests.integration.serving import SERVE, Server, wait_until

pytestmark = pytest.mark.slow

VIDEOS = 1_200_000
WORKERS = 2
WORKER_BYTES = 60_000_000
RECORD_BYTES = 5000
ENTRY = VideoEntry(
    video="class/video", codec="h264", duration_s=10.0, fps=29.97, width_px=340, height_px=256, media_bytes=1_000_000,
    chunk_start_s=(0.0,), record_offset=(0,), record_bytes=(RECORD_BYTES,), record_digest=("0" * 32,),
)  # fmt: skip
IDENTITY = "v1-" + "a" * 32


def name_of(number: int) -> str:
    return f"class/{number:012d}"


def records() -> Iterator[Record]:
    """As pack_entry gives them, of entries that differ in what has the same length each."""
    body = pack_entry(ENTRY)
    return ((name_of(number), body) for number in range(VIDEOS))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    with (folder / MAP_NAME).open("w+b") as file, (folder / MANIFEST_NAME).open("w") as manifest:
        writer = RecordWriter(file)
        writer.write(records())
        digest = writer.places()
        head = {"framefeed_manifest": 2, "videos": VIDEOS, "identity": IDENTITY, "map": digest}
        manifest.write(json.dumps(head) + "\n")
        line = json.dumps({"kind": "video", **asdict(replace(ENTRY, video="NAME"))})
        manifest.writelines(line.replace("NAME", name_of(number)) + "\n" for number in range(VIDEOS))
        manifest.flush()
        writer.head(MapNote(IDENTITY, manifest.tell(), digest).pack())
    (folder / PACKETS_NAME).touch()
    os.truncate(folder / PACKETS_NAME, VIDEOS * RECORD_BYTES)
    os.utime(folder / MANIFEST_NAME)
    return folder


def private_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) * 1024


def manifest_memory(pid: int) -> set[str]:
    """Device and inode of the mapped manifest."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return {" ".join(line.split()[3:5]) for line in lines if "framefeed-manifest" in line}


def test_workers_share_the_memory_of_a_large_manifest(root: Path, tmp_path: Path) -> None:
    options = ("--workers", str(WORKERS), "--threads", "1")
    with Server(tmp_path, str(root), *options, program=SERVE) as server:
        wait_until("all workers are up", lambda: server.log().count(" is up on CPUs") == WORKERS)
        assert "is not used" not in server.log()
        workers = server.workers()
        (memory,) = {frozenset(manifest_memory(pid)) for pid in workers}
        assert len(memory) == 1
        for pid in workers:
            assert private_bytes(pid) <= WORKER_BYTES
        print([private_bytes(pid) for pid in workers])
