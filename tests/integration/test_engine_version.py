"""The engine's version stands for its bytes: a change that makes others is noticed here, and raises it."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest

from decode_server.clips.engine import Engine
from decode_server.clips.library import Library
from decode_server.indexing.index import build_index
from decode_server.service.workers.fingerprint import ENGINE_VERSION, decoder_fingerprint
from framefeed.crops import (
    CentreCrop,
    Crop,
    Letterbox,
    MultiScaleCrop,
    RandomCrop,
    RandomResizedCrop,
    ResizedCentreCrop,
    ViewCrop,
    WholeFrame,
)
from framefeed.request import ClipRequest
from framefeed.sampling import Dense, Linspace, Resampled, Sampling, Segments
from framefeed.sampling_rules import PublishedRule
from tests.videos import make_numbered_video

# Of which bytes: by fingerprint. Another build of FFmpeg has a line of its own, added when it is first tested with.
DIGESTS = {
    "engine1-libavcodec62.28.102-libavutil60.26.102-libswscale9.5.102-x86_64": (
        "4d57342ce4086a80af1d8e9f10d7c24f48a9215114c6b5adee2752f2d09d99c0"
    ),
}
SAMPLINGS: tuple[Sampling, ...] = (
    Segments(frames=4, jitter=True),
    Linspace(frames=4),
    Dense(frames=4, stride=2, jitter=True),
    Resampled(frames=4, fps=10.0),
    PublishedRule(rule="tsn_segments", frames=4, train=True),
)
CROPS: tuple[Crop, ...] = (
    RandomResizedCrop(),
    ResizedCentreCrop(),
    MultiScaleCrop(),
    RandomCrop(width_px=96, height_px=96),
    CentreCrop(width_px=96, height_px=96),
    ViewCrop(view=1, views=3),
    WholeFrame(),
    Letterbox(),
)


def test_bytes_are_those_of_this_engine_version(tmp_path: Path) -> None:
    """The video is coded without loss, so its frames do not depend on the encoder's version."""
    options = {"preset": "ultrafast", "qp": "0"}
    make_numbered_video(tmp_path / "video.mp4", frames=60, width_px=256, height_px=144, options=options)
    build_index(tmp_path)
    engine, digest = Engine(Library(tmp_path)), hashlib.sha256()
    for number, (sampling, crop) in enumerate((s, c) for s in SAMPLINGS for c in CROPS):
        request = ClipRequest(
            video="video",
            start_s=0.1,
            end_s=1.9,
            sampling=sampling,
            crop=crop,
            width_px=224,
            height_px=224,
            seed=number,
            hflip_probability=0.5,
            pixel_format=("rgb24", "yuv420p")[number % 3 == 2],
            interpolation=("bilinear", "bicubic")[number % 2],
        )
        pixels = np.zeros(request.shape, np.uint8)
        engine.decode(request, pixels)
        digest.update(pixels.tobytes())
    fingerprint = decoder_fingerprint()
    if fingerprint not in DIGESTS:
        same_libraries = re.sub(r"engine\d+", f"engine{ENGINE_VERSION - 1}", fingerprint)
        assert same_libraries not in DIGESTS, f"engine {ENGINE_VERSION} needs its line: {digest.hexdigest()}"
        pytest.skip(f"no bytes are recorded for {fingerprint}: {digest.hexdigest()}")
    assert digest.hexdigest() == DIGESTS[fingerprint], "other bytes than before: raise ENGINE_VERSION, add a line"
