"""The encoding profiles keep what random access rests on, checked on encoded streams, not on option strings."""

from __future__ import annotations

import pickle
from pathlib import Path

import av
import pytest

from decode_server.chunking.encoder_trial import try_encoder
from decode_server.chunking.profiles import PROFILES, EncodingProfile, profile_named
from decode_server.chunking.transcode import ChunkSettings, chunk_video
from framefeed.errors import BadInput
from tests.videos import make_numbered_video


def _packets(path: Path) -> list[tuple[int, bool, bytes]]:
    with av.open(str(path)) as container:
        return [
            (packet.pts or 0, packet.is_keyframe, bytes(packet)) for packet in container.demux(video=0) if packet.size
        ]


def _slices(payload: bytes) -> list[tuple[int, int]]:
    """(nal_ref_idc, nal_unit_type) of the coded slices in a length-prefixed H.264 packet."""
    found, at = [], 0
    while at < len(payload):
        size = int.from_bytes(payload[at : at + 4], "big")
        header = payload[at + 4]
        if header & 31 in (1, 5):
            found.append((header >> 5 & 3, header & 31))
        at += 4 + size
    return found


def _chunk(tmp_path: Path, profile: str, **fields: object) -> Path:
    source = make_numbered_video(tmp_path / "s.mp4", width_px=128, height_px=96, **fields)
    settings = ChunkSettings(profile=profile_named(profile))
    chunk_video(source, tmp_path / "out", staging=tmp_path / "parts", settings=settings, on_bytes=lambda _: None)
    return tmp_path / "out" / "0.mp4"


def test_train_has_closed_gops_of_41_at_fixed_distance_whatever_the_source_s_own_keyframes(tmp_path: Path) -> None:
    path = _chunk(tmp_path, "train", frames=130, options={"g": "7", "preset": "veryfast"})
    packets = _packets(path)
    in_order = sorted(pts for pts, _, _ in packets)
    keys = [in_order.index(pts) for pts, is_key, _ in packets if is_key]
    assert keys == [0, 41, 82, 123]
    assert all(_slices(payload)[0][1] == 5 for _, is_key, payload in packets if is_key), "every keyframe is an IDR"


def test_train_has_seven_disposable_b_frames_between_references(tmp_path: Path) -> None:
    path = _chunk(tmp_path, "train", frames=90)
    disposable = {pts for pts, _, payload in _packets(path) if all(ref == 0 for ref, _ in _slices(payload))}
    with av.open(str(path)) as container:
        frames = [(frame.pts, frame.pict_type) for frame in container.decode(video=0)]
    b_frames = {pts for pts, kind in frames if kind == av.video.frame.PictureType.B}
    assert b_frames
    assert b_frames == disposable
    run = longest = 0
    for _, kind in frames:
        run = run + 1 if kind == av.video.frame.PictureType.B else 0
        longest = max(longest, run)
    assert longest == 7


def test_archive_has_one_keyframe_in_250_frames(tmp_path: Path) -> None:
    path = _chunk(tmp_path, "archive", frames=120)
    assert [is_key for _, is_key, _ in _packets(path)].count(True) == 1


def test_profiles_cross_process_borders_and_compare_by_value() -> None:
    for profile in PROFILES.values():
        assert pickle.loads(pickle.dumps(profile)) == profile


def test_an_unknown_profile_is_bad_input_that_lists_the_names() -> None:
    with pytest.raises(BadInput, match=r"'fast'.*archive, balanced, train, intra"):
        profile_named("fast")


def test_a_profile_without_a_gop_is_refused() -> None:
    with pytest.raises(BadInput, match="gop_frames is 0"):
        EncodingProfile(name="x", codec="libx264", pix_fmt="yuv420p", gop_frames=0, options=())


def test_intra_is_key_frames_only(tmp_path: Path) -> None:
    assert all(is_key for _, is_key, _ in _packets(_chunk(tmp_path, "intra", frames=40)))


@pytest.mark.parametrize("encoder", ["libx264", "libx265", "libsvtav1"])
@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_is_taken_by_every_encoder(name: str, encoder: str) -> None:
    try_encoder(profile_named(name, encoder=encoder))


def test_options_go_over_the_profile_s_and_to_their_owner() -> None:
    profile = profile_named("train", options="preset=fast:crf=28:ref=2:keyint=24")
    assert dict(profile.options)["preset"] == "fast"
    assert dict(profile.options)["crf"] == "28"
    assert profile.gop_frames == 24
    own = profile.encoder_options["x264-params"].split(":")
    assert {"ref=2", "keyint=24", "threads=1"} <= set(own)
    try_encoder(profile)


def test_another_rate_replaces_the_profile_s() -> None:
    options = profile_named("train", options="bitrate=400").encoder_options
    assert "crf" not in options
    assert "bitrate=400" in options["x264-params"]
    assert "crf" not in profile_named("archive", options="qp=20").encoder_options


def test_another_encoder_keeps_the_gop_structure() -> None:
    train = profile_named("train")
    other = profile_named("train", encoder="libx265")
    assert (other.gop_frames, other.b_frames) == (train.gop_frames, train.b_frames)
    assert f"bframes={train.b_frames}" in other.encoder_options["x265-params"]


@pytest.mark.parametrize(
    ("encoder", "options", "says"),
    [
        ("x265", "", "--encoder is 'x265', which is unknown; did you mean libx265"),
        (None, "preset", "'preset' is not name=value"),
        (None, "crf=20:crf=21", "crf is given twice, as 20 and as 21"),
        (None, "crf=20:qp=21", "crf and qp contradict each other"),
        (None, "g=20:keyint=21", "keyint and g contradict each other"),
        (None, "keyint=0", "keyint is '0', wanted a number of frames from 1 on"),
        (None, "threads=4", "threads is set by the chunker"),
    ],
)
def test_what_cannot_be_meant_is_refused(encoder: str | None, options: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        profile_named("train", encoder=encoder, options=options)


@pytest.mark.parametrize(
    ("encoder", "options", "says"),
    [
        ("libx264", "bogus=1", "bogus"),
        ("libx264", "ref=many", "ref"),
        ("libx264", "crf=low", "low"),
        ("libx264", "preset=nope", "nope"),
        ("libx265", "bogus=1", "bogus"),
        ("libsvtav1", "bogus=1", "bogus"),
        ("libsvtav1", "preset=99", "99"),
        ("libsvtav1", "tune=film", "tune"),
    ],
)
def test_an_option_that_the_encoder_does_not_take_is_an_error(encoder: str, options: str, says: str) -> None:
    profile = profile_named("train", encoder=encoder, options=options)
    for _ in range(2):  # FFmpeg's log leaves out what it has just said
        with pytest.raises(BadInput, match=says) as caught:
            try_encoder(profile)
        assert "\n" not in str(caught.value)
