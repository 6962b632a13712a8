"""Folders as people have them: every input is used or named, whatever it is called and wherever it leads."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from decode_server.chunking.chunk import Chunk
from decode_server.chunking.dry_run import Length, forecast_of
from decode_server.chunking.sampled_cost import SampledCost
from decode_server.chunking.transcode import ChunkRecord, read_record
from decode_server.clips.engine import Engine
from decode_server.clips.library import Library
from decode_server.indexing.index import Build, Index, build_index, index_root
from decode_server.sources.index_records import UNFINISHED_FOLDER
from decode_server.sources.walk import WalkRules
from framefeed.crops import WholeFrame
from framefeed.errors import BadInput, CorruptMedia, FramefeedError
from framefeed.manifest import MANIFEST_NAME, is_finished, read_manifest
from framefeed.request import ClipRequest
from framefeed.sampling import Segments
from tests.videos import make_numbered_video, read_frame_number

SMALL = {"width_px": 128, "height_px": 96}
FRAMEFEED = [sys.executable, "-c", "import sys; from framefeed.cli.command import main; sys.exit(main())"]
LATIN1 = os.fsdecode(b"caf\xe9.mp4")
LONG = "n" * 252 + ".ts"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two short videos, in MP4 and in TS."""
    folder = tmp_path_factory.mktemp("made")
    for name in ("a.mp4", "b.ts"):
        make_numbered_video(folder / name, frames=12, **SMALL)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """All that is odd about names, links and kinds, beside two plain videos."""
    root = tmp_path / "mine"
    (root / "deep").mkdir(parents=True)
    for name in ("a.mp4", "twin.mp4", f"deep/{LATIN1}"):
        shutil.copy(made / "a.mp4", root / name)
    for name in ("twin.ts", LONG):
        shutil.copy(made / "b.ts", root / name)
    (tmp_path / "blobs").mkdir()
    shutil.copy(made / "a.mp4", tmp_path / "blobs" / "77aa")
    (root / "inner.mp4").symlink_to("a.mp4")
    (root / "hub.mp4").symlink_to("../blobs/77aa")
    (root / "gone.mp4").symlink_to("nowhere")
    (root / "empty.mp4").touch()
    (root / "notes.txt").write_text("notes")
    (root / "old.ogv").write_text("no video")
    return root


USED = {"a", "inner", "twin.mp4", "twin.ts", "deep/caf%E9"}
REFUSED = {"hub.mp4", "gone.mp4", "empty.mp4"}


def _rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _first_numbers(root: Path, videos: list[str], *, follow_links: bool = False) -> list[int]:
    """The number in the first frame of a clip of each video."""
    numbers = []
    with closing(Library(root, follow_links=follow_links)) as library, closing(Engine(library)) as engine:
        for video in videos:
            request = ClipRequest(
                video=video,
                start_s=0.1,
                end_s=0.3,
                sampling=Segments(frames=2),
                crop=WholeFrame(),
                width_px=128,
                height_px=96,
            )
            buffer = np.empty(request.clip_bytes, np.uint8)
            engine.decode(request, buffer)
            numbers.append(read_frame_number(buffer.reshape(2, 96, 128, 3)[0, :, :, 1]))
    return numbers


def test_every_input_of_an_odd_folder_is_served_or_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Index(root=folder, report=tmp_path / "report.jsonl", jobs=2).run()
    manifest = read_manifest(folder)
    assert set(manifest.videos) == USED | {"n" * 252}
    assert {refusal.path for refusal in manifest.refused} == REFUSED
    rows = _rows(tmp_path / "report.jsonl")
    assert {row["video"] for row in rows if row["state"] == "whole"} == set(manifest.videos)
    assert {row["file"]: bool(row["reason"]) for row in rows if row["state"] == "refused"} == dict.fromkeys(
        REFUSED, True
    )
    assert {row["suffix"]: row["files"] for row in rows if row["state"] == "ignored"} == {".txt": 1, ".ogv": 1}
    said = capsys.readouterr().out
    assert "refused: hub.mp4: is a link to" in said
    assert "--follow-links" in said
    assert len(set(_first_numbers(folder, sorted(manifest.videos)))) == 1


@pytest.mark.slow
def test_every_input_of_an_odd_folder_is_chunked_or_named_in_the_same_words(folder: Path, tmp_path: Path) -> None:
    Chunk(src=(folder,), out=tmp_path / "root", report=tmp_path / "report.jsonl", jobs=2).run()
    rows = _rows(tmp_path / "report.jsonl")
    used = {str(row["video"]) for row in rows if row["state"] == "whole"}
    (shortened,) = used - USED
    assert shortened.startswith("n" * 240)
    assert set(read_manifest(tmp_path / "root").videos) == used
    refused = {Path(str(row["file"])).name for row in rows if row["state"] == "refused"}
    assert refused == REFUSED
    assert len(set(_first_numbers(tmp_path / "root", sorted(used)))) == 1
    follow = Chunk(src=(folder,), out=tmp_path / "root", report=tmp_path / "report.jsonl", jobs=2, follow_links=True)
    follow.run()
    assert {row["video"] for row in _rows(tmp_path / "report.jsonl") if row["state"] == "whole"} == used | {"hub"}


def test_links_out_of_a_root_are_served_where_both_sides_say_so(folder: Path, tmp_path: Path) -> None:
    manifest, _ = index_root(folder, build=Build(rules=WalkRules(follow_links=True)))
    assert "hub" in manifest.videos
    with pytest.raises(BadInput, match=r"was indexed with --follow-links, and files of it lie in .*/blobs: wanted"):
        Library(folder)
    assert len(set(_first_numbers(folder, ["hub", "a"], follow_links=True))) == 1
    build_index(folder)
    assert "hub" not in read_manifest(folder).videos
    Library(folder).close()


def test_a_tree_of_the_hub_is_served_from_its_top(made: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "datasets--me--mine" / "snapshots" / "c0ffee" / "videos"
    blobs = tmp_path / "datasets--me--mine" / "blobs"
    for part in (snapshot, blobs):
        part.mkdir(parents=True)
    shutil.copy(made / "a.mp4", blobs / "77aa")
    (snapshot / "x.mp4").symlink_to("../../../blobs/77aa")
    assert list(build_index(tmp_path / "datasets--me--mine").videos) == ["snapshots/c0ffee/videos/x"]
    with pytest.raises(
        BadInput, match=r"none of its 1 files can be served; first: x\.mp4: is a link to .*--follow-links"
    ):
        build_index(snapshot)


@contextlib.contextmanager
def _while(change: object) -> Iterator[None]:
    """Call `change` over and over in a thread."""
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            change()  # type: ignore[operator]

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(10)


def test_a_file_that_grows_while_it_is_read_is_refused_until_it_is_whole(made: Path, tmp_path: Path) -> None:
    for name in ("a.mp4", "growing.mp4"):
        shutil.copy(made / "a.mp4", tmp_path / name)

    still_grows = True

    def grow(event: str, args: tuple[object, ...]) -> None:
        """Whoever opens the file to read it finds that it has grown since he looked at it."""
        if still_grows and event == "open" and str(args[0]).endswith("growing.mp4") and args[1] is None:
            with (tmp_path / "growing.mp4").open("ab") as file:
                file.write(b"\0")

    sys.addaudithook(grow)  # there for good, but only while this test wants it
    manifest = build_index(tmp_path)
    still_grows = False
    assert list(manifest.videos) == ["a"]
    (refusal,) = manifest.refused
    assert "changed while it was read" in refusal.reason
    assert list(build_index(tmp_path).videos) == ["a", "growing"]


@pytest.mark.slow
def test_a_file_that_is_cut_off_while_it_is_read_costs_itself_only(tmp_path: Path) -> None:
    video = make_numbered_video(tmp_path / "made" / "a.mp4", frames=100, **SMALL)
    root = tmp_path / "root"
    root.mkdir()
    for number in range(8):
        shutil.copy(video, root / f"{number}.mp4")
    whole = video.read_bytes()
    (root / "cut.mp4").write_bytes(whole)
    descriptor = os.open(root / "cut.mp4", os.O_RDWR)

    def cut() -> None:
        os.ftruncate(descriptor, 1000)
        os.pwrite(descriptor, whole, 0)

    with _while(cut):
        manifest, report = index_root(root, build=Build(jobs=2))
    os.close(descriptor)
    assert set(manifest.videos) == {str(number) for number in range(8)}
    assert {row.file for row in report.files if row.use.refused} == {"cut.mp4"}


def test_what_is_indexed_so_far_is_said_to_be_so_and_is_not_read_again(
    made: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copy(made / "a.mp4", tmp_path / "a.mp4")
    index_root(tmp_path, build=Build(finished=False))
    assert not is_finished(tmp_path)
    assert list(read_manifest(tmp_path).videos) == ["a"]
    assert "lists what was indexed so far and not all" in caplog.text
    build_index(tmp_path)
    assert is_finished(tmp_path)

    identity = read_manifest(tmp_path).identity
    shutil.copy(made / "b.ts", tmp_path / "b.ts")
    index_root(tmp_path, build=Build(finished=False))
    assert read_manifest(tmp_path).identity == identity, "a finished index stays until the next one is finished"
    assert set(read_manifest(tmp_path / UNFINISHED_FOLDER).videos) == {"a", "b"}
    status = (tmp_path / "b.ts").stat()
    (tmp_path / "b.ts").write_bytes(bytes(status.st_size))  # what would be refused if it were read again
    os.utime(tmp_path / "b.ts", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert set(build_index(tmp_path).videos) == {"a", "b"}
    assert not (tmp_path / UNFINISHED_FOLDER).exists()


def test_a_name_stays_whatever_comes_to_lie_beside_the_file(made: Path, tmp_path: Path) -> None:
    shutil.copy(made / "a.mp4", tmp_path / "x.mp4")
    assert set(build_index(tmp_path).videos) == {"x"}
    shutil.copy(made / "b.ts", tmp_path / "x.ts")
    assert set(build_index(tmp_path).videos) == {"x", "x.ts"}
    (tmp_path / "x.mp4").unlink()
    assert set(build_index(tmp_path).videos) == {"x.ts"}


def test_a_script_does_not_go_on_where_most_files_are_refused_and_the_rest_is_indexed(
    made: Path, tmp_path: Path
) -> None:
    shutil.copy(made / "a.mp4", tmp_path / "a.mp4")
    for number in range(3):
        (tmp_path / f"bad{number}.mp4").write_bytes(b"nonsense")
    with pytest.raises(CorruptMedia, match=r"3 of 4 inputs are refused, more than are used; first: bad0\.mp4: "):
        Index(root=tmp_path, jobs=1).run()
    assert list(read_manifest(tmp_path).videos) == ["a"]


def _limited(limit: int, value: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*FRAMEFEED, *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},  # a limit on files would cut off what it compiles
        preexec_fn=lambda: resource.setrlimit(limit, (value, value)),
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.mp4", "b.ts"])
def test_a_folder_that_fills_up_ends_an_index_in_one_line_with_the_way_out(
    made: Path, tmp_path: Path, name: str
) -> None:
    shutil.copy(made / name, tmp_path / name)
    done = _limited(resource.RLIMIT_FSIZE, 500, "index", tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(
        f"framefeed: the index cannot be written to {tmp_path} (File too large); wanted --index FOLDER"
    )
    assert not (tmp_path / MANIFEST_NAME).exists()


@pytest.mark.slow
def test_any_number_of_files_is_indexed_and_read_with_few_descriptors(made: Path, tmp_path: Path) -> None:
    for number in range(400):
        os.link(made / "a.mp4", tmp_path / f"{number}.mp4")
    done = _limited(resource.RLIMIT_NOFILE, 256, "index", tmp_path)
    assert done.returncode == 0, done.stderr
    read = (
        "import sys; from pathlib import Path; from tests.integration.test_folders import _first_numbers;"
        "root = Path(sys.argv[1]); print(len(_first_numbers(root, [str(n) for n in range(400)])))"
    )
    all_read = subprocess.run(
        [sys.executable, "-c", read, str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)),
    )
    assert all_read.stdout.strip() == "400", all_read.stderr


@pytest.mark.slow
def test_a_dry_run_writes_nothing_and_says_what_a_run_then_takes(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        make_numbered_video(tmp_path / "in" / f"{number}.mp4", frames=150 + 150 * number, **SMALL)
    (tmp_path / "in" / "bad.mp4").write_bytes(b"nonsense")
    Chunk(src=(tmp_path / "in",), out=tmp_path / "root", jobs=2, dry_run=True).run()
    said = capsys.readouterr().out
    assert not (tmp_path / "root").exists()
    assert "would chunk 4 videos of 0.008 h" in said
    assert "sampled    3 videos; 1 others cannot be used" in said
    assert f"refused: {tmp_path}/in/bad.mp4: " in said
    forecast_bytes = float(said.split("chunks     ")[1].split(" kB")[0]) * 1e3
    Chunk(src=(tmp_path / "in",), out=tmp_path / "root", jobs=2).run()
    records = [read_record(path) for path in (tmp_path / "root").glob("*.mp4")]
    assert forecast_bytes == pytest.approx(sum(record.media_bytes for record in records if record), rel=0.25)


def _cost(*, duration_s: float, match_cpu_s: float, code_cpu_s: float, media_bytes: int) -> SampledCost:
    record = ChunkRecord(
        source="",
        source_bytes=0,
        source_mtime_ns=0,
        settings={},
        crf=None,
        width_px=2,
        height_px=2,
        frames=1,
        duration_s=duration_s,
        source_start_s=0.0,
        chunk_start_s=(0,),
        chunk_bytes=(media_bytes,),
        damages=(),
        repeated_frames=0,
        skipped_packets=0,
        silenced_packets=0,
    )
    took_s = 2 * (match_cpu_s + code_cpu_s)
    return SampledCost(match_cpu_s=match_cpu_s, code_cpu_s=code_cpu_s, took_s=took_s, record=record)


def test_a_forecast_is_the_samples_times_the_length_and_matching_is_paid_once_a_video() -> None:
    lengths = {str(n): Length(source_bytes=1000, duration_s=100.0) for n in range(4)}
    sample = _cost(duration_s=10.0, match_cpu_s=5.0, code_cpu_s=20.0, media_bytes=50)
    told = forecast_of(lengths, {"0": sample, "3": sample}, jobs=2, cpus=2)
    assert told.hours == pytest.approx(400 / 3600)
    assert told.chunk_bytes == pytest.approx(4 * 500)
    assert told.core_s == pytest.approx(4 * (5 + 200))
    assert told.took_s == pytest.approx(2 * 2 * (5 + 200))
    short = {"0": Length(source_bytes=10, duration_s=None)}
    whole = forecast_of(
        short, {"0": _cost(duration_s=3.0, match_cpu_s=1.0, code_cpu_s=6.0, media_bytes=9)}, jobs=8, cpus=8
    )
    assert (whole.chunk_bytes, whole.core_s) == (9, 7)
    assert forecast_of(lengths, {"0": "its codec is unknown"}, jobs=1, cpus=1).unusable == 1
    lengths["0"] = Length(source_bytes=1000, duration_s=36_000.0)
    framed = replace(sample, record=replace(sample.record, timeline_s=100.0))
    told = forecast_of(lengths, {"0": framed, "3": framed}, jobs=2, cpus=2)
    assert told.hours == pytest.approx(400 / 3600), "one wrong time stamp in a head makes no hours"
    assert told.core_s == pytest.approx(4 * (5 + 200))


def test_a_forecast_is_of_a_machine_of_its_own_and_tells_what_others_make_of_it_now() -> None:
    """Opening is a video's cost, starting a process's; who waits for a CPU that others have works no longer."""
    lengths = {str(n): Length(source_bytes=1000, duration_s=100.0) for n in range(4)}
    alone = _cost(duration_s=10.0, match_cpu_s=5.0, code_cpu_s=20.0, media_bytes=50)
    alone = replace(alone, open_cpu_s=3.0, took_s=25.0, before_cpu_s=1.5)
    calm = forecast_of(lengths, {"0": alone, "3": replace(alone, before_cpu_s=40.0)}, jobs=2, cpus=2)
    assert calm.core_s == pytest.approx(4 * (5 + 3 + 200) + 1.5 * 5)
    assert calm.took_s == pytest.approx(3 * 1.5 + 2 * (5 + 3 + 200))
    assert calm.slowdown == 1.0
    crowded = replace(alone, took_s=75.0, waited_s=50.0)
    busy = forecast_of(lengths, {"0": crowded, "3": crowded}, jobs=2, cpus=2)
    assert (busy.took_s, busy.slowdown) == pytest.approx((calm.took_s, 3.0))
    few = forecast_of(lengths, {"0": crowded, "3": crowded}, jobs=2, cpus=1)
    assert (few.took_s, few.slowdown) == pytest.approx((2 * calm.took_s, 1.5)), "the run is in its own way, too"


@pytest.mark.parametrize("jobs", [0, -1])
def test_jobs_of_none_are_refused(made: Path, jobs: int) -> None:
    with pytest.raises(FramefeedError, match=f"--jobs is {jobs}, wanted at least 1"):
        Index(root=made, jobs=jobs).run()
