"""The real verb over real videos: the same request gives the same bytes, from any server and at any attempt."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from decode_server.indexing.index import build_index
from framefeed.crops import ResizedCentreCrop
from framefeed.request import ClipRequest
from framefeed.sampling import Dense
from framefeed.wire import ClipReply, DecodeCall, DescribeCall, ErrorReply, ServerReply
from tests.integration.serving import PATIENCE_S, SERVE, Client, Server, request
from tests.videos import make_numbered_video, read_frame_number


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("videos")
    for name in ("one", "two"):
        make_numbered_video(root / f"{name}.mp4", frames=90, width_px=256, height_px=144)
    build_index(root)
    return root


def test_two_servers_ten_attempts_one_digest(root: Path, tmp_path: Path) -> None:
    digests: set[str] = set()
    fingerprints: set[str] = set()
    with Server(tmp_path, str(root), program=SERVE) as one, Server(tmp_path, str(root), program=SERVE) as two:
        assert one.first_line.startswith(f"serving 2 videos of {root} on tcp://127.0.0.1:")
        for server in (one, two):
            with Client(server.endpoint) as client:
                for attempt in range(5):
                    wanted = request("one", seed=12345, side_px=96, frames=8)
                    client.send(DecodeCall(attempt=attempt, deadline_s=PATIENCE_S, request=wanted))
                    client.send(DecodeCall(attempt=99, deadline_s=PATIENCE_S, request=request("two", seed=attempt)))
                for _ in range(10):
                    reply, pixels = client.receive()
                    assert isinstance(reply, ClipReply), reply
                    if reply.attempt != 99:
                        digests.add(hashlib.sha256(pixels).hexdigest())
                client.send(DescribeCall(attempt=1))
                described, _ = client.receive()
                assert isinstance(described, ServerReply)
                fingerprints.add(described.fingerprint)
    assert len(digests) == 1
    assert len(fingerprints) == 1
    assert "libavcodec" in fingerprints.pop()


def test_the_frames_are_those_that_were_asked_for(root: Path, tmp_path: Path) -> None:
    wanted = ClipRequest(
        video="two",
        start_s=1.0,
        end_s=2.0,
        sampling=Dense(frames=8, stride=3, jitter=False),
        crop=ResizedCentreCrop(ratio=256 / 144),
        width_px=256,
        height_px=144,
    )
    with Server(tmp_path, str(root), program=SERVE) as server, Client(server.endpoint) as client:
        reply, pixels = client.decode(wanted)
        assert isinstance(reply, ClipReply), reply
        clip = np.frombuffer(pixels, np.uint8).reshape(wanted.shape)
        assert [read_frame_number(frame[..., 1]) for frame in clip] == [34 + 3 * i for i in range(8)]
        for video, code in (("three", "unknown_video"), ("../one", "unknown_video")):
            refused, _ = client.decode(request(video))
            assert isinstance(refused, ErrorReply)
            assert refused.code == code
        values = server.metrics()
        assert values['framefeed_server_clips_total{codec="h264",socket="0"}'] == 1
        assert values['framefeed_server_index_lookups_total{found="storage"}'] == 1
        for operation in ("open", "read"):
            assert values[f'framefeed_server_storage_duration_seconds_count{{operation="{operation}"}}'] > 0
