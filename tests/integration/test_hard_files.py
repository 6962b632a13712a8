"""Files of the kinds that public bug reports describe: the right frame with the right colours at its time, as they are
and from chunks, or one line that names what is not used. Each line of HARD says which number is on show since when.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from decode_server.indexing.probe import ProbeOptions, probe_file
from tests.barred import HARD as FOLDER
from tests.barred import read_grey, read_picture
from tests.two_ways import as_it_is, chunked, duration_s, shown_at

Line = list[tuple[int, float]]


def _steady(frames: int, fps: float = 25, first: int = 0, from_s: float = 0.0) -> Line:
    return [(first + n, from_s + n / fps) for n in range(frames)]


SHOWN: dict[str, tuple[Line, float]] = {
    "01_ts_cat_half_frame_off__two.ts": (_steady(100), 4.0),
    "03_avi_h264_bframes__x264.avi": (_steady(100), 4.0),
    "05c_gray_limited_hevc__gray_tv.mp4": (_steady(50), 2.0),
    "06_vp8_resize__resize.webm": (_steady(100), 4.0),
    "06c_flv_resize__live.flv": (_steady(100), 4.0),
    "07_h264_sei_truncated__cam.mp4": (_steady(60), 2.4),
    "08_thumbnail_stream_first__clip_mkv.mkv": (_steady(60), 2.4),
    "08b_two_cameras_in_one_file__two.mp4": (_steady(60, first=100), 2.4),
    "11_one_bogus_timestamp__bogus.mkv": (_steady(100), 4.0),
    "11b_screen_recording_gaps__screen.mkv": (
        [(n, n / 25 + (0 if n <= 30 else 40 if n <= 60 else 110)) for n in range(100)],
        114.0,
    ),
    "11c_one_frame_hours_ahead_mid_file__dvr.flv": ([(n, n / 25) for n in range(100) if n != 50], 4.0),
    "12_still_image_video__still.mp4": ([(5, 0.0)], 8.0),
    "13_multi_edit_list__cut_two_pieces.mp4": (_steady(25, first=25) + _steady(25, first=75, from_s=1.0), 2.0),
    "13_multi_edit_list__piece_played_twice.mp4": (_steady(25, first=25) + _steady(25, first=25, from_s=1.0), 2.0),
    "17_timescale_1e9_slow__2fps_ns.mkv": (_steady(60, fps=2), 30.0),
    "23b_smpte240m__s240.mp4": (_steady(30), 1.2),
    "30_vfr_two_frames_share_a_time__dup_ts.mkv": (
        [(n, n / 25 + (0 if n <= 50 else 20)) for n in range(100) if n != 11],
        24.0,
    ),
    "31_aspect_changes_mid_stream__tv.ts": (_steady(100), 4.0),
    "34_ts_colour_changes__two_colours.ts": (_steady(100), 4.0),
    "35_codecs_sized_by_container__ffv1.mkv": (_steady(3), 0.12),
    "35_codecs_sized_by_container__huffyuv.avi": (_steady(3), 0.12),
    "35_codecs_sized_by_container__wmv2.wmv": (_steady(30), 1.2),
    "36_flv_same_header_repeated__live.flv": (_steady(100), 4.0),
    "37_mpg_cat__cat_25_24.mpg": (_steady(50) + _steady(50, fps=24, first=50, from_s=2.0), 2.0 + 50 / 24),
}
SAID = {
    "01_ts_cat_half_frame_off__two.ts": "its clock goes back by 1.98 s at 2.00 s",
    "08_thumbnail_stream_first__clip_mkv.mkv": "its video stream 1 (h264 160x120, 60 packets) is used, and not 0",
    "08b_two_cameras_in_one_file__two.mp4": "its video stream 1 (h264 320x240, 60 packets) is used, and not 0",
    "11_one_bogus_timestamp__bogus.mkv": "a pause of 10800.0 s is cut out at 3.96 s",
    "11b_screen_recording_gaps__screen.mkv": "one frame is on show for 70.0 of its 114.0 s",
    "11c_one_frame_hours_ahead_mid_file__dvr.flv": "left out at 2.00 s: a frame's time stamp is 37600.00 s ahead",
    "12_still_image_video__still.mp4": "one frame is on show for 8.0 of its 8.0 s",
    "30_vfr_two_frames_share_a_time__dup_ts.mkv": "1 frames that share a time with another left out, the first at 0.40",
    "37_mpg_cat__cat_25_24.mpg": "its clock goes back by 2.00 s at 2.00 s",
}
# What the engine does not serve as it is, and says so at index time; chunks of it are right.
REFUSED = {
    "06_vp8_resize__resize.webm": "its picture changes at 1.60 s: size from 160x120 to 320x240; chunk it instead",
    "06c_flv_resize__live.flv": "its picture changes at 1.60 s: size from 160x120 to 320x240; chunk it instead",
    "31_aspect_changes_mid_stream__tv.ts": "its picture changes at 2.00 s: pixel aspect from 1:1 to 4:3; "
    "chunk it instead",
}
GREY = "05c_gray_limited_hevc__gray_tv.mp4"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="the hard files are not here")


def _check(root: Path, name: str) -> list[int]:
    """The picture in the middle of each frame's time on show is the right one; returns the numbers."""
    line, end_s = SHOWN[name]
    assert duration_s(root) == pytest.approx(end_s, abs=0.005)
    instants_s = [(start_s + next_s) / 2 for (_, start_s), (_, next_s) in pairwise([*line, (-1, end_s)])]
    found = []
    for (number, start_s), shown in zip(line, shown_at(root, instants_s), strict=True):
        seen, off = read_picture(shown.rgb)
        assert shown.since_s == pytest.approx(start_s, abs=0.003)
        if name == GREY:
            assert read_grey(shown.rgb) == pytest.approx((255, 0), abs=2)
        else:
            assert off < 12, (name, number)
        assert seen == number
        found.append(seen)
    return found


@pytest.mark.parametrize("name", [name for name in SHOWN if name not in REFUSED])
def test_the_right_frame_is_served_from_the_file(tmp_path: Path, name: str) -> None:
    _check(as_it_is(FOLDER / name, tmp_path / "root"), name)


@pytest.mark.parametrize("name", list(SHOWN))
def test_what_is_not_as_it_should_be_is_said(tmp_path: Path, name: str) -> None:
    probed = probe_file(FOLDER / name, name=name, chunk=False, options=ProbeOptions(index_folder=tmp_path))
    if name in REFUSED:
        assert probed.use.refused == REFUSED[name]
    else:
        assert len(probed.use.lines()) == (2 if name.startswith("30") else name in SAID)
        assert SAID.get(name, "") in "\n".join(probed.use.lines())


@pytest.mark.slow
@pytest.mark.parametrize("name", list(SHOWN))
def test_the_right_frame_is_served_from_chunks(tmp_path: Path, name: str) -> None:
    root, record = chunked(FOLDER / name, tmp_path / "root")
    _check(root, name)
    assert SAID.get(name, "") in "\n".join(record.use.lines())
    assert bool(record.damages) == ("11c" in name)
