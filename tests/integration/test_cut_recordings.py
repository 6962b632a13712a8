"""A recording that is cut off at any byte, alone or with another one joined on, never shows a frame at another's time:
what is served is right, lasts as long as it says, and a line names what is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from decode_server.indexing.probe import ProbeOptions, probe_file
from decode_server.media.media_use import MediaUse
from tests.barred import Stretch, read_picture, write_video
from tests.two_ways import as_it_is, decoded, duration_s, shown_at_each

FPS = 25
FRAMES = 60
CUTS = 7
# Nothing in an FLV file tells of a cut between packets, and Matroska's length is that of all streams together.
TOLD_FRAMES = {"ts": 0, "mp4": 0, "mkv": FPS / 2, "flv": FRAMES}
STEADY = {"keyint": "12", "bframes": "3", "b-adapt": "0", "b-pyramid": "normal"}
X264 = {"x264-params": ":".join(f"{name}={value}" for name, value in STEADY.items())}


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings in which frames show before others that are stored before them."""
    folder = tmp_path_factory.mktemp("recordings")
    for name, container in (("a.ts", None), ("a.mkv", None), ("a.flv", None), ("a.mp4", {"movflags": "faststart"})):
        write_video(folder / name, Stretch(frames=FRAMES, options=X264), container=container)
    write_video(folder / "b.ts", Stretch(first=100, frames=30, options=X264))
    write_video(folder / "c.ts", Stretch(first=100, frames=30, codec="mpeg2video", rate=50))
    return folder


def _shown(path: Path, folder: Path) -> tuple[list[int], MediaUse]:
    """The number that is served in the middle of each frame's time, as far as the index says that there are frames, and
    what is said of the file. Its frames decode alike.
    """
    use = probe_file(path, name=path.name, chunk=False, options=ProbeOptions(index_folder=folder)).use
    root = as_it_is(path, folder / "root")
    frames = duration_s(root) * FPS
    assert frames == pytest.approx(round(frames), abs=0.06), "the last frame is on show for as long as the others"
    shown = shown_at_each(root, [(place + 0.5) / FPS for place in range(round(frames))])
    numbers = [read_picture(one.rgb)[0] for one in shown]
    whole, use_of_chunks = decoded(path)
    assert [number for _, number in whole] == numbers
    assert [at_s for at_s, _ in whole] == pytest.approx(np.arange(len(numbers)) / FPS, abs=2e-3)
    assert bool(use_of_chunks.losses) == bool(use.losses)
    return numbers, use


def _cuts(path: Path, cuts: int = CUTS) -> Sequence[int]:
    size = path.stat().st_size
    return [int(at) for at in np.linspace(0.35 * size, size - 30, cuts)]


@pytest.mark.parametrize("suffix", ["ts", "mkv", "flv", "mp4"])
def test_what_is_left_of_a_file_is_right_and_the_rest_is_named(recordings: Path, tmp_path: Path, suffix: str) -> None:
    source = recordings / f"a.{suffix}"
    for at in _cuts(source):
        path = tmp_path / str(at) / f"a.{suffix}"
        path.parent.mkdir()
        path.write_bytes(source.read_bytes()[:at])
        numbers, use = _shown(path, path.parent)
        assert numbers == list(range(len(numbers))), at
        if len(numbers) < FRAMES - TOLD_FRAMES[suffix]:
            (loss,) = use.losses
            assert (loss.start_s, loss.end_s) == (pytest.approx(len(numbers) / FPS, abs=2e-3), None), at


@pytest.mark.parametrize("name", ["a.ts", "a.mkv", "a.flv", "a.mp4"])
def test_a_whole_recording_is_used_whole(recordings: Path, tmp_path: Path, name: str) -> None:
    numbers, use = _shown(recordings / name, tmp_path)
    assert numbers == list(range(FRAMES))
    assert use.state == "whole"


@pytest.mark.parametrize("at", [0.5, 0.6, 0.7, 0.8])
def test_a_recording_that_is_joined_onto_one_that_is_cut_follows_its_last_whole_frame(
    recordings: Path, tmp_path: Path, at: float
) -> None:
    first, second = (recordings / "a.ts").read_bytes(), (recordings / "b.ts").read_bytes()
    cut = int(at * len(first)) // 188 * 188
    path = tmp_path / "joined.ts"
    path.write_bytes(first[:cut] + second)
    numbers, _ = _shown(path, tmp_path)
    own = [number for number in numbers if number < 100]
    assert own == list(range(len(own)))
    assert numbers[len(own) :] == list(range(100, 130))


def test_what_another_codec_s_recording_leaves_of_the_one_before_is_right(recordings: Path, tmp_path: Path) -> None:
    path = tmp_path / "codecs.ts"
    path.write_bytes((recordings / "a.ts").read_bytes() + (recordings / "c.ts").read_bytes())
    numbers, use = _shown(path, tmp_path)
    assert FRAMES - 4 < len(numbers) <= FRAMES
    assert numbers == list(range(len(numbers)))
    (loss,) = use.losses
    assert (loss.start_s, loss.end_s) == (pytest.approx(len(numbers) / FPS), None)
