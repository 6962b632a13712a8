"""Descriptors that are kept back: a worker that dies while all others are taken is replaced, and the server lives."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import sys
import time
from collections.abc import Iterator

import pytest

from decode_server.service.workers.descriptor_reserve import RESERVED, DescriptorReserve
from decode_server.service.workers.supervisor import CameUp, Supervisor, WorkerOptions
from decode_server.service.workers.topology import WorkerSlot

FAKE = (sys.executable, "-m", "tests.integration.fake_worker")


@contextlib.contextmanager
def all_taken() -> Iterator[None]:
    """No descriptor is left, whoever asks."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, soft), hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


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
        buffer_pool_fd=_memory(),
        cancel_flags_fd=_memory(),
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
