"""framefeed top, as a command: against real HTTP servers, those that hang, flood or lie among them."""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from framefeed.cli.command import main
from framefeed.cli.http_page import get_page
from framefeed.cli.top.metrics_page import parse_page
from framefeed.cli.top.pages import MOST_PAGES, Pages, led_to, metrics_url
from framefeed.errors import BadInput, FramefeedError
from framefeed.page_server import PageServer
from framefeed.server_entry import host_id
from tests.unit.deploy.test_targets import enter

TEXT = "text/plain; version=0.0.4"
_TOP = (sys.executable, "-m", "framefeed.cli", "top")
_QUICK = ("--every-s", "0.2", "--page-s", "5")


@contextmanager
def serve(page: Callable[[], tuple[int, str]]) -> Iterator[str]:
    def get(_: str) -> tuple[int, str, bytes]:
        status, text = page()
        return status, TEXT, text.encode()

    server = PageServer("127.0.0.1", 0, get=get)
    try:
        yield server.url
    finally:
        server.close()


@pytest.fixture
def trainer() -> Iterator[str]:
    """A rank that takes clips, and waits for no data."""
    counts = itertools.count()

    def page() -> tuple[int, str]:
        return 200, (
            'framefeed_trainer_data_wait_seconds_total{rank="0",cause="read"} 0\n'
            f'framefeed_trainer_clips_total{{rank="0"}} {100 * next(counts)}\n'
        )

    with serve(page) as url:
        yield url


@contextmanager
def raw(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """Accepts connections and does with each what it likes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        kept = []

        def run() -> None:
            for _ in range(4):
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                kept.append(client)
                threading.Thread(target=answer, args=(client,), daemon=True).start()

        thread = threading.Thread(target=run)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(20)
        for client in kept:
            client.close()


def hang(client: socket.socket) -> None:
    client.recv(1 << 16)


def drip(client: socket.socket) -> None:
    """A header that never ends, a byte at a time."""
    gone = threading.Event()
    try:
        while not gone.wait(0.02):
            client.sendall(b"x")
    except OSError:
        return


def flood(client: socket.socket) -> None:
    client.recv(1 << 16)
    try:
        client.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
        while True:
            client.sendall(b"framefeed_x 1\n" * 10_000)
    except OSError:
        return


def test_once_prints_the_verdict_first(trainer: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", trainer, "--once", *_QUICK]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "trainer-bound: no GPU is starved, data is there when it is asked for"
    assert "no server's page is read" in told[2]


def test_json_is_one_object(trainer: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", trainer, "--json", *_QUICK]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["verdict"]["kind"] == "trainer_bound"
    assert told["ranks"][0]["clips_s"] > 0


@pytest.mark.parametrize(
    ("does", "line"), [(hang, "timed out"), (drip, "timed out"), (flood, "more than 2097152 bytes")]
)
def test_a_page_that_hangs_drips_or_floods_is_a_line_beside_the_others(
    does: Callable[[socket.socket], None], line: str, trainer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with raw(does) as url:
        assert main(["top", trainer, url, "--json", "--every-s", "0.2", "--page-s", "1"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert line in told["silent"][f"{url}/metrics"]
    assert told["verdict"]["kind"] == "trainer_bound"


def test_no_answer_at_all_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with serve(lambda: (503, "no")) as url:
        assert main(["top", url, "--once", *_QUICK]) == 1
    out, err = capsys.readouterr()
    assert out.strip() == "unknown: no trainer's page was read twice", "why is said once"
    assert err == f"framefeed: {url}/metrics: answers 503, wanted 200\n"


def test_a_registry_leads_to_servers_and_what_is_no_entry_is_a_line(
    tmp_path: Path, trainer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    page = 'framefeed_server_threads{socket="0"} 4\nframefeed_server_state{framefeed_server_state="ready"} 1\n'
    (tmp_path / "bad.server.json").write_text("{")
    with serve(lambda: (200, page)) as url:
        enter(tmp_path, "a", f"{url}/metrics", host=host_id())
        enter(tmp_path, "b", "http://\x1b[2J/metrics")
        assert main(["top", trainer, "--registry", str(tmp_path), "--json", *_QUICK]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [server["name"] for server in told["servers"]] == [url.removeprefix("http://")]
    assert "bad.server.json" in told["silent"]
    assert all(text.isprintable() for item in told["silent"].items() for text in item)


@pytest.mark.parametrize(
    "wrong",
    [
        ["--once"],
        ["ftp://h/metrics", "--once"],
        ["http://h:x", "--once"],
        ["h:9600", "--every-s", "0", "--once"],
        ["h:9600", "--page-s", "nan", "--once"],
        ["--registry", "/nowhere/at/all", "--once"],
        ["http://h/a b", "--once"],
    ],
)
def test_what_cannot_be_watched_is_two(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", *wrong]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_without_the_extra_one_line_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "textual"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "framefeed.cli.top.screen", raising=False)
    monkeypatch.setitem(sys.modules, "textual", None)
    assert main(["top", "127.0.0.1:9"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "pip install 'framefeed[top]'" in line
    assert "--once" in line


def test_a_place_is_a_page() -> None:
    assert metrics_url("10.0.0.6:9600") == "http://10.0.0.6:9600/metrics"
    assert metrics_url("http://[fd00::6]:9600/") == "http://[fd00::6]:9600/metrics"
    assert metrics_url("http://h:9600/other") == "http://h:9600/other"
    with pytest.raises(BadInput):
        metrics_url("https://h:9600")


def test_a_page_is_cut_off_at_its_bound() -> None:
    with serve(lambda: (200, "x" * 100_000)) as url:
        assert get_page(url, limit_s=20.0, most_bytes=1000) == (200, b"x" * 1000)


def test_half_a_page_is_no_page(trainer: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Half of its numbers would be as good as the others, and the last of them another one."""

    def break_off(client: socket.socket) -> None:
        client.recv(1 << 16)
        page = b'framefeed_server_threads{socket="0"} 4\nframefeed_server_clips_total 12'
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + page)
        client.shutdown(socket.SHUT_RDWR)

    with raw(break_off) as url:
        assert main(["top", trainer, url, "--json", *_QUICK]) == 0
    told = json.loads(capsys.readouterr().out)
    assert "broke off after 70 of 1000 bytes" in told["silent"][f"{url}/metrics"]
    assert told["servers"] == []


def test_a_page_on_loopback_in_a_registry_is_of_its_own_machine(
    trainer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serve(lambda: (200, 'framefeed_server_threads{socket="0"} 4\n')) as url:
        enter(tmp_path, "far", f"{url}/metrics", host="another")
        assert main(["top", trainer, "--registry", str(tmp_path), "--json", *_QUICK]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["servers"] == []
    assert "only for its own machine" in told["silent"]["far.server.json"]


def test_a_page_that_comes_slowly_ends_in_time() -> None:
    with raw(drip) as url, pytest.raises(FramefeedError, match="does not answer: timed out"):
        get_page(url, limit_s=0.3, most_bytes=1000)


def names_page(server: str) -> str:
    return f'framefeed_client_server_page_info{{rank="0",server="tcp://a:1",page="{server}"}} 1\n'


def test_servers_that_a_trainer_names_are_watched_with_it() -> None:
    with serve(lambda: (200, 'framefeed_server_threads{socket="0"} 4\n')) as server:
        rank = 'framefeed_trainer_clips_total{rank="0"} 1\n'
        places = [server.removeprefix("http://"), "no/page", "127.0.0.1:1"]
        with serve(lambda: (200, rank + "".join(map(names_page, places)))) as url:
            pages = Pages([url], registry=None, limit_s=20.0)
            first = pages.look()
            places.clear()
            again = pages.look()
            pages.close()
    assert [page.url for page in first.pages] == [
        f"{url}/metrics", *sorted([f"{server}/metrics", "http://127.0.0.1:1/metrics"])
    ]  # fmt: skip
    assert [page.url for page in again.pages] == [f"{url}/metrics"]


def test_a_trainer_that_is_silent_leaves_its_servers_watched() -> None:
    silent = False
    with (
        serve(lambda: (200, 'framefeed_server_threads{socket="0"} 4\n')) as server,
        serve(lambda: (503 if silent else 200, names_page(server.removeprefix("http://")))) as url,
    ):
        pages = Pages([url], registry=None, limit_s=20.0)
        pages.look()
        silent = True
        again = pages.look()
        pages.close()
    assert [(page.url, bool(page.trouble)) for page in again.pages] == [
        (f"{url}/metrics", True), (f"{server}/metrics", False)
    ]  # fmt: skip


def test_another_machines_loopback_is_not_asked() -> None:
    text = names_page("127.0.0.1:1") + names_page("localhost:1") + names_page("[::1]:1") + names_page("10.0.0.5:9555")
    page = parse_page("http://10.0.0.9:9556/metrics", text, at_s=0.0)
    assert led_to(page) == ["http://10.0.0.5:9555/metrics"]


def test_what_is_not_read_for_its_number_is_said() -> None:
    pages = Pages([f"127.0.0.1:{port}" for port in range(1, MOST_PAGES + 4)], registry=None, limit_s=20.0)
    look = pages.look()
    pages.close()
    assert len(look.pages) == MOST_PAGES + 1
    assert (look.pages[-1].url, look.pages[-1].trouble) == ("3 pages more", f"are not read: at most {MOST_PAGES} are")


def test_pages_are_read_at_once_and_in_order(trainer: str) -> None:
    pages = Pages([trainer, "127.0.0.1:1"], registry=None, limit_s=20.0)
    look = pages.look()
    pages.close()
    assert [page.url for page in look.pages] == [f"{trainer}/metrics", "http://127.0.0.1:1/metrics"]
    assert [bool(page.trouble) for page in look.pages] == [False, True]


@pytest.mark.parametrize("lacking", ["stdin", "stdout", "stderr"])
def test_the_screen_wants_all_three_streams_to_be_a_terminal(lacking: str) -> None:
    """Keys come from the first and the picture goes to the last: `2> log` would show nothing, and say nothing."""
    master, terminal = os.openpty()
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), terminal)
    try:
        with tempfile.TemporaryFile() as plain:
            streams[lacking] = plain.fileno()
            done = subprocess.run([*_TOP, "127.0.0.1:9"], **streams, timeout=60, check=False)  # type: ignore[call-overload]
            plain.seek(0)
            said = plain.read() if lacking == "stderr" else os.read(master, 4096)
    finally:
        os.close(master)
        os.close(terminal)
    assert done.returncode == 2
    assert f"the live screen needs a terminal, {lacking} is none".encode() in said


def test_a_stream_whose_encoding_lacks_a_sign_has_it_escaped() -> None:
    quiet = {**os.environ, "PYTHONIOENCODING": "ascii"}
    options = ("--once", "--every-s", "0.2")
    with serve(lambda: (200, 'framefeed_server_threads{socket="0"} 4\n')) as url:
        done = subprocess.run([*_TOP, url, *options], env=quiet, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert rb"\u2013" in done.stdout
