"""FFmpeg sees regular files of the root and nothing else, whatever a file is called, says or turns into."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from decode_server.chunking.source import SourceVideo
from decode_server.clips.read_watch import ReadWatch
from decode_server.clips.storage import Storage
from decode_server.indexing.index import build_index
from decode_server.indexing.probe import ProbeOptions, probe_file
from decode_server.media.container import check_codec, open_container
from framefeed.errors import BadInput, CorruptMedia, FramefeedError, UnsupportedMedia
from tests.videos import make_numbered_video

SECRET = "a secret of another folder"


@pytest.fixture
def caught() -> Iterator[tuple[int, list[str]]]:
    """A port of this machine and who connected to it."""
    visitors: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    peer, address = listener.accept()
                except OSError:
                    return
                visitors.append(str(address))
                peer.close()

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1], visitors
        listener.shutdown(socket.SHUT_RDWR)


def liars(outside: Path, port: int) -> dict[str, str]:
    """Texts that FFmpeg would take for lists of other files and hosts."""
    url = f"http://127.0.0.1:{port}/x.ts"
    return {
        "concat": f"ffconcat version 1.0\nfile '{outside}'\n",
        "concat_unsafe": f"ffconcat version 1.0\nfile {url}\n",
        "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{url}\n#EXT-X-ENDLIST\n",
        "hls_file": f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nfile://{outside}\n#EXT-X-ENDLIST\n",
        "dash": f'<?xml version="1.0"?><MPD type="static"><Period><BaseURL>{url}</BaseURL></Period></MPD>',
        "sdp": f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video {port} RTP/AVP 96\n",
        "rtsp_redirect": f"[Reference]\nRef1=http://127.0.0.1:{port}/\n",
        "asx": f'<asx version="3.0"><entry><ref href="{url}"/></entry></asx>',
        "image_list": f"{outside}\n",
    }


@pytest.mark.parametrize("suffix", [".mp4", ".ts", ".mkv", ".avi"])
def test_what_names_other_files_or_hosts_is_refused_and_they_are_left_alone(
    tmp_path: Path, caught: tuple[int, list[str]], suffix: str
) -> None:
    port, visitors = caught
    outside = make_numbered_video(tmp_path / "outside.mp4", frames=10)
    root = tmp_path / "root"
    root.mkdir()
    for name, text in liars(outside, port).items():
        (root / f"{name}{suffix}").write_text(text)
    make_numbered_video(root / "honest.mp4", frames=10)
    manifest = build_index(root)
    assert list(manifest.videos) == ["honest"]
    assert len(manifest.refused) == len(liars(outside, port))
    for path in root.glob(f"*{suffix}"):
        if path.stem != "honest":
            with pytest.raises(FramefeedError):
                SourceVideo(path)
    assert visitors == []


def test_a_name_is_never_a_url(tmp_path: Path, caught: tuple[int, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    port, visitors = caught
    names = [
        f"http:/127.0.0.1:{port}/clip.mp4",
        "concat:a|b.mp4",
        "pipe:0.mp4",
        "data:text.mp4",
        "-i.mp4",
        "file:x.mp4",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        make_numbered_video(tmp_path / name, frames=10)
    monkeypatch.chdir(tmp_path)
    manifest = build_index(Path())
    assert len(manifest.videos) == len(names)
    assert manifest.refused == ()
    assert visitors == []


def test_a_pipe_and_a_device_hold_nobody_up(tmp_path: Path) -> None:
    make_numbered_video(tmp_path / "honest.mp4", frames=10)
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "device.mp4").symlink_to("/dev/zero")
    (tmp_path / "folder.mp4").mkdir()
    manifest = build_index(tmp_path)
    assert list(manifest.videos) == ["honest"]
    assert {refusal.path for refusal in manifest.refused} == {"pipe.mp4", "device.mp4"}
    assert all("regular file" in refusal.reason for refusal in manifest.refused)


def test_a_root_of_pipes_alone_is_one_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(BadInput, match="regular file"):
        build_index(tmp_path)


def storage_of(root: Path) -> Storage:
    return Storage(root, watch=ReadWatch())


def test_a_file_that_became_a_pipe_is_an_error_and_no_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.mp4")
    with pytest.raises(CorruptMedia, match="regular file"):
        storage_of(tmp_path).read("a.mp4", 0, 8)


@pytest.mark.slow
def test_a_link_that_is_swapped_while_it_is_opened_shows_nothing_of_outside(tmp_path: Path) -> None:
    """A thread swaps a file with a link out of the root, as fast as it can."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    for folder, text in ((root, "inside of the root"), (outside, SECRET)):
        (folder / "sub").mkdir(parents=True)
        (folder / "sub" / "a.mp4").write_text(text)
    os.rename(root / "sub", root / "real")
    over = threading.Event()

    def swap() -> None:
        inward, outward = tmp_path / "inward", tmp_path / "outward"
        while not over.is_set():
            for link, target in ((inward, root / "real"), (outward, outside / "sub")):
                link.symlink_to(target)
                os.replace(link, root / "sub")

    thread = threading.Thread(target=swap)
    thread.start()
    seen: set[str] = set()
    try:
        for _ in range(3000):
            storage = storage_of(root)
            try:
                seen.add(bytes(storage.read("sub/a.mp4", 0, 18)[:18]).decode())
            except CorruptMedia as error:
                seen.add("refused" if "root" in str(error) or "link" in str(error) else str(error))
            finally:
                storage.close()
    finally:
        over.set()
        thread.join(10)
    assert "inside of the root" in seen
    assert not any(SECRET[:10] in text for text in seen)


def test_a_decoder_that_is_not_on_the_list_is_named() -> None:
    check_codec("h264")
    with pytest.raises(UnsupportedMedia, match="'gif'"):
        check_codec("gif")
    with pytest.raises(UnsupportedMedia) as caught:
        check_codec("x" * 4000)
    assert len(str(caught.value)) <= 300


@pytest.mark.parametrize(
    ("head", "name"),
    [(b"GIF89a", "GIF"), (b"\x89PNG\r\n", "PNG"), (b"\xff\xd8\xff\xe0", "JPEG"), (b"RIFF\n\n\n\nWEBPVP8 ", "WebP")],
)
def test_a_picture_is_named_whatever_its_suffix(tmp_path: Path, head: bytes, name: str) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(head + bytes(2000))
    with pytest.raises(UnsupportedMedia, match=f"is a {name} picture, wanted a video"):
        open_container(path)
    assert (
        f"is a {name} picture"
        in probe_file(path, name="a.mp4", chunk=False, options=ProbeOptions(index_folder=tmp_path)).use.refused
    )


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    make_numbered_video(tmp_path / "a.mp4", frames=10)
    (tmp_path / "b.mp4").write_text("ffconcat version 1.0\nfile 'a.mp4'\n")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with open_container(tmp_path / "a.mp4"):
            pass
        with pytest.raises(UnsupportedMedia):
            open_container(tmp_path / "b.mp4")
    assert len(os.listdir("/proc/self/fd")) == before
