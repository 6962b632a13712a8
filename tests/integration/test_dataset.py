"""A data set is what its clips are made of: equal wherever it lies, another one with other bytes, and one a server."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decode_server.clips.engine import Engine
from decode_server.clips.library import Library
from decode_server.indexing.index import build_index
from framefeed.cli.command import main
from framefeed.crops import ResizedCentreCrop
from framefeed.errors import BadInput, CorruptMedia, NotHere
from framefeed.manifest import (
    MANIFEST_NAME,
    PACKETS_NAME,
    identity_of,
    read_identity,
    read_manifest,
)
from framefeed.request import ClipRequest
from framefeed.sampling import Segments
from framefeed.wire import ClipReply, DecodeCall, DescribeCall, ErrorReply, ServerReply
from tests.integration.serving import PATIENCE_S, SERVE, Client, Server, outcome, request, wait_until
from tests.videos import make_numbered_video
from trainer_client.clip_policy import ClipPolicy
from trainer_client.loader import ClipLoader, LoaderOptions
from trainer_client.samples import VideoWindows

VIDEOS = ("one", "sub/two", "three")
KEYS = {"g": "30", "x264-params": "scenecut=0"}


def make_video(path: Path, *, crf: int, frames: int = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"preset": "veryfast", "crf": str(crf), **KEYS}
    make_numbered_video(path, frames=frames, width_px=320, height_px=240, options=options)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Roots of equal names and lengths, and other bytes: crf18 and crf40."""
    folder = tmp_path_factory.mktemp("roots")
    for crf in (18, 40):
        for video in VIDEOS:
            make_video(folder / f"crf{crf}" / f"{video}.mp4", crf=crf)
        build_index(folder / f"crf{crf}")
    return folder


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    """A copy of crf18 to spoil."""
    return Path(shutil.copytree(made / "crf18", tmp_path / "root"))


@pytest.fixture
def server(root: Path, tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path, str(root), "--workers", "2", "--threads", "1", program=SERVE) as server:
        yield server


def wanted(seed: int = 0, video: str = "one") -> ClipRequest:
    return request(video, seed=seed, side_px=224, frames=4)


def ask(client: Client, dataset: str = "", **what: Any) -> ClipReply | ErrorReply:
    call = DecodeCall(attempt=1, deadline_s=PATIENCE_S, request=wanted(**what), dataset=dataset)
    client.send(call)
    reply, _ = client.receive()
    assert isinstance(reply, ClipReply | ErrorReply)
    return reply


def describe(client: Client) -> ServerReply:
    client.send(DescribeCall(attempt=1))
    reply, _ = client.receive()
    assert isinstance(reply, ServerReply)
    return reply


def test_equal_names_and_lengths_with_other_bytes_are_another_data_set(made: Path) -> None:
    low, high = read_manifest(made / "crf40"), read_manifest(made / "crf18")
    said = [[(e.video, e.duration_s, e.fps, e.width_px) for e in m.videos.values()] for m in (low, high)]
    assert said[0] == said[1]
    assert low.identity != high.identity
    assert (identity_of(low.videos), identity_of(high.videos)) == (low.identity, high.identity)


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("fresh", ["copied", "touched", "indexed beside", "checked"])
def test_the_same_files_are_the_same_data_set_anywhere(made: Path, tmp_path: Path, fresh: str, jobs: int) -> None:
    """Copied with other times and in another order of the folder; nothing of the old index is left to go by."""
    moved = tmp_path / "elsewhere"
    for video in reversed(VIDEOS):
        (moved / video).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(made / "crf18" / f"{video}.mp4", moved / f"{video}.mp4")
    folder = tmp_path / "index" if fresh == "indexed beside" else moved
    first = build_index(moved, index_folder=folder, jobs=jobs)
    if fresh == "touched":
        for video in VIDEOS:
            os.utime(moved / f"{video}.mp4", (0, 0))
    again = build_index(moved, index_folder=folder, jobs=jobs, check=fresh == "checked")
    assert first.identity == again.identity == read_identity(folder) == read_identity(made / "crf18")


@pytest.mark.parametrize("change", ["appended", "removed", "renamed", "one other", "one longer"])
def test_what_changes_a_clip_or_a_name_changes_the_data_set(root: Path, made: Path, change: str) -> None:
    before, last = read_identity(root), root / "three.mp4"
    if change == "appended":
        shutil.copyfile(last, root / "four.mp4")
    elif change == "removed":
        last.unlink()
    elif change == "renamed":
        last.rename(root / "four.mp4")
    elif change == "one other":
        shutil.copyfile(made / "crf40" / "three.mp4", last)
    else:
        make_video(last, crf=18, frames=91)
    assert build_index(root).identity != before


def test_what_is_refused_or_quarantined_does_not(root: Path) -> None:
    before = read_identity(root)
    (root / "broken.mp4").write_bytes(b"no video")
    assert build_index(root).identity == before
    assert main(["verify", str(root)]) == 0
    assert read_identity(root) == before


def test_the_verbs_say_which_data_set_it_is(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = f"data set {read_identity(root)}\n"
    for verb in (["index", str(root)], ["verify", str(root)], ["show", str(root), "--out", str(tmp_path / "s.png")]):
        assert main(verb) == 0
        assert line in capsys.readouterr().out, verb
    chunks = tmp_path / "chunks"
    assert main(["chunk", str(root / "one.mp4"), "--out", str(chunks), "--short-side-px", "96"]) == 0
    assert f"data set {read_identity(chunks)}\n" in capsys.readouterr().out


def test_verify_finds_a_manifest_that_goes_by_another_name(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, before = root / MANIFEST_NAME, read_identity(root)
    path.write_text(path.read_text().replace(before, "v1-" + 32 * "0"))
    assert main(["verify", str(root)]) != 0
    seen = capsys.readouterr()
    assert f"says data set v1-{32 * '0'}, what it lists is {before}" in seen.err + seen.out


def test_a_record_of_another_video_is_found_by_its_digest(root: Path) -> None:
    """Whole and readable, and of the very size: only the manifest knows that it is not the one."""
    manifest = read_manifest(root)
    one, three = manifest.videos["one"], manifest.videos["three"]
    records = bytearray((root / PACKETS_NAME).read_bytes())
    start, size = three.record_offset[0], three.record_bytes[0]
    lines = (root / MANIFEST_NAME).read_text()
    at = f'"record_offset": [{one.record_offset[0]}], "record_bytes": [{one.record_bytes[0]}]'
    assert at in lines
    (root / MANIFEST_NAME).write_text(lines.replace(at, f'"record_offset": [{len(records)}], "record_bytes": [{size}]'))
    records += records[start : start + size]
    (root / PACKETS_NAME).write_bytes(records)
    spoilt = Library(root)
    with pytest.raises(CorruptMedia, match=r"has digest \w+, the manifest wants \w+; index the root again"):
        Engine(spoilt).decode(wanted(), np.empty(wanted().clip_bytes, np.uint8))
    spoilt.close()


def test_a_root_of_an_older_version_is_served_under_the_identity_it_would_have(root: Path) -> None:
    path, identity = root / MANIFEST_NAME, read_identity(root)
    as_version_1(path)
    assert read_manifest(root).identity == ""
    library = Library(root)
    assert library.identity == identity
    library.close()
    assert build_index(root).identity == identity


def as_version_1(path: Path) -> None:
    _, *lines = map(json.loads, path.read_text().splitlines())
    for line in lines:
        line.pop("record_digest", None)
    head = {"framefeed_manifest": 1, "videos": sum(line["kind"] == "video" for line in lines)}
    path.write_text("".join(json.dumps(line) + "\n" for line in (head, *lines)))


def test_a_server_gives_clips_of_its_own_data_set_alone(made: Path, server: Server) -> None:
    mine, other = read_identity(made / "crf18"), read_identity(made / "crf40")
    assert server.first_line.rstrip().endswith(f"data set {mine}")
    with Client(server.endpoint) as client:
        assert describe(client).dataset == mine
        assert isinstance(ask(client, mine), ClipReply)
        assert isinstance(ask(client), ClipReply), "a run that knows none yet"
        refused = ask(client, other)
        assert isinstance(refused, ErrorReply)
        assert (refused.code, mine in refused.message, other in refused.message) == ("not_here", True, True)
        assert isinstance(refused.error(), NotHere)
    (build,) = (name for name in server.metrics() if name.startswith("framefeed_build_info{"))
    assert f'dataset="{mine}"' in build


def test_a_root_that_is_chunked_again_ends_its_server_and_convicts_no_clip(
    made: Path, root: Path, server: Server
) -> None:
    """Every file is replaced and then the index, as a second run of `framefeed chunk` does."""
    before, after = read_identity(made / "crf18"), read_identity(made / "crf40")
    codes = set()
    with Client(server.endpoint) as client:
        assert isinstance(ask(client), ClipReply)
        for video in VIDEOS:
            part = root / f"{video}.part"
            shutil.copyfile(made / "crf40" / f"{video}.mp4", part)
            part.rename(root / f"{video}.mp4")
        codes |= {code_of(ask(client, seed=seed, video=video)) for seed, video in enumerate(2 * VIDEOS)}
        assert build_index(root).identity == after
        for seed in range(1000):
            client.send(DecodeCall(attempt=seed, deadline_s=PATIENCE_S, request=wanted(seed, VIDEOS[seed % 3])))
            reply, _ = client.receive()
            if isinstance(reply, ServerReply):
                assert reply.state == "draining"
                break
            codes.add(code_of(reply))
    assert server.wait() == 1
    assert codes <= {"not_here", "draining", "clip"}
    assert "not_here" in codes
    lines = [line for line in server.log().splitlines() if before in line and after in line and "ERROR" in line]
    assert len(lines) == 1
    assert "restart this server" in lines[0]
    assert not server.announced, "its entry is gone, so that trainers look elsewhere"


def code_of(reply: object) -> str:
    return reply.code if isinstance(reply, ErrorReply) else "clip"


def test_an_index_made_again_over_the_same_files_disturbs_nothing(root: Path, server: Server) -> None:
    """Also one whose videos have got a new time: all are read again."""
    with Client(server.endpoint) as client:
        first, pixels = client.decode(wanted())
        assert isinstance(first, ClipReply)
        for video in VIDEOS:
            os.utime(root / f"{video}.mp4")
        build_index(root)
        for _ in range(20):
            assert client.decode(wanted())[1] == pixels
            assert isinstance(ask(client, video="sub/two"), ClipReply)
        refused = ask(client, video="four")
        assert code_of(refused) == "unknown_video", "what this server says of its clips still counts"
    assert server.get("/readyz")[0] == 200
    assert "ERROR" not in server.log()


def test_files_replaced_under_a_server_are_not_here_and_never_corrupt(made: Path, root: Path, server: Server) -> None:
    with Client(server.endpoint) as client:
        assert isinstance(ask(client, video="three"), ClipReply)
        shutil.copyfile(made / "crf40" / "one.mp4", root / "one.mp4")
        (root / "sub" / "two.mp4").unlink()
        for video in ("one", "sub/two"):
            refused = ask(client, video=video)
            assert isinstance(refused, ErrorReply)
            assert refused.code == "not_here"
            assert "changed since this server started" in refused.message
        assert isinstance(ask(client, video="three"), ClipReply)
        assert outcome(server.metrics(), "not_here") == 2


@pytest.mark.slow
@pytest.mark.parametrize("how", ["replaced", "gone"])
def test_packets_replaced_under_a_server_are_not_here_and_never_corrupt(
    made: Path, root: Path, server: Server, how: str
) -> None:
    """Before any record was read: workers that have read some hold the old file."""
    (root / PACKETS_NAME).unlink()
    if how == "replaced":
        shutil.copyfile(made / "crf40" / PACKETS_NAME, root / PACKETS_NAME)
    with Client(server.endpoint) as client:
        refused = ask(client)
        assert isinstance(refused, ErrorReply)
        assert refused.code == "not_here"
        assert ("is being indexed" if how == "replaced" else "cannot be looked at") in refused.message
        wait_until("the log says so", lambda: "index the root again" in server.log())
        assert server.get("/readyz")[0] == 200
        shutil.copyfile(made / "crf18" / PACKETS_NAME, root / PACKETS_NAME)
        assert isinstance(ask(client), ClipReply)


def test_damage_is_damage_where_nothing_was_replaced(root: Path, tmp_path: Path) -> None:
    """A bit that rots leaves size and time of its file alone."""
    path = root / "one.mp4"
    times = path.stat()
    library = Library(root)
    index = library.index(library.entry("one"), 0)
    library.close()
    with Server(tmp_path, str(root), program=SERVE) as server, Client(server.endpoint) as client:
        with path.open("r+b") as file:
            file.seek(int(index.offset[index.keys[1]]) + 9)
            file.write(b"\xff\xff\xff")
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert code_of(ask(client)) == "corrupt_media"
        assert code_of(ask(client, video="three")) == "clip"


@pytest.mark.parametrize("what", ["media", "packets"])
def test_a_worker_that_starts_after_the_change_judges_as_the_others_do(
    made: Path, root: Path, server: Server, what: str
) -> None:
    if what == "media":
        shutil.copyfile(made / "crf40" / "one.mp4", root / "one.mp4")
    else:
        shutil.copyfile(made / "crf40" / PACKETS_NAME, root / PACKETS_NAME)
    wait_until("both are up", lambda: server.metrics()["framefeed_server_workers"] == 2)
    before = server.workers()
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    wait_until("they were replaced", lambda: server.has_replaced(before))
    with Client(server.endpoint) as client:
        assert code_of(ask(client)) == "not_here"


def test_a_trainer_s_manifest_decides_which_servers_it_uses(made: Path, server: Server) -> None:
    """The server has crf18; videos of equal names and lengths in the trainer's manifest are not enough."""
    policy = ClipPolicy(sampling=Segments(frames=2), crop=ResizedCentreCrop(), width_px=32, height_px=32)
    options = LoaderOptions(servers=[server.endpoint], batch_clips=2, epochs=1, member_grace_s=0.5)
    mine, others = (VideoWindows(read_manifest(made / name), window_s=1.0) for name in ("crf18", "crf40"))
    with ClipLoader(mine, policy, options) as run:
        assert len(list(run)) == run.steps
        state = run.state_dict()
    with (
        ClipLoader(others, policy, options) as run,
        pytest.raises(BadInput, match=f"it serves data set '{mine.identity}', this run reads '{others.identity}'"),
    ):
        next(run)
    with (
        ClipLoader(others, policy, options) as run,
        pytest.raises(BadInput, match="resume: the samples are of another"),
    ):
        run.load_state_dict(state)


def test_an_index_that_cannot_be_written_is_one_line_that_says_where_to(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("no folder")
    assert main(["index", str(made / "crf18"), "--to", str(tmp_path / "file" / "index")]) == 2
    line = capsys.readouterr().err
    assert "cannot be written to" in line
    assert "wanted --index FOLDER" in line
    assert line.count("\n") == 1
