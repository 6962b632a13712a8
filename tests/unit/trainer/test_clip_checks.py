"""Cut, flicker and duplicate checks: they fire on made faults, and are silent on a hundred clean clips."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from decode_server.chunking.synthetic import make_videos
from decode_server.chunking.synthetic_actions import make_actions
from decode_server.clips.engine import Engine
from decode_server.clips.library import Library
from decode_server.indexing.index import build_index
from framefeed.crops import RandomResizedCrop
from framefeed.request import ClipRequest
from framefeed.sampling import Dense, Segments
from framefeed.sampling_rules import PublishedRule
from tests.videos import SHARED_VIDEOS, make_numbered_video
from trainer_client.training.watch.clip_checks import FINDINGS, findings

Luma = npt.NDArray[np.uint8]

# Ways to sample: dense ones, where motion shows, and sparse ones.
WAYS = (
    Dense(frames=16, stride=1),
    Dense(frames=16, stride=4),
    Dense(frames=8, stride=2),
    Segments(frames=8, jitter=True),
    PublishedRule(rule="avion_sparse", frames=4, stride=1, train=True),
)
_LEAST_CROP = {"act": 0.95}  # their ground stands still: a crop beside what moves has the same picture twice
_SCENE_S = {"act": 1.0, "syn": 2.0}  # made videos: no clip crosses the end of a scene, where a cut is


def moving(frames: int = 16, side_px: int = 64) -> Luma:
    """A textured ground under a camera that moves a pixel a frame, with a little noise."""
    rng = np.random.default_rng(1)
    ground = np.kron(rng.integers(40, 200, (20, 30)), np.ones((6, 6)))
    clip = np.stack([ground[t : t + side_px, 2 * t : 2 * t + side_px] for t in range(frames)])
    return (clip + rng.integers(0, 3, clip.shape)).astype(np.uint8)


def times(luma_TYX: Luma, *, apart_s: float = 0.1) -> list[float]:
    return [apart_s * t for t in range(len(luma_TYX))]


def frame_from_elsewhere(luma: Luma) -> Luma:
    luma[5] = np.random.default_rng(7).integers(0, 255, luma[5].shape)
    return luma


def spliced(luma: Luma) -> Luma:
    luma[9:] = luma[9:, ::-1, ::-1]
    return luma


def black_frame(luma: Luma) -> Luma:
    luma[7] = 0
    return luma


def gain_in_turn(luma: Luma) -> Luma:
    gain = 1 + 0.1 * (-1.0) ** np.arange(len(luma))
    return np.clip(luma * gain[:, None, None], 0, 255).astype(np.uint8)


def frame_again(luma: Luma) -> Luma:
    luma[8] = luma[7]
    return luma


def first_frame_instead(luma: Luma) -> Luma:
    luma[[4, 11]] = luma[0]
    return luma


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        (frame_from_elsewhere, "cut"),
        (spliced, "cut"),
        (black_frame, "cut"),
        (gain_in_turn, "flicker"),
        (frame_again, "duplicate"),
        (first_frame_instead, "duplicate"),
    ],
)
def test_a_made_fault_is_found(fault: Callable[[Luma], Luma], name: str) -> None:
    clean = moving()
    assert findings(clean, times(clean)) == ()
    assert name in findings(fault(clean.copy()), times(clean))


def test_what_is_no_fault_is_none() -> None:
    still = np.repeat(moving()[:1], 16, axis=0)
    assert findings(still, times(still)) == (), "a picture that stands"
    held = moving()
    held[12:] = held[11]
    at_s = [*times(held)[:12], *[1.1] * 4]
    assert findings(held, at_s) == (), "a frame that the sampling holds has one time"
    black = np.zeros((16, 8, 8), np.uint8)
    assert findings(black, times(black)) == ()
    few = frame_from_elsewhere(moving())[4:8]
    assert findings(few, times(few)) == (), "nothing stands out of four frames"
    sparse = frame_from_elsewhere(moving())
    assert findings(sparse, times(sparse, apart_s=2.0)) == (), "moments two seconds apart have nothing in common"


def _crop(video: str) -> RandomResizedCrop:
    return RandomResizedCrop(scale=(_LEAST_CROP.get(video[:3], 0.5), 1.0), ratio=(3 / 4, 4 / 3))


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, Luma, list[float]]]:
    """Clips of made videos of three kinds, and of real ones where they are."""
    root = tmp_path_factory.mktemp("videos")
    make_actions(root / "act", train=12, val=4, test=0, scenes_a_video=4)
    make_videos(root / "syn", videos=2, seconds=2, size_px=(256, 144))
    for number in range(2):
        make_numbered_video(root / f"num{number}.mp4", frames=90 + number, width_px=256, height_px=144)
    for path in SHARED_VIDEOS.iterdir() if SHARED_VIDEOS.is_dir() else ():
        if path.name != "corrupted.mp4":  # whose frames do not decode
            shutil.copyfile(path, root / path.name)
    build_index(root)
    library = Library(root)
    engine, clips = Engine(library), []
    for video, entry in library.manifest.videos.items():
        for number in range(8):
            rng = random.Random(f"{video} {number}")
            span_s = min(_SCENE_S.get(video[:3], 4.0), entry.duration_s)
            start_s = rng.uniform(0, entry.duration_s - span_s)
            if video[:3] in _SCENE_S:
                start_s -= start_s % span_s
            request = ClipRequest(
                video=video, start_s=start_s, end_s=start_s + span_s - 1e-6, sampling=WAYS[number % len(WAYS)],
                crop=_crop(video), width_px=112, height_px=112,
                seed=number, hflip_probability=0.5, pixel_format="yuv420p",
            )  # fmt: skip
            pixels = np.empty(request.shape, np.uint8)
            info = engine.decode(request, pixels)
            clips.append((video, pixels[:, :112], list(info.pts_s)))
    return clips


@pytest.mark.slow
def test_a_hundred_clean_clips_have_none(clean: list[tuple[str, Luma, list[float]]]) -> None:
    assert len(clean) >= (100 if SHARED_VIDEOS.is_dir() else 70)
    odd = {(video, at_s[0]): found for video, luma, at_s in clean if (found := findings(luma, at_s))}
    assert odd == {}


FAULTS = {"cut": (frame_from_elsewhere, black_frame), "flicker": (gain_in_turn,), "duplicate": (frame_again,)}


@pytest.mark.slow
@pytest.mark.parametrize("name", FINDINGS)
def test_faults_made_in_them_are_found(clean: list[tuple[str, Luma, list[float]]], name: str) -> None:
    """In those with motion: 16 frames of different times, close together. Seventeen in twenty, of all kinds."""
    seen = Counter[bool]()
    for _, luma, at_s in clean:
        changes = np.abs(np.diff(luma.astype(int), axis=0)).mean(axis=(1, 2))
        if len(set(at_s)) < 16 or np.diff(at_s).max() > 0.3 or np.median(changes) < 0.5:
            continue
        for fault in FAULTS[name]:
            seen[name in findings(fault(luma.copy()), at_s)] += 1
    assert seen.total() >= 10
    assert seen[True] >= 0.85 * seen.total(), seen
