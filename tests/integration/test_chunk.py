"""Source files to a root of chunks: exact frames and times, resumable, atomic, honest about damage."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from decode_server.chunking.chunk import Chunk
from decode_server.chunking.chunk_report import REPORT_NAME
from decode_server.chunking.chunk_run import chunk_videos
from decode_server.chunking.chunk_workers import ChunkTask, run_chunk_tasks
from decode_server.chunking.profiles import PROFILES, profile_named
from decode_server.chunking.transcode import RECORD_NAME, ChunkRecord, ChunkSettings, chunk_video, read_record
from framefeed.errors import BadInput, CorruptMedia
from tests.videos import SHARED_VIDEOS, luma, make_numbered_video, read_frame_number, read_numbers

SMALL = {"width_px": 128, "height_px": 96}
COMMAND = [sys.executable, "-c", "import sys; from framefeed.cli.command import main; sys.exit(main())", "chunk"]


def _settings(chunk_s: int = 2, profile: str = "train", short_side_px: int = 288) -> ChunkSettings:
    return ChunkSettings(profile=profile_named(profile), chunk_s=chunk_s, short_side_px=short_side_px)


def _chunk_one(source: Path, settings: ChunkSettings) -> tuple[Path, ChunkRecord]:
    folder = source.parent / "out" / (source.stem + ".mp4")
    staging = source.parent / "parts" / "0"
    return folder, chunk_video(source, folder, staging=staging, settings=settings, on_bytes=lambda _: None)


def _starts(folder: Path) -> list[int]:
    return sorted(int(path.stem) for path in folder.glob("*.mp4"))


def _frames(folder: Path, chunk_s: int) -> list[tuple[int, Fraction]]:
    """(number, source time) of all chunks in order, each frame checked to lie in its chunk."""
    found = []
    for start_s in _starts(folder):
        for number, time_s in read_numbers(folder / f"{start_s}.mp4"):
            assert 0 <= time_s < chunk_s
            found.append((number, start_s + time_s))
    return found


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("h264.mp4", {"options": {"bf": "3", "g": "50"}}),
        ("ntsc.mp4", {"fps": Fraction(30000, 1001)}),
        ("ntsc.avi", {"fps": Fraction(30000, 1001), "codec": "mpeg4", "options": {"bf": "2", "b": "2M"}}),
        ("hevc.mkv", {"codec": "libx265"}),
        ("av1.mkv", {"codec": "libsvtav1"}),
        ("ten.mp4", {"pix_fmt": "yuv420p10le"}),
        ("transport.ts", {"fps": 25}),
        ("vfr.mp4", {"pts": [Fraction(n * n, 2000) for n in range(130)]}),
        ("odd.mkv", {"width_px": 131, "height_px": 77, "pix_fmt": "yuv444p"}),
        pytest.param("large.mp4", {"width_px": 960, "height_px": 540}, marks=pytest.mark.slow),
    ],
)
def test_every_frame_is_in_one_chunk_with_its_exact_time(tmp_path: Path, name: str, fields: dict[str, object]) -> None:
    spec = {"frames": 130, **SMALL, **fields}
    folder, record = _chunk_one(make_numbered_video(tmp_path / name, **spec), _settings())
    times = fields.get("pts") or [n / Fraction(fields.get("fps", 30)) for n in range(130)]  # type: ignore[arg-type]
    if name.endswith("mkv"):
        times = [Fraction(round(time_s * 1000), 1000) for time_s in times]  # Matroska counts milliseconds
    assert _frames(folder, 2) == list(enumerate(times))
    assert (record.frames, record.damages) == (130, ())
    assert list(record.chunk_start_s) == _starts(folder)


def test_an_exact_multiple_of_the_chunk_length_leaves_no_empty_chunk(tmp_path: Path) -> None:
    folder, _ = _chunk_one(make_numbered_video(tmp_path / "s.mp4", frames=120, **SMALL), _settings())
    assert _starts(folder) == [0, 2]
    assert [len(read_numbers(folder / f"{start}.mp4")) for start in (0, 2)] == [60, 60]


def test_a_gap_longer_than_a_chunk_leaves_no_empty_chunk(tmp_path: Path) -> None:
    pts = [*(Fraction(n, 30) for n in range(40)), *(9 + Fraction(n, 30) for n in range(20))]
    folder, _ = _chunk_one(make_numbered_video(tmp_path / "s.mp4", frames=60, pts=pts, **SMALL), _settings())
    assert _starts(folder) == [0, 8]
    assert _frames(folder, 2) == list(enumerate(pts))


def test_time_counts_from_the_first_frame_and_the_file_s_own_start_is_recorded(tmp_path: Path) -> None:
    pts = [5 + Fraction(n, 30) for n in range(40)]
    source = make_numbered_video(tmp_path / "s.mkv", frames=40, pts=pts, **SMALL)
    folder, record = _chunk_one(source, _settings())
    assert _starts(folder) == [0]
    assert record.source_start_s == 5.0


def test_chunks_are_upright_small_limited_range_h264_without_sound(tmp_path: Path) -> None:
    source = make_numbered_video(
        tmp_path / "s.mp4", frames=10, width_px=640, height_px=360, rotation_deg=90, context={"color_range": 2}
    )
    folder, record = _chunk_one(source, _settings(short_side_px=180))
    with av.open(str(folder / "0.mp4")) as container:
        assert [stream.type for stream in container.streams] == ["video"]
        context = container.streams.video[0].codec_context
        frame = next(container.decode(video=0))
        assert (context.name, frame.format.name, frame.color_range, frame.colorspace) == ("h264", "yuv420p", 1, 6)
        assert (frame.width, frame.height, frame.rotation) == (180, 320, 0)
    assert (record.width_px, record.height_px) == (180, 320)


def test_the_same_source_gives_the_same_bytes(tmp_path: Path) -> None:
    source = make_numbered_video(tmp_path / "s.mp4", frames=70, **SMALL)
    chunks = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        chunk_video(source, folder, staging=tmp_path / "parts", settings=_settings(), on_bytes=lambda _: None)
        chunks.append([(folder / f"{start}.mp4").read_bytes() for start in _starts(folder)])
    assert chunks[0] == chunks[1]


def test_a_set_frame_rate_gives_exact_times_and_drops_what_is_not_on_show(tmp_path: Path) -> None:
    source = make_numbered_video(tmp_path / "s.mp4", frames=100, fps=60, **SMALL)
    folder, record = _chunk_one(source, replace(_settings(1), fps=Fraction(30000, 1001)))
    found = _frames(folder, 1)
    assert [time_s for _, time_s in found] == [n * Fraction(1001, 30000) for n in range(50)]
    assert [number for number, _ in found] == [2 * n for n in range(50)]
    assert record.frames == 50


def _with_tone(path: Path, *, seconds: int) -> Path:
    """A numbered video with a sound that is silent but for a tone from 2.5 s to 3.5 s."""
    silent = make_numbered_video(path.with_name("silent.mp4"), frames=30 * seconds, **SMALL)
    with av.open(str(silent)) as pictures, av.open(str(path), "w") as out:
        video = out.add_stream_from_template(pictures.streams.video[0])
        audio = out.add_stream("aac", rate=44_100, layout="mono")
        for packet in pictures.demux(video=0):
            if packet.size:
                packet.stream = video
                out.mux(packet)
        at_s = np.arange(44_100 * seconds) / 44_100
        tone = (np.sin(at_s * 2764) * ((at_s >= 2.5) & (at_s < 3.5)) / 2).astype(np.float32)
        for first in range(0, len(tone), 1024):
            frame = av.AudioFrame.from_ndarray(tone[None, first : first + 1024].copy(), "fltp", "mono")
            frame.sample_rate, frame.pts, frame.time_base = 44_100, first, Fraction(1, 44_100)
            out.mux(audio.encode(frame))
        out.mux(audio.encode(None))
    return path


def test_sound_is_kept_on_demand_and_lies_at_its_time(tmp_path: Path) -> None:
    source = _with_tone(tmp_path / "s.mp4", seconds=5)
    folder, _ = _chunk_one(source, replace(_settings(2), audio=True))
    assert _starts(folder) == [0, 2, 4]
    loud_s = []
    for start_s in _starts(folder):
        with av.open(str(folder / f"{start_s}.mp4")) as container:
            sound = container.streams.audio[0]
            for frame in container.decode(sound):
                first_s = start_s + float(frame.pts * frame.time_base)
                level = np.abs(frame.to_ndarray()).reshape(2, -1).max(axis=0)
                loud_s += [first_s + i / frame.sample_rate for i in np.flatnonzero(level > 0.1)]
    assert min(loud_s) == pytest.approx(2.5, abs=0.05)
    assert max(loud_s) == pytest.approx(3.5, abs=0.05)
    assert [number for number, _ in _frames(folder, 2)] == list(range(150))


def test_sound_that_is_not_there_is_no_error(tmp_path: Path) -> None:
    source = make_numbered_video(tmp_path / "s.mp4", frames=30, **SMALL)
    folder, record = _chunk_one(source, replace(_settings(), audio=True))
    assert record.silenced_packets == 0
    with av.open(str(folder / "0.mp4")) as container:
        assert [stream.type for stream in container.streams] == ["video"]


@pytest.mark.parametrize("encoder", ["libx265", "libsvtav1"])
def test_other_encoders_give_the_same_frames_and_bytes(tmp_path: Path, encoder: str) -> None:
    source = make_numbered_video(tmp_path / "s.mp4", frames=70, width_px=256, height_px=144)
    options = {"libx265": "preset=superfast:crf=12", "libsvtav1": "preset=8:crf=10:enable-tf=0"}[encoder]
    settings = replace(_settings(), profile=profile_named("train", encoder=encoder, options=options))
    chunks = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        chunk_video(source, folder, staging=tmp_path / "parts", settings=settings, on_bytes=lambda _: None)
        chunks.append([(folder / f"{start}.mp4").read_bytes() for start in _starts(folder)])
    assert chunks[0] == chunks[1]
    assert _frames(tmp_path / "a", 2) == [(n, Fraction(n, 30)) for n in range(70)]


@pytest.mark.parametrize("heights_px", [(96, 80), (96, 80, 96), (80, 96, 96)])
def test_pictures_of_another_size_are_made_like_those_shown_for_longest(
    tmp_path: Path, heights_px: tuple[int, ...]
) -> None:
    parts = [
        make_numbered_video(
            tmp_path / f"{n}.ts",
            frames=30,
            width_px=128,
            height_px=height_px,
            pts=[n + Fraction(i, 30) for i in range(30)],
            muxer_options={"muxdelay": "0", "muxpreload": "0"},
        )
        for n, height_px in enumerate(heights_px)
    ]
    source = tmp_path / "all.ts"
    source.write_bytes(b"".join(part.read_bytes() for part in parts))
    folder, record = _chunk_one(source, _settings())
    assert record.damages == ()
    assert (record.width_px, record.height_px) == (128, 96)
    change = f"size from 128x{heights_px[0]} to 128x{heights_px[1]}"
    assert (f"its picture changes at 1.00 s: {change}" in "; ".join(record.notes)) == (heights_px[0] != heights_px[1])
    sizes = set()
    numbers = []
    for start_s in _starts(folder):
        with av.open(str(folder / f"{start_s}.mp4")) as container:
            for frame in container.decode(video=0):
                sizes.add((frame.width, frame.height))
                picture = luma(frame)
                at = int(start_s + (frame.time or 0) + 1e-6)
                rows = round(96 * heights_px[at] / 96 / 2) * 2  # as high as its part, with black above and below
                above = (96 - rows) // 4 * 2
                numbers.append(read_frame_number(picture[above : above + rows]))
                assert not above or picture[: above - 2].max() < 30
    assert sizes == {(128, 96)}
    assert numbers == list(range(30)) * len(heights_px)


def test_a_source_without_a_usable_frame_leaves_nothing(tmp_path: Path) -> None:
    source = make_numbered_video(tmp_path / "s.mkv", frames=30, **SMALL)
    payload = bytearray(source.read_bytes())
    payload[700:] = bytes(len(payload) - 700)
    source.write_bytes(payload)
    with pytest.raises(CorruptMedia):
        _chunk_one(source, _settings())
    assert not (tmp_path / "out").exists()
    assert not any((tmp_path / "parts").iterdir())


@pytest.mark.slow
def test_a_run_uses_what_it_can_reports_the_rest_and_repeats_only_what_changed(tmp_path: Path) -> None:
    sources, root = tmp_path / "in", tmp_path / "root"
    for name in ("a.mp4", "deep/b.mkv"):
        make_numbered_video(sources / name, frames=70, **SMALL)
    (sources / "bad.avi").write_bytes(b"nonsense" * 100)
    first = chunk_videos([sources], root, settings=_settings(), jobs=2)
    assert [(o.video, o.record is not None, o.kept) for o in first] == [
        ("a", True, False),
        ("bad", False, False),
        ("deep/b", True, False),
    ]
    report = json.loads((root / REPORT_NAME).read_text())["videos"]
    assert [(row["video"], row["state"]) for row in report] == [("a", "whole"), ("bad", "refused"), ("deep/b", "whole")]
    assert "cannot be opened" in report[1]["reason"]
    assert _starts(root / "deep" / "b.mp4") == [0, 2]

    assert [o.kept for o in chunk_videos([sources], root, settings=_settings(), jobs=1)] == [True, False, True]
    (root / "a.mp4" / "2.mp4").unlink()
    os.utime(sources / "deep" / "b.mkv", (1, 1))
    again = chunk_videos([sources], root, settings=_settings(), jobs=1)
    assert [o.kept for o in again] == [False, False, False]
    assert _starts(root / "a.mp4") == [0, 2]
    with pytest.raises(BadInput, match=r"a\.mp4 was made with other options: chunk_s 2, now 1; wanted .*--overwrite"):
        chunk_videos([sources / "a.mp4"], root, settings=_settings(chunk_s=1), jobs=1)
    assert _starts(root / "a.mp4") == [0, 2]
    other = chunk_videos([sources / "a.mp4"], root, settings=_settings(chunk_s=1), jobs=1, overwrite=True)
    assert [o.kept for o in other] == [False]
    assert _starts(root / "a.mp4") == [0, 1, 2]
    assert sorted(path.name for path in root.iterdir()) == ["a.mp4", "deep", REPORT_NAME]


def test_folders_of_others_and_a_second_run_are_refused(tmp_path: Path) -> None:
    source, root = make_numbered_video(tmp_path / "a.mp4", frames=5, **SMALL), tmp_path / "root"
    (root / "a.mp4").mkdir(parents=True)
    (root / "a.mp4" / "0.mp4").write_bytes(b"precious")
    with pytest.raises(BadInput, match="was not made by 'framefeed chunk'"):
        chunk_videos([source], root, settings=_settings())
    assert (root / "a.mp4" / "0.mp4").read_bytes() == b"precious"
    (root / ".framefeed.parts").mkdir()
    with (root / ".framefeed.parts" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(BadInput, match="another run is writing"):
            chunk_videos([source], root, settings=_settings())
    with pytest.raises(BadInput, match="jobs is 0"):
        chunk_videos([source], root, settings=_settings(), jobs=0)


def test_chunks_of_another_version_are_made_again(tmp_path: Path) -> None:
    source = make_numbered_video(tmp_path / "in" / "s.mp4", frames=30)
    settings = ChunkSettings(profile=profile_named("archive"))
    chunk_videos([source], tmp_path / "out", settings=settings, jobs=1)
    (record,) = (tmp_path / "out").rglob(RECORD_NAME)
    body = json.loads(record.read_text()) | {"framefeed_chunks": 1}
    record.write_text(json.dumps(body))
    chunk_videos([source], tmp_path / "out", settings=settings, jobs=1)
    assert read_record(record.parent) is not None


def test_chunks_of_an_older_source_do_not_outlive_it(tmp_path: Path) -> None:
    source, root = make_numbered_video(tmp_path / "a.mp4", frames=5, **SMALL), tmp_path / "root"
    chunk_videos([source], root, settings=_settings(), jobs=1)
    source.write_bytes(b"nonsense")
    (outcome,) = chunk_videos([source], root, settings=_settings(), jobs=1)
    assert outcome.record is None
    assert not (root / "a.mp4").exists()


def test_the_verb_indexes_what_it_chunked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = make_numbered_video(tmp_path / "a.mp4", frames=70, **SMALL)
    Chunk(src=(source,), out=tmp_path / "root", chunk_s=2, jobs=1).run()
    assert "1 of 1" in capsys.readouterr().out
    assert list((tmp_path / "root").glob("framefeed.manifest.jsonl"))


def test_inputs_are_counted_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also those that no video is called after."""
    make_numbered_video(tmp_path / "in/a.mp4", frames=5, **SMALL)
    (tmp_path / "in/bad.mp4").write_bytes(b"nonsense")
    (tmp_path / "in/away.mp4").symlink_to(tmp_path / "nowhere.mp4")
    with pytest.raises(CorruptMedia, match="2 of 3 inputs are refused"):
        Chunk(src=(tmp_path / "in",), out=tmp_path / "root", jobs=1).run()
    said = capsys.readouterr().out
    assert said.splitlines()[1].split() == ["1", "0", "2", "0"]
    assert "1 of 3" in said


def test_the_verb_fails_when_nothing_is_usable(tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"nonsense")
    with pytest.raises(CorruptMedia, match=r"none of 1 videos is usable; .*bad\.mp4: cannot be opened"):
        Chunk(src=(tmp_path / "bad.mp4",), out=tmp_path / "root").run()


@pytest.mark.slow
def test_advice_measures_every_profile_and_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        make_numbered_video(tmp_path / "in" / f"{name}.mp4", frames=90, **SMALL)
    Chunk(src=(tmp_path / "in",), advise=True, batch_clips=256, step_s=1, storage_mb_per_s=500, jobs=1).run()
    out = capsys.readouterr().out
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line and line.split()[0] in PROFILES}
    assert set(rows) == set(PROFILES)
    assert float(rows["intra"][1]) > float(rows["archive"][1])
    assert "proposed: --profile" in out
    assert "Equation 3" in out
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"advise": True, "step_s": 1.0}, "needs --batch-clips and --storage-mb-per-s too"),
        ({"batch_clips": 8, "out": Path("x")}, "--batch-clips goes with --advise only"),
        (
            {"advise": True, "batch_clips": 8, "step_s": 1.0, "storage_mb_per_s": 1.0, "out": Path("x")},
            "leave --out and the encoding away",
        ),
        ({}, "--out is missing"),
        ({"out": Path("x"), "encoder_options": "bogus=1"}, "--encoder-options: .* does not take one: .*bogus"),
        ({"out": Path("x"), "fps": "fast"}, "fps is 'fast'"),
    ],
)
def test_options_that_do_not_go_together_are_refused(tmp_path: Path, options: dict[str, object], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        Chunk(src=(tmp_path,), **options).run()


def _wait_until(holds: object, limit_s: float) -> None:
    deadline = time.monotonic() + limit_s
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def _session_is_empty(session: int) -> bool:
    """No process of the session runs; ended ones that nobody has collected yet do not count."""
    for entry in Path("/proc").iterdir():
        try:
            state, _, _, its_session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
        except (OSError, ValueError):
            continue
        if int(its_session) == session and state != "Z":
            return False
    return True


@pytest.mark.slow
def test_kill_9_leaves_only_whole_videos_and_no_process_and_a_later_run_finishes(tmp_path: Path) -> None:
    sources, root = tmp_path / "in", tmp_path / "root"
    for number in range(5):
        make_numbered_video(sources / f"{number}.mp4", frames=300, width_px=256, height_px=144)
    command = [*COMMAND, str(sources), "--out", str(root), "--chunk-s", "2", "--jobs", "2"]
    run = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    _wait_until(lambda: list(root.glob("*.mp4")), 30)
    os.kill(run.pid, signal.SIGKILL)
    run.wait(10)
    _wait_until(lambda: _session_is_empty(run.pid), 10)

    finished = {folder.name: (folder / RECORD_NAME).stat().st_mtime_ns for folder in root.glob("*.mp4")}
    assert 1 <= len(finished) < 5
    for name in finished:
        record = read_record(root / name)
        assert record is not None
        assert record.frames == len(_frames(root / name, 2)) == 300
    left = list((root / ".framefeed.parts").iterdir())
    assert left, "a killed run leaves its staging behind"

    outcomes = chunk_videos([sources], root, settings=_settings(), jobs=2)
    assert {f"{o.video}.mp4" for o in outcomes if o.kept} == set(finished)
    assert {name: (root / name / RECORD_NAME).stat().st_mtime_ns for name in finished} == finished
    assert all(o.record and o.record.frames == 300 for o in outcomes)
    assert not (root / ".framefeed.parts").exists()


@pytest.mark.parametrize("deaths", [1, 2])
@pytest.mark.slow
def test_a_worker_that_dies_costs_at_most_its_own_video(tmp_path: Path, deaths: int) -> None:
    source = make_numbered_video(tmp_path / "a.mp4", frames=600, width_px=256, height_px=144)
    task = ChunkTask(
        video="a", source=source, folder=tmp_path / "a", staging=tmp_path / "parts" / "0", settings=_settings()
    )
    killed: list[int] = []

    def kill_a_worker(read_bytes: int) -> None:
        workers = [child for child in multiprocessing.active_children() if child.pid not in killed]
        if read_bytes and workers and len(killed) < deaths:
            killed.append(workers[0].pid or 0)
            os.kill(killed[-1], signal.SIGKILL)

    ((_, outcome),) = run_chunk_tasks([task], jobs=1, on_bytes=kill_a_worker)
    assert len(killed) == deaths
    if deaths == 1:
        assert isinstance(outcome, ChunkRecord)
        assert outcome.frames == 600
    else:
        assert isinstance(outcome, CorruptMedia)
        assert not (tmp_path / "a").exists()


@pytest.mark.slow
def test_a_root_that_fills_up_ends_the_run_in_one_line(tmp_path: Path) -> None:
    source = make_numbered_video(tmp_path / "a.mp4", frames=300, width_px=256, height_px=144)
    run = subprocess.run(
        [*COMMAND, str(source), "--out", str(tmp_path / "root")],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},  # a limit on files would cut off what it compiles
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )
    assert run.returncode == 1
    assert run.stderr.strip().splitlines()[-1].startswith("framefeed: chunks of a cannot be written")
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "root" / "a.mp4").exists()


@pytest.mark.slow
@pytest.mark.skipif(not SHARED_VIDEOS.is_dir(), reason="no folder of real videos beside the repository")
def test_real_videos_are_all_used_but_for_what_follows_damage(tmp_path: Path) -> None:
    outcomes = {o.video: o for o in chunk_videos([SHARED_VIDEOS], tmp_path / "root", settings=_settings(5), jobs=2)}
    frames = {name: outcome.record.frames for name, outcome in outcomes.items() if outcome.record}
    damaged = {name for name, outcome in outcomes.items() if outcome.record and outcome.record.damages}
    whole = {"av1": 125, "demo_wave": 280, "h264_10bit": 30, "h265": 10, "nasa_13013": 390, "pancake": 310}
    whole |= {"rotated_90": 3, "test_action": 300, "test_mpeg4": 164, "unordered": 4}
    assert damaged == {"corrupted"}
    assert {name: count for name, count in frames.items() if name != "corrupted"} == whole
    assert 20 <= frames["corrupted"] <= 30, "its 31st packet does not decode"
