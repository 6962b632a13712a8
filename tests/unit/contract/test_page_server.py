"""Pages over HTTP: what a scrape gets, and that who is slow, silent or wrong keeps none from it and costs little."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest

from framefeed.page_server import MAX_CONNECTIONS, REQUEST_S, THREADS, Page, PageServer
from tests.integration.serving import wait_until

BODY = b"x" * 1_000_000


def get(path: str) -> Page:
    if path == "/fails":
        raise RuntimeError("no such luck")
    return (200, "text/plain", BODY) if path == "/metrics" else (404, "text/plain", b"?")


@pytest.fixture
def server() -> Iterator[PageServer]:
    server = PageServer("127.0.0.1", 0, get=get)
    try:
        yield server
    finally:
        server.close()
        server.close()


def asked(server: PageServer, path: str = "/metrics", method: str = "GET") -> tuple[int, bytes]:
    client = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=20)
    try:
        client.request(method, path)
        reply = client.getresponse()
        return reply.status, reply.read()
    finally:
        client.close()


def connected(server: PageServer, said: bytes = b"") -> socket.socket:
    client = socket.create_connection((urlsplit(server.url).hostname or "", urlsplit(server.url).port or 0), timeout=20)
    client.sendall(said)
    return client


def test_pages_are_served_whole_and_others_not_found(server: PageServer) -> None:
    assert asked(server) == (200, BODY)
    assert asked(server, "/metrics?a=1") == (200, BODY)
    assert asked(server, "/")[0] == 404
    assert asked(server, method="HEAD") == (200, b"")
    assert asked(server, method="POST")[0] == 405
    assert asked(server, "/fails")[0] == 500


def test_a_thousand_idle_connections_keep_no_scrape_out_and_leak_nothing(server: PageServer) -> None:
    threads = threading.active_count()
    with ExitStack() as stack:
        for number in range(1000):
            stack.enter_context(connected(server, b"GET /metrics HTTP/1.1\r\nA: b\r\n" if number % 2 else b""))
        began_s = time.monotonic()
        assert asked(server) == (200, BODY)
        assert time.monotonic() - began_s < REQUEST_S
        assert threading.active_count() <= threads + THREADS
        sockets = [fd for fd in os.listdir("/proc/self/fd") if _is_socket(fd)]
        assert len(sockets) <= 1000 + MAX_CONNECTIONS + 20
    assert asked(server) == (200, BODY)


def _is_socket(fd: str) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")
    except OSError:
        return False


@pytest.mark.slow
def test_who_says_a_byte_a_second_is_cut_off_in_time(server: PageServer) -> None:
    began_s = time.monotonic()
    with connected(server, b"GET /metrics HTTP/1.1\r\n") as client:
        client.settimeout(0.5)
        while time.monotonic() < began_s + 4 * REQUEST_S:
            try:
                client.sendall(b"A")
                if client.recv(1) == b"":
                    break
            except TimeoutError:
                continue
            except OSError:
                break
    assert time.monotonic() - began_s < 3 * REQUEST_S


@pytest.mark.slow
def test_who_does_not_read_is_cut_off_in_time(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "framefeed.page_server")
    whole = 64 << 20
    server = PageServer("127.0.0.1", 0, get=lambda path: (200, "text/plain", b"x" * whole))
    try:
        with connected(server, b"GET / HTTP/1.1\r\n\r\n") as client:
            wait_until("it is cut off", lambda: "let go: TimeoutError" in caplog.text, patience_s=4 * REQUEST_S)
            got = 0
            while more := client.recv(1 << 20):
                got += len(more)
            assert got < whole, "the rest was let go of with the connection"
    finally:
        server.close()


def test_a_head_without_end_is_refused(server: PageServer) -> None:
    with connected(server, b"GET /metrics HTTP/1.1\r\nA: " + b"b" * 20_000) as client:
        assert client.recv(12) == b"HTTP/1.1 431"
    for head, code in (
        (b"hello\r\n\r\n", b"400"),
        (b"\x16\x03\x01\r\n\r\n", b"400"),
        (b"GET / HTTP/9.9 x\r\n\r\n", b"400"),
    ):
        with connected(server, head) as client:
            assert client.recv(12) == b"HTTP/1.1 " + code


def test_a_page_that_takes_long_is_made_once_for_all_and_holds_up_no_other() -> None:
    entered, until, made = threading.Event(), threading.Event(), []

    def slow(path: str) -> Page:
        if path == "/slow":
            made.append(path)
            entered.set()
            assert until.wait(60)
        return 200, "text/plain", path.encode()

    server = PageServer("127.0.0.1", 0, get=slow)
    try:
        clients = [connected(server, b"GET /slow HTTP/1.1\r\n\r\n") for _ in range(8)]
        assert entered.wait(20)
        assert asked(server, "/quick") == (200, b"/quick")
        until.set()
        for client in clients:
            with client:
                assert client.recv(12) == b"HTTP/1.1 200"
        assert len(made) < 8
    finally:
        until.set()
        server.close()


def test_a_port_that_is_taken_says_so(server: PageServer) -> None:
    with pytest.raises(OSError, match="in use"):
        PageServer("127.0.0.1", urlsplit(server.url).port or 0, get=get)
    with pytest.raises(OverflowError):
        PageServer("127.0.0.1", 70_000, get=get)


@pytest.mark.slow
def test_who_gets_no_page_is_told_of() -> None:
    told: list[tuple[str, str]] = []
    server = PageServer("127.0.0.1", 0, get=get, refused=lambda who, why: told.append((who, why)))
    try:
        with connected(server, b"\x16\x03\x01\r\n\r\n") as stranger, connected(server, b"A" * 20_000):
            host, port = stranger.getsockname()
            wait_until("both are told", lambda: len(told) == 2)
        with ExitStack() as stack:
            for _ in range(MAX_CONNECTIONS + 3):
                stack.enter_context(connected(server))
            wait_until("three gave way", lambda: len(told) == 5)
            wait_until("the others had their time", lambda: len(told) == 5 + MAX_CONNECTIONS)
    finally:
        server.close()
    assert (f"a client at {host}:{port} of the HTTP port", "this port speaks HTTP/1.1") in told
    assert sum("newer connections" in why for _, why in told) == 3
    assert sum("within 5 s" in why for _, why in told) == MAX_CONNECTIONS


TOO_FEW = """
import errno, gc, os, resource
from framefeed.page_server import PageServer

def open_fds():
    return sorted(os.listdir("/proc/self/fd"))

soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
before = open_fds()
for spare in range(4):  # a socket takes one, its loop three more
    first = os.dup(0)
    os.close(first)
    resource.setrlimit(resource.RLIMIT_NOFILE, (first + spare, hard))
    try:
        PageServer("127.0.0.1", 0, get=lambda path: (200, "text/plain", b""))
    except OSError as error:
        assert error.errno == errno.EMFILE
    else:
        raise AssertionError(f"{spare} descriptors are enough")
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    gc.collect()
    assert open_fds() == before
first = os.dup(0)
os.close(first)
resource.setrlimit(resource.RLIMIT_NOFILE, (first + 4, hard))
PageServer("127.0.0.1", 0, get=lambda path: (200, "text/plain", b"")).close()
"""


def test_too_few_descriptors_are_an_error_that_leaves_nothing_and_no_traceback() -> None:
    done = subprocess.run([sys.executable, "-c", TOO_FEW], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
