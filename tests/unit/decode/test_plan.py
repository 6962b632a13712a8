"""The plan: what is fed is all that the kept frames depend on, little else is read, and the box is lawful."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from decode_server.clips.plan import READ_GAP_BYTES, ClipPlan, plan_clip
from decode_server.media.packet_index import DISPOSABLE, HIDDEN, KEY
from framefeed.crops import RandomResizedCrop, ResizedCentreCrop
from framefeed.errors import BadRequest, UnsupportedMedia
from framefeed.request import ClipRequest
from framefeed.sampling import AtFrames, Dense, Segments
from tests.unit.decode.indices import Structure, make_index, structures


def _request(start_s: float, end_s: float, *, frames: int = 4, seed: int = 0, dense: bool = False) -> ClipRequest:
    sampling = Dense(frames=frames, stride=2) if dense else Segments(frames=frames, jitter=True)
    return ClipRequest(
        video="v", start_s=start_s, end_s=end_s, sampling=sampling, crop=RandomResizedCrop(),
        width_px=64, height_px=64, seed=seed,
    )  # fmt: skip


shares = st.tuples(st.floats(0, 0.99), st.floats(0.01, 1))


@given(structures(), shares, st.integers(1, 9), st.integers(0, 2**32), st.booleans())
def test_plans_are_lawful(structure: Structure, span: tuple[float, float], frames: int, seed: int, dense: bool) -> None:
    index = structure.index
    start_s = span[0] * index.duration_s
    end_s = start_s + max(span[1] * (index.duration_s - start_s), 0.001)
    request = _request(start_s, end_s, frames=frames, seed=seed, dense=dense)
    plan = plan_clip(request, [(0.0, index)], duration_s=index.duration_s)
    (chunk,) = plan.chunks
    fed: set[int] = set()
    for run in chunk.runs:
        feed = run.feed.tolist()
        assert feed == sorted(set(feed)), "decode order, nothing twice"
        assert index.flags[feed[0]] & KEY, "a run begins at a key packet"
        assert set(run.keep) <= set(feed), "kept is fed"
        for packet in run.keep:
            _assert_closed(structure, packet, set(feed))
        unneeded = [p for p in feed if p not in run.keep and index.flags[p] & DISPOSABLE]
        assert unneeded == [], "nothing is fed that nothing depends on"
        assert not fed & set(feed), "nothing is fed twice"
        fed |= set(feed)
    _assert_reads(chunk.reads, index.offset[sorted(fed)], index.size[sorted(fed)])
    _assert_places(plan, request)


def _assert_closed(structure: Structure, packet: int, fed: set[int]) -> None:
    """Everything that a kept packet's frame depends on, to the end, is fed."""
    todo, seen = [packet], set()
    while todo:
        at = todo.pop()
        assert at in fed, f"packet {packet} depends on {at}, which is not fed"
        seen.add(at)
        todo += structure.needs[at] - seen


def _assert_reads(reads: tuple[tuple[int, int], ...], offsets: np.ndarray, sizes: np.ndarray) -> None:
    ends = offsets + sizes
    assert all(any(start <= o and e <= end for start, end in reads) for o, e in zip(offsets, ends, strict=True))
    assert list(reads) == sorted(reads)
    assert all(later - earlier > READ_GAP_BYTES for (_, earlier), (later, _) in pairwise(reads))
    read_bytes = sum(end - start for start, end in reads)
    edges = np.sort(offsets)
    gaps = np.maximum(edges[1:] - np.maximum.accumulate(np.sort(ends))[:-1], 0)
    assert read_bytes <= sizes.sum() + gaps[gaps <= READ_GAP_BYTES].sum()


def _assert_places(plan: ClipPlan, request: ClipRequest) -> None:
    (chunk,) = plan.chunks
    places = {place: packet for run in chunk.runs for packet, at in run.keep.items() for place in at}
    assert sorted(places) == list(range(request.sampling.frames))
    times_s = [float(chunk.index.pts[places[i]]) / 30 for i in range(len(places))]
    assert times_s == pytest.approx(plan.pts_s)
    assert plan.pts_s == tuple(sorted(plan.pts_s))
    assert plan.box.x_px + plan.box.width_px <= 512
    assert plan.box.y_px + plan.box.height_px <= 288


PLAIN = make_index(list(range(30)), [KEY] + [0] * 29, [1000] * 30, [0] * 30)


def test_a_clip_across_chunks_has_one_crop_and_all_its_places() -> None:
    request = _request(0.5, 1.5, frames=8)
    plan = plan_clip(request, [(0.0, PLAIN), (1.0, replace(PLAIN, path="w.mp4"))], duration_s=2.0)
    assert [chunk.index.path for chunk in plan.chunks] == ["v.mp4", "w.mp4"]
    places = [sorted(at for run in chunk.runs for ats in run.keep.values() for at in ats) for chunk in plan.chunks]
    assert places == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert plan.box == request.crop.choose(512, 288, request.seed)


@pytest.mark.parametrize(
    ("start_s", "end_s", "message"),
    [
        (2.5, 3.0, r"span \[2.5, 3\) s lies outside v, which is 1.000 s long"),
        (0.5, 2.5, r"span \[0.5, 2.5\) s lies outside v"),
        (1.0, 1.1, "lies outside v"),
    ],
)
def test_a_span_outside_the_video_is_refused_with_its_length(start_s: float, end_s: float, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        plan_clip(_request(start_s, end_s), [(0.0, PLAIN)], duration_s=1.0)


def test_a_span_a_little_over_the_end_is_cut_to_it() -> None:
    plan = plan_clip(_request(0.5, 1.5), [(0.0, PLAIN)], duration_s=1.0)
    same = plan_clip(_request(0.5, 1.0), [(0.0, PLAIN)], duration_s=1.0)
    assert plan.pts_s == same.pts_s


def test_chunks_of_different_size_are_refused() -> None:
    other = replace(PLAIN, path="w.mp4", width_px=640)
    with pytest.raises(UnsupportedMedia, match=r"w\.mp4 differs from v\.mp4 in size or colour"):
        plan_clip(_request(0.5, 1.5), [(0.0, PLAIN), (1.0, other)], duration_s=2.0)


def test_chunks_that_overlap_in_time_are_refused() -> None:
    with pytest.raises(UnsupportedMedia, match="its chunks overlap in time"):
        plan_clip(_request(0.1, 0.9), [(0.0, PLAIN), (0.5, PLAIN)], duration_s=1.5)


def test_hidden_frames_are_fed_but_never_kept() -> None:
    flags = [KEY | HIDDEN, HIDDEN, *[0] * 28]
    index = make_index(list(range(30)), flags, [1000] * 30, [0] * 30)
    request = structs.replace(_request(0.0, 0.2, frames=2), crop=ResizedCentreCrop())
    plan = plan_clip(request, [(0.0, index)], duration_s=1.0)
    (run,) = plan.chunks[0].runs
    assert run.feed.tolist()[:2] == [0, 1]
    assert min(run.keep) >= 2


def test_padding_is_planned_for_and_read_for_nothing() -> None:
    request = structs.replace(_request(0.9, 1.0), sampling=AtFrames(offsets_frames=(9, 0, 9, 2), short="pad"))
    plan = plan_clip(request, [(0.0, PLAIN)], duration_s=1.0)
    assert plan.padding == (True, False, True, False)
    assert plan.pts_s == pytest.approx((27 / 30, 27 / 30, 27 / 30, 29 / 30))
    places = sorted(place for run in plan.chunks[0].runs for at in run.keep.values() for place in at)
    assert places == [1, 3]
    only_padding = structs.replace(request, sampling=AtFrames(offsets_frames=(9,), short="pad"))
    with pytest.raises(BadRequest, match=r"no frame of the clip lies in \[0.9, 1\) s"):
        plan_clip(only_padding, [(0.0, PLAIN)], duration_s=1.0)
