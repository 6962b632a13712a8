"""framefeed healthcheck: 0 for ready, one line for anything else; against a real HTTP server."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from decode_server.service.serve import Serve
from framefeed.cli.command import main
from framefeed.cli.healthcheck import READY_URL
from framefeed.page_place import SERVER
from framefeed.page_server import PageServer
from trainer_client.training.session import SessionOptions


class Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/readyz" else 503)
        self.end_headers()
        self.wfile.write(b"draining,\nno more\n")

    def version_string(self) -> str:
        return SERVER

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def page() -> Iterator[str]:
    with listening(Page) as url:
        yield url


@contextmanager
def listening(kind: type[Page]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_ready_is_zero(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # a proxy of the image is none of this
    assert main(["healthcheck", f"{page}/readyz"]) == 0


def test_anything_else_is_one_and_says_why(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["healthcheck", f"{page}/healthz"]) == 1
    assert capsys.readouterr().err == f"framefeed: {page}/healthz answers 503, wanted 200: draining, no more\n"


def test_who_does_not_listen_or_say_anything_is_not_ready(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/readyz"
        assert main(["healthcheck", url]) == 1
        silent.listen()
        assert main(["healthcheck", url, "--timeout-s", "0.05"]) == 1
    refused, mute = capsys.readouterr().err.splitlines()
    assert "does not answer" in refused
    assert "does not answer: timed out" in mute


class Foreign(Page):
    def version_string(self) -> str:
        return "nginx"


class Broken(Page):
    """Says how long its page is and ends before."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "40")
        self.end_headers()
        self.wfile.write(b"ready, 2 of")


@pytest.mark.parametrize(
    ("kind", "said"), [(Foreign, "is no page of framefeed: 'nginx'"), (Broken, "broke off after 11 of 40 bytes")]
)
def test_another_program_and_half_an_answer_are_not_ready(
    kind: type[Page], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with listening(kind) as url:
        assert main(["healthcheck", f"{url}/readyz"]) == 1
    assert said in capsys.readouterr().err


def test_a_page_of_ours_says_whose_it_is() -> None:
    page = PageServer("127.0.0.1", 0, get=lambda path: (200, "text/plain", b"ready"))
    try:
        assert main(["healthcheck", f"{page.url}/readyz"]) == 0
    finally:
        page.close()


def test_a_password_in_an_address_is_refused_and_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["healthcheck", "http://me:hunter2@127.0.0.1:1/readyz"]) == 2
    assert "hunter2" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong",
    [
        ["ftp://h/x"],
        ["http://"],
        ["http://h:x/"],
        ["http://h:0/"],
        *(["--timeout-s", t] for t in ("0", "inf", "nan", "1e30")),
    ],
)
def test_what_cannot_be_asked_is_two(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["healthcheck", *wrong]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_what_is_asked_by_default_is_a_servers_port_and_the_images_ask_the_trainers() -> None:
    dockerfile = (Path(__file__).parents[3] / "deploy/images/Dockerfile").read_text()
    assert f":{Serve(root=Path()).metrics_port}/readyz" in READY_URL
    assert f"127.0.0.1:{SessionOptions(out=Path()).metrics_port}/metrics" in dockerfile
