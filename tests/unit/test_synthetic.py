"""Synthetic videos: deterministic by seed, moving smoothly, with cuts."""

from __future__ import annotations

import itertools
from pathlib import Path

import av
import numpy as np
import pytest

from decode_server.chunking.synthetic import make_videos
from framefeed.errors import BadInput


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    made = [
        make_videos(tmp_path / str(n), videos=2, seconds=0.5, size_px=(128, 96), seed=seed)
        for n, seed in enumerate((7, 7, 8))
    ]
    a, b, c = ([path.read_bytes() for path in paths] for paths in made)
    assert a == b
    assert len({*a, *c}) == 4


def test_a_video_has_the_asked_length_moves_between_frames_and_cuts_between_scenes(tmp_path: Path) -> None:
    (path,) = make_videos(tmp_path, videos=1, seconds=8, size_px=(128, 96), fps=15, seed=1)
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="gray").astype(np.int16) for frame in container.decode(video=0)]
    assert len(frames) == 120
    change = [float(np.abs(b - a).mean()) for a, b in itertools.pairwise(frames)]
    cuts = [n for n, size in enumerate(change) if size > 5 * np.median(change)]
    assert min(change) > 0.5
    assert 1 <= len(cuts) <= 4


@pytest.mark.parametrize("fields", [{"videos": 0}, {"seconds": 0}, {"size_px": (129, 96)}, {"size_px": (16, 16)}])
def test_nothing_to_make_is_bad_input(tmp_path: Path, fields: dict[str, object]) -> None:
    with pytest.raises(BadInput, match="wanted"):
        make_videos(tmp_path, **fields)  # type: ignore[arg-type]
