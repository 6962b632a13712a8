"""The manifest comes back as it was written, under the identity of what it says; a damaged one is one clear line."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from framefeed.errors import BadInput
from framefeed.manifest import (
    MANIFEST_NAME,
    MAP_NAME,
    Manifest,
    Refusal,
    VideoEntry,
    identity_of,
    read_identity,
    read_manifest,
)

ENTRY = VideoEntry(
    video="P01/P01_01", codec="h264", duration_s=31.5, fps=29.97, width_px=512, height_px=288, media_bytes=12345,
    chunk_start_s=(0.0, 15.0, 30.0), record_offset=(0, 100, 200), record_bytes=(100, 100, 90),
    record_digest=("0a", "1b", "2c"),
)  # fmt: skip
MANIFEST = Manifest(videos={ENTRY.video: ENTRY}, refused=(Refusal(path="bad.mp4", reason="no frame decodes"),))


def test_round_trip(tmp_path: Path) -> None:
    MANIFEST.write(tmp_path)
    assert read_manifest(tmp_path) == MANIFEST
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([MANIFEST_NAME, MAP_NAME])


def _spoil(folder: Path, change: str) -> None:
    MANIFEST.write(folder)
    path = folder / MANIFEST_NAME
    lines = path.read_text().splitlines()
    if change == "cut":
        lines = lines[:1]
    elif change == "half":
        lines[1] = lines[1][:50]
    elif change == "version":
        lines[0] = lines[0].replace('"framefeed_manifest": 2', '"framefeed_manifest": 9')
    elif change == "columns":
        lines[1] = lines[1].replace("[0, 100, 200]", "[0, 100]")
    elif change == "digests":
        lines[1] = lines[1].replace('"1b", ', "")
    elif change == "identity":
        lines[0] = lines[0].replace('"identity": "', '"identity": [7], "was": "')
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
        ("version", "has version 9, wanted 2"),
        ("columns", "lists 3 chunks without one record for each"),
        ("digests", "lists 3 chunks without one digest for each"),
        ("identity", r"line 1: Expected `str`, got `array` - at `\$\.identity`"),
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


@pytest.mark.parametrize(
    "change",
    [
        {"video": "P01/P01_02"},
        {"codec": "hevc"},
        {"duration_s": 31.6},
        {"fps": 30.0},
        {"width_px": 510},
        {"height_px": 286},
        {"media_bytes": 12346},
        {"chunk_start_s": (0.0, 15.0, 29.9)},
        {"record_digest": ("0a", "1b", "2d")},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_decides_a_clip_changes_the_identity(change: dict[str, Any]) -> None:
    entry = replace(ENTRY, **change)
    assert identity_of({entry.video: entry}) != identity_of(MANIFEST.videos)
    more = replace(ENTRY, video="P02")
    assert identity_of({ENTRY.video: ENTRY, more.video: more}) != identity_of(MANIFEST.videos)


def test_order_places_and_refusals_leave_the_identity_alone(tmp_path: Path) -> None:
    more = replace(ENTRY, video="P02")
    moved = replace(ENTRY, record_offset=(7, 108, 210), record_bytes=(101, 102, 91))
    one = Manifest(videos={ENTRY.video: ENTRY, more.video: more})
    other = Manifest(videos={more.video: more, ENTRY.video: moved}, refused=MANIFEST.refused)
    identities = set()
    for name, manifest in (("one", one), ("other", other)):
        (tmp_path / name).mkdir()
        manifest.write(tmp_path / name)
        identities |= {read_identity(tmp_path / name), read_manifest(tmp_path / name).identity}
    assert identities == {identity_of(one.videos)}
    assert re.fullmatch(r"v1-[0-9a-f]{32}", identities.pop())


def test_a_manifest_of_version_1_is_read_and_has_no_identity(tmp_path: Path) -> None:
    MANIFEST.write(tmp_path)
    path = tmp_path / MANIFEST_NAME
    _, *lines = [json.loads(line) for line in path.read_text().splitlines()]
    del lines[0]["record_digest"]
    path.write_text("\n".join(map(json.dumps, [{"framefeed_manifest": 1, "videos": 1}, *lines])) + "\n")
    old = read_manifest(tmp_path)
    assert (old.identity, read_identity(tmp_path)) == ("", "")
    assert old.videos == {ENTRY.video: replace(ENTRY, record_digest=())}


def test_a_header_that_is_none_has_no_identity(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_identity(tmp_path)
    for text in ("", "hello", "[]", '{"identity": 7}', '{"framefeed_manifest": 2, "ident'):
        (tmp_path / MANIFEST_NAME).write_text(text)
        with pytest.raises(BadInput, match="is damaged"):
            read_identity(tmp_path)
