"""The crf of a matched profile: found on parts of the source, deterministic, and only where it is asked for."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from decode_server.chunking.profiles import PROFILES, profile_named
from decode_server.chunking.quality_match import matched
from decode_server.chunking.synthetic import make_videos

TRAIN = PROFILES["train"]
CHUNK = (sys.executable, "-c", "import sys; from framefeed.cli.command import main; sys.exit(main())", "chunk")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    (video,) = make_videos(tmp_path_factory.mktemp("match"), videos=1, seconds=4, size_px=(192, 108), seed=5)
    return video


@pytest.mark.slow
def test_it_finds_the_same_crf_each_time_and_nearly_the_same_wherever_it_begins(source: Path) -> None:
    found = matched(TRAIN, source, short_side_px=108)
    assert found == matched(TRAIN, source, short_side_px=108)
    assert found.crf != TRAIN.crf, "this source is calm: the usual crf is not archive's quality"
    near = matched(TRAIN.at_crf(TRAIN.crf - 2), source, short_side_px=108)
    assert abs(near.crf - found.crf) <= 0.5


def test_only_the_crf_changes(source: Path) -> None:
    found = matched(TRAIN, source, short_side_px=108)
    assert replace(found, options=TRAIN.options) == TRAIN
    assert dict(found.options) | {"crf": ""} == dict(TRAIN.options) | {"crf": ""}


@pytest.mark.parametrize("options", ["crf=30", "qp=20", "bitrate=500"])
def test_a_rate_that_the_user_sets_is_kept(options: str, source: Path) -> None:
    profile = profile_named("train", options=options)
    assert matched(profile, source, short_side_px=108) is profile


def test_other_options_leave_the_match_on(source: Path) -> None:
    assert matched(profile_named("train", options="preset=veryfast"), source, short_side_px=108).crf != TRAIN.crf


def test_archive_and_other_encoders_are_not_matched(source: Path) -> None:
    for profile in (PROFILES["archive"], profile_named("train", encoder="libx265")):
        assert matched(profile, source, short_side_px=108) is profile


def test_a_source_that_does_not_decode_keeps_the_profile(tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"\0" * 1000)
    assert matched(TRAIN, broken, short_side_px=108) is TRAIN


@pytest.mark.slow
def test_what_lay_in_memory_before_changes_no_byte(source: Path, tmp_path: Path) -> None:
    """glibc fills what it hands out and takes back with the given byte; 192 px are no multiple of 256."""
    digests = set()
    for fill in ("0", "85", "255"):
        root = tmp_path / fill
        command = [*CHUNK, str(source), "--out", str(root), "--short-side-px", "108"]
        subprocess.run(command, env=os.environ | {"MALLOC_PERTURB_": fill}, check=True, capture_output=True)
        (chunk,) = root.glob("*/*.mp4")
        digests.add(hashlib.sha256(chunk.read_bytes()).hexdigest())
    assert len(digests) == 1
