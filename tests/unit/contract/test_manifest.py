"""The manifest comes back as it was written; a damaged one is one clear line."""

from pathlib import Path

import pytest

from framefeed.errors import BadInput
from framefeed.manifest import MANIFEST_NAME, Manifest, Refusal, VideoEntry, read_manifest

ENTRY = VideoEntry(
    video="P01/P01_01", codec="h264", duration_s=31.5, fps=29.97, width_px=512, height_px=288, media_bytes=12345,
    chunk_start_s=(0.0, 15.0, 30.0), record_offset=(0, 100, 200), record_bytes=(100, 100, 90),
)  # fmt: skip
MANIFEST = Manifest(videos={ENTRY.video: ENTRY}, refused=(Refusal(path="bad.mp4", reason="no frame decodes"),))


def test_round_trip(tmp_path: Path) -> None:
    MANIFEST.write(tmp_path)
    assert read_manifest(tmp_path) == MANIFEST
    assert [path.name for path in tmp_path.iterdir()] == [MANIFEST_NAME]


def _spoil(folder: Path, change: str) -> None:
    MANIFEST.write(folder)
    path = folder / MANIFEST_NAME
    lines = path.read_text().splitlines()
    if change == "cut":
        lines = lines[:1]
    elif change == "half":
        lines[1] = lines[1][:50]
    elif change == "version":
        lines[0] = lines[0].replace('"framefeed_manifest": 1', '"framefeed_manifest": 9')
    elif change == "columns":
        lines[1] = lines[1].replace("[0, 100, 200]", "[0, 100]")
    elif change == "none":
        lines = [lines[0].replace('"videos": 1', '"videos": 0'), lines[2]]
    elif change == "not json":
        lines[0] = "hello"
    elif change == "list":
        lines[0] = "[]"
    path.write_text("\n".join(lines) if change != "empty" else "")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("empty", "is empty; wanted a header line"),
        ("cut", "lists 0 videos, its header says 1"),
        ("half", "is damaged"),
        ("version", "has version 9, wanted 1"),
        ("columns", "lists 3 chunks without one record for each"),
        ("none", r"lists no usable video \(1 refused\)"),
        ("not json", "is damaged"),
        ("list", "is damaged"),
    ],
)
def test_a_damaged_manifest_is_one_clear_line(tmp_path: Path, change: str, message: str) -> None:
    _spoil(tmp_path, change)
    with pytest.raises(BadInput, match=message) as caught:
        read_manifest(tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_roots_and_manifests_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"root .*/nowhere is not a folder"):
        read_manifest(tmp_path / "nowhere")
    with pytest.raises(BadInput, match="run 'framefeed index"):
        read_manifest(tmp_path)
