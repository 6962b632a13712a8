"""Descriptors that are kept back: a worker that dies while all others are taken is replaced, and the server lives."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from decode_server.service.buffer_pool import BufferPool
from decode_server.service.descriptor_reserve import RESERVED, DescriptorReserve
from decode_server.service.listeners.endpoint import parse_bind
from decode_server.service.listeners.gateway.gateway_messages import Up, ZmqSetup
from decode_server.service.listeners.gateway.gateway_process import (
    GatewayDied,
    GatewayEvents,
    GatewayOptions,
    GatewayProcess,
)
from decode_server.service.listeners.shm_listener import ShmListener
from decode_server.service.refusals import Refusals
from decode_server.service.workers.sandbox import Sandbox
from decode_server.service.workers.supervisor import CameUp, Supervisor, WorkerOptions
from decode_server.service.workers.topology import WorkerSlot
from framefeed.errors import BadInput
from framefeed.mapped_manifest import new_memory
from framefeed.reread import LOOK_S, Reread
from framefeed.shm import HELLO, socket_address
from tests.taken_descriptors import all_taken

FAKE = (sys.executable, "-m", "tests.integration.fake_worker")


def test_what_is_reserved_can_be_had_when_nothing_else_can() -> None:
    reserve = DescriptorReserve()
    try:
        with all_taken():
            with pytest.raises(OSError, match="Too many open files"):
                os.open(os.devnull, os.O_RDONLY)
            with reserve.lent():
                for end in socket.socketpair():
                    end.close()
            assert reserve.held == RESERVED
            with reserve.lent():
                kept = os.open(os.devnull, os.O_RDONLY)
            assert reserve.held == RESERVED - 1
        os.close(kept)
        reserve.refill()
        assert reserve.held == RESERVED
    finally:
        reserve.close()
        reserve.close()
    assert reserve.held == 0


def _memory() -> int:
    memory = os.memfd_create("memory")
    os.ftruncate(memory, 1 << 20)
    return memory


def _options() -> WorkerOptions:
    return WorkerOptions(
        root="/videos",
        index_folder="",
        server="here",
        threads=1,
        buffer_pool=BufferPool(1 << 20),
        cancel_flags_fd=_memory(),
        manifest_fd=new_memory(),
        read_s=5.0,
        command=FAKE,
    )


def _until_up(supervisor: Supervisor) -> None:
    until_s = time.monotonic() + 30
    while not any(isinstance(happened, CameUp) for happened in supervisor.poll(time.monotonic())):
        assert time.monotonic() < until_s, "no worker came up"
        assert supervisor.hopeless is None


@pytest.mark.slow
def test_a_worker_that_dies_in_a_flood_is_replaced() -> None:
    supervisor = Supervisor([WorkerSlot(socket=0, cpus=tuple(os.sched_getaffinity(0)))], _options())
    try:
        _until_up(supervisor)
        with all_taken():
            os.kill(supervisor.pids()[0], 9)
            _until_up(supervisor)
    finally:
        supervisor.close()


@pytest.mark.slow
def test_without_a_single_descriptor_it_is_tried_again_and_nothing_is_given_up() -> None:
    supervisor = Supervisor([WorkerSlot(socket=0, cpus=tuple(os.sched_getaffinity(0)))], _options())
    try:
        _until_up(supervisor)
        now_s = time.monotonic()
        supervisor._reserve.close()
        with all_taken():
            os.kill(supervisor.pids()[0], 9)
            until_s = time.monotonic() + 30
            while supervisor.restarts <= 12:  # eight failed starts are what a server gives up after
                now_s += 1.0
                supervisor.poll(now_s)
                assert time.monotonic() < until_s
            assert not supervisor.pids()
            assert supervisor.hopeless is None
    finally:
        supervisor.close()


def test_who_connects_when_not_even_the_reserve_is_there_waits_and_the_listener_lives() -> None:
    """Another thread may have taken what was lent: it cannot be had back, and nobody can be accepted."""
    buffer_pool = BufferPool(1 << 20)
    endpoint = parse_bind(f"shm://@taken-{os.getpid()}", public_allowed=False)
    listener = ShmListener(endpoint, buffer_pool, refusals=Refusals(CollectorRegistry()))
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            client.settimeout(30)
            client.connect(socket_address(listener.url))
            listener._reserve.close()
            with all_taken():
                for _ in range(3):
                    assert listener.receive() is None
            assert listener.clients == 0
            assert listener.receive() is None
            assert client.recv(100).startswith(HELLO)
            assert (listener.clients, listener._reserve.held) == (1, 1)
    finally:
        listener.close(linger_s=0)
        buffer_pool.close()


def _until_gateway_up(gateway: GatewayProcess) -> None:
    until_s = time.monotonic() + 30
    while Up not in [type(said) for said in gateway.receive()]:
        assert time.monotonic() < until_s, "no gateway came up"


@pytest.mark.slow
@pytest.mark.parametrize("reserved", [True, False], ids=["reserve", "no reserve"])
def test_a_gateway_that_dies_in_a_flood_is_replaced(*, reserved: bool) -> None:
    """At once from what is kept back, or else when there are descriptors again, however long that takes."""
    up: list[tuple[str, Sandbox]] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        buffer_pool = _memory()
        setup = ZmqSetup(
            parent=os.getpid(),
            listening=listening.fileno(),
            buffer_pool=buffer_pool,
            curve_secret="",
            io_threads=1,
            connections=8,
            memory_bytes=1 << 30,
        )
        options = GatewayOptions(
            url="tcp://here",
            module="decode_server.service.listeners.gateway.zmq_gateway",
            pass_fds=(listening.fileno(), buffer_pool),
            first_words=lambda: [setup],
            events=GatewayEvents(came_up=lambda who, sandbox: up.append((who, sandbox))),
        )
        gateway = GatewayProcess(options)
        try:
            _until_gateway_up(gateway)
            if not reserved:
                gateway._reserve.close()
            with all_taken():
                os.kill(gateway.pid, 9)
                os.waitid(os.P_PID, gateway.pid, os.WEXITED | os.WNOWAIT)
                with pytest.raises(GatewayDied):
                    gateway.receive()
                if reserved:
                    _until_gateway_up(gateway)
                for _ in range(12 if not reserved else 0):  # eight failed starts are what a server gives up after
                    gateway._start_at_s = 0.0
                    assert gateway.receive() == []
                assert (gateway.pid != 0) == reserved
            if not reserved:
                _until_gateway_up(gateway)
            assert [sandbox.in_force != () for _, sandbox in up] == [True, True]
            assert 0 < gateway.ended_cpu_s < 60
        finally:
            gateway.close(linger_s=0)


def test_a_file_that_changed_while_all_were_taken_is_read_when_it_can_be(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Else a key that was taken off a list would stay allowed."""

    def read() -> str:
        try:
            return file.read_text()
        except OSError as error:
            raise BadInput(f"{file}: {error.strerror}") from None

    now_s = 0.0
    file = tmp_path / "allowed"
    file.write_text("one two")
    allowed = Reread(read, [file], clock=lambda: now_s)
    file.write_text("two")
    with all_taken():
        for _ in range(3):
            now_s += LOOK_S
            assert allowed() == "one two"
    assert caplog.text.count("Too many open files; what was read before stays in use") == 1
    now_s += LOOK_S
    assert allowed() == "two"


def test_credentials_stay_as_they_are_while_no_thread_can_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 0.0
    file = tmp_path / "token"
    file.write_text("old")
    token = Reread(file.read_text, [file], clock=lambda: now_s)
    file.write_text("newer")

    def refused(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", refused)
        now_s += LOOK_S
        assert token() == "old"
    now_s += LOOK_S
    assert token() == "newer"
