"""A root that others can write: links, pipes and names in it neither overwrite a file nor hold up or end a verb."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from decode_server.chunking.chunk import Chunk
from decode_server.clips.library import Library
from decode_server.indexing.index import build_index
from decode_server.indexing.sidecar import SIDECAR_FOLDER
from framefeed.errors import BadInput
from framefeed.manifest import MANIFEST_NAME, PACKETS_NAME
from framefeed.quarantine import QUARANTINE_NAME
from tests.integration.serving import PATIENCE_S, SERVE
from tests.videos import make_numbered_video


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    make_numbered_video(root / "a.mp4", frames=8, width_px=64, height_px=64)
    make_numbered_video(root / "b.ts", frames=8, width_px=64, height_px=64)
    return root


def test_planted_links_overwrite_nothing(root: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("mine")
    (root / SIDECAR_FOLDER).mkdir()
    for name in (MANIFEST_NAME, PACKETS_NAME):
        for planted in (name, f"{name}.part"):
            (root / planted).symlink_to(target)
    manifest = build_index(root)
    assert target.read_text() == "mine"
    assert not (root / MANIFEST_NAME).is_symlink()
    assert set(manifest.videos) == {"a", "b"}
    left = [path.name for path in root.rglob("*") if path.name.endswith(".part") and not path.is_symlink()]
    assert left == []


def test_pipes_are_refused_and_names_that_are_no_utf8_are_served(root: Path) -> None:
    os.mkfifo(root / "pipe.mp4")
    (root / os.fsdecode(b"\xff\xfe.mp4")).write_bytes((root / "a.mp4").read_bytes())
    os.mkfifo(root / MANIFEST_NAME)
    os.mkfifo(root / PACKETS_NAME)
    manifest = build_index(root)
    assert set(manifest.videos) == {"a", "b", "%FF%FE"}
    reasons = {refusal.path: refusal.reason for refusal in manifest.refused}
    assert "regular file" in reasons["pipe.mp4"]
    library = Library(root)
    odd, plain = (library.index(library.entry(video), 0) for video in ("%FF%FE", "a"))
    assert library.read(odd, 0, odd.media_bytes) == library.read(plain, 0, plain.media_bytes)
    library.close()


@pytest.mark.parametrize("name", [MANIFEST_NAME, PACKETS_NAME, QUARANTINE_NAME])
def test_a_pipe_ends_a_library_in_one_line(root: Path, name: str) -> None:
    build_index(root)
    (root / name).unlink(missing_ok=True)
    os.mkfifo(root / name)
    try:
        library = Library(root)
    except BadInput as error:
        assert "\n" not in str(error)  # noqa: PT017 - the packet indices are opened later
        return
    assert name == PACKETS_NAME
    with pytest.raises(Exception, match=r"pipe|Invalid argument|regular file"):
        library.index(library.entry("a"), 0)
    library.close()


@pytest.mark.slow
def test_a_server_says_so_in_one_line(root: Path) -> None:
    build_index(root)
    (root / MANIFEST_NAME).unlink()
    os.mkfifo(root / MANIFEST_NAME)
    command = [
        sys.executable,
        *SERVE,
        str(root),
        "--bind",
        "tcp://127.0.0.1:0",
        "--metrics-port",
        "0",
        "--workers",
        "1",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 2
    assert "it is a pipe, wanted a regular file" in done.stderr.splitlines()[-1]


def test_a_staging_folder_that_is_a_link_is_not_cleared(root: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs" / "folder"
    theirs.mkdir(parents=True)
    out = tmp_path / "out"
    out.mkdir()
    (out / ".framefeed.parts").symlink_to(theirs.parent)
    with pytest.raises(BadInput, match=r"\.framefeed\.parts is a link"):
        Chunk(src=(root,), out=out).run()
    assert theirs.is_dir()
