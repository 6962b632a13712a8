"""A server serves and ends whatever its standard streams are: closed, full, or a pipe that nobody reads."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from framefeed.server_entry import read_entry
from tests.integration.made_roots import root_of_a_clip
from tests.integration.serving import PATIENCE_S, SERVE, Client, request, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return root_of_a_clip(tmp_path_factory.mktemp("root"))


@contextlib.contextmanager
def started(
    root: Path, folder: Path, streams: str, *, keep: tuple[int, ...] = ()
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A server of these redirections, once it has announced itself: its process and endpoint."""
    announce = folder / "announce.json"
    options = f"--bind tcp://127.0.0.1:0 --metrics-port 0 --workers 1 --announce {announce} {root}"
    python = f"{sys.executable} {SERVE[0]} '{SERVE[1]}' {SERVE[2]}"
    process = subprocess.Popen(["/bin/bash", "-c", f"set -o pipefail; {python} {options} {streams}"], pass_fds=keep)
    try:
        wait_until("it is ready", lambda: announce.exists() or process.poll() is not None)
        assert process.poll() is None
        yield process, read_entry(announce).endpoints[0]
    finally:
        if announce.exists():
            with contextlib.suppress(ProcessLookupError):
                os.kill(read_entry(announce).pid, signal.SIGKILL)
        process.kill()
        process.wait()


def serves(endpoint: str) -> None:
    with Client(endpoint) as client:
        reply, pixels = client.decode(request())
        assert pixels, reply


def fill(writer: int) -> None:
    os.set_blocking(writer, False)
    for size in (1000, 1):
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writer, b"x" * size)
    os.set_blocking(writer, True)


def test_a_server_whose_log_nobody_reads_serves_and_ends(root: Path, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, 1031, 4096)
    fill(writer)
    with started(root, tmp_path, f">&{writer} 2>&{writer}", keep=(writer,)) as (process, endpoint):
        serves(endpoint)
        os.kill(read_entry(tmp_path / "announce.json").pid, signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize(
    ("streams", "log", "says"),
    [
        ("0<&- 1>&- 2>LOG", "ready", ""),
        ("0<&- 1>&- 2>&-", "", ""),
        (">/dev/full 2>LOG", "ready", "stdout did not take the line that says where this server is (No space left"),
        (">/dev/full 2>/dev/full", "", ""),
        ("2>LOG | head -c 1 >/dev/null", "", ""),
    ],
)
def test_a_server_serves_whatever_its_streams_are(
    root: Path, tmp_path: Path, streams: str, log: str, says: str
) -> None:
    file = tmp_path / "log"
    file.touch()
    with started(root, tmp_path, streams.replace("LOG", str(file))) as (process, endpoint):
        serves(endpoint)
        pid = read_entry(tmp_path / "announce.json").pid
        os.kill(pid, signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
    text = file.read_text()
    assert log in text
    assert says in text
    assert "Traceback" not in text
