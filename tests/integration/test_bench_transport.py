"""The transport bench at a small size: it runs, proves its bytes, and writes what README and lead read."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from decode_server.service.range_allocator import ALIGN_BYTES
from framefeed.errors import BadInput, FramefeedError
from framefeed_bench.one_core import cpu_s, on_core, run_on_core, two_cores
from framefeed_bench.reading import POLICY, Reading
from framefeed_bench.ready_worker import ReadyEngine, ready_bytes
from framefeed_bench.transport import TransportBench
from tests.clip_servers import ClipServer
from trainer_client.samples import Sample


@pytest.mark.slow
@pytest.mark.long
def test_every_transport_gets_its_row(tmp_path: Path) -> None:
    out = tmp_path / "transport.json"
    TransportBench(clips=64, decoded_clips=32, rounds=1, out=out).run()
    result = json.loads(out.read_text())
    assert {"processor", "commit", "date"} <= set(result)
    assert set(result["ready"]) == set(result["ready_16_frames"]) == {"tcp", "shm", "grpc", "curve"}
    assert all(0 < ratio < 2 for ratio in result["curve_over_tcp"].values())
    for bare in result["bare_zeromq_cpu_ms"].values():
        assert set(bare) == {"tcp", "curve"}
        assert all(row["sender"] > 0 and row["receiver"] > 0 for row in bare.values())
    assert set(result["decoded"]) == {"in process", *result["ready"]}
    for row in (*result["ready"].values(), *result["ready_16_frames"].values(), *result["decoded"].values()):
        assert row["clips_per_s"] > 0
    assert all(row["client_cpu_ms"] >= row["feed_cpu_ms"] * 0.5 > 0 for row in result["ready"].values())


def test_the_ready_clip_is_the_same_at_every_place_of_the_buffer_pool() -> None:
    """Places begin on a page."""
    filled = ready_bytes(40 * ALIGN_BYTES)
    clip = ready_bytes(POLICY.clip_bytes if POLICY.clip_bytes < filled.size // 2 else 10 * ALIGN_BYTES + 7)
    for page in range(5):
        at = page * ALIGN_BYTES
        assert np.array_equal(filled[at : at + clip.size], clip[: filled.size - at])


def test_the_ready_engine_s_info_fits_the_request() -> None:
    request = POLICY.request(Sample(video="any", start_s=0.0, end_s=1.0), seed=1)
    infos = ReadyEngine().decode_together([request, request], [memoryview(b""), memoryview(b"")])
    assert [len(info.pts_s) for info in infos] == [request.sampling.frames] * 2


def test_other_bytes_than_the_ready_ones_are_no_figure() -> None:
    with ClipServer() as server:
        samples = [Sample(video="any", start_s=0.0, end_s=1.0)]
        reading = Reading(url=server.url, pid=1, clips=1, samples=samples, ready=True)
        with pytest.raises(FramefeedError, match="gave other bytes"):
            reading()


def test_work_is_pinned_and_its_result_comes_back() -> None:
    first, second = two_cores()
    assert run_on_core(second, _affinity) == {second}
    with on_core(first):
        assert _affinity() == {first}
    assert _affinity() >= {first, second}
    assert cpu_s(os.getpid()) > 0


def _affinity() -> set[int]:
    return os.sched_getaffinity(0)


def test_an_unknown_transport_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="'pigeon' is none"):
        TransportBench(transports=("pigeon",), out=tmp_path / "x").run()
    with pytest.raises(BadInput, match="rounds is 0"):
        TransportBench(rounds=0, out=tmp_path / "x").run()
