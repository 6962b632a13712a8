"""Four of five clients over shm:// stopped as processes are by SIGSTOP: the fifth is served, and no pixel is torn."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from framefeed.wire import ClipReply
from tests.integration.fake_worker import pattern_of
from tests.integration.serving import PATIENCE_S, Server, request, wait_until
from tests.integration.stopped_reader import FRAMES, SIDE_PX
from tests.integration.talker import Talker

STOPPED = 4
POOL_MIB = 32  # 53 clips
CLIPS = 200  # which use each byte of the buffer pool again


@contextlib.contextmanager
def stopped_readers(url: str) -> Iterator[list[subprocess.Popen[str]]]:
    """So many clients that have each stopped with a clip half read and others unread."""
    readers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.integration.stopped_reader", url, str(1000 * number)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(STOPPED)
    ]
    try:
        for reader in readers:
            assert reader.stdout is not None
            assert reader.stdout.readline() == "stops\n"
            stat = Path(f"/proc/{reader.pid}/stat")
            wait_until("it is stopped", lambda stat=stat: stat.read_text().rpartition(") ")[2][0] == "T")  # type: ignore[misc]
        yield readers
    finally:
        for reader in readers:
            reader.kill()
            reader.communicate()


def read_on(url: str, *, clips: int) -> None:
    """Be the fifth: ask for eight clips at a time, and compare each."""
    with Talker(url) as talker:
        asked = received = 0
        while received < clips:
            while asked < clips and asked < received + 8:
                clip = request("pattern", seed=asked, frames=FRAMES, side_px=SIDE_PX)
                talker.ask(clip, attempt=asked)
                asked += 1
            reply, pixels = talker.receive()
            assert isinstance(reply, ClipReply), reply
            clip = request("pattern", seed=reply.attempt, frames=FRAMES, side_px=SIDE_PX)
            assert pixels == pattern_of(clip).tobytes()
            received += 1


def serve(folder: Path, *, hold_s: float) -> Server:
    url = f"shm://@stopped-{os.getpid()}-{hold_s:g}"
    options = ("--bind", url, "--buffer-pool-mib", str(POOL_MIB), "--hold-s", str(hold_s), "--workers", "1")
    return Server(folder, "/videos", *options)


@pytest.mark.slow
def test_clients_that_hold_on_to_what_they_have_leave_enough_for_one_more(tmp_path: Path) -> None:
    with serve(tmp_path, hold_s=1000.0) as server, stopped_readers(server.endpoint):
        read_on(server.endpoint, clips=CLIPS)
        assert server.metrics()['framefeed_server_refused_total{reason="lease"}'] == 0


@pytest.mark.slow
def test_who_is_cut_off_while_it_is_stopped_goes_on_with_a_new_connection_and_no_wrong_clip(tmp_path: Path) -> None:
    with serve(tmp_path, hold_s=0.3) as server, stopped_readers(server.endpoint) as readers:
        refused = 'framefeed_server_refused_total{reason="lease"}'
        wait_until("all are cut off", lambda: server.metrics()[refused] == STOPPED)
        wait_until("all is free", lambda: server.metrics()["framefeed_server_buffer_pool_used_bytes"] == 0)
        read_on(server.endpoint, clips=CLIPS)
        for reader in readers:
            reader.send_signal(signal.SIGCONT)
            accepted, wrong, lost = map(int, reader.communicate(timeout=PATIENCE_S)[0].split())
            assert (accepted, wrong, lost) == (1, 0, 1), "it took a clip that was another's, or never noticed"
