"""The sizes of a server grow with its threads, stay within the machine's memory, and are what its user says."""

from __future__ import annotations

import pytest

from decode_server.service.server_sizes import ServerSizes, server_sizes


@pytest.mark.parametrize(
    ("threads", "memory_mib", "pool_mib", "queue"),
    [
        (2, 16_000, 256, 256),
        (16, 64_000, 256, 256),
        (48, 500_000, 768, 768),
        (96, 1_000_000, 1536, 1536),
        (96, None, 1536, 1536),
        (96, 8_000, 1000, 1536),
        (96, 1_000, 256, 1536),
    ],
)
def test_by_threads_and_memory(threads: int, memory_mib: int | None, pool_mib: int, queue: int) -> None:
    sizes = server_sizes(buffer_pool_mib=None, queue=None, threads=threads, memory_mib=memory_mib)
    assert sizes == ServerSizes(buffer_pool_mib=pool_mib, queue=queue)


def test_what_is_given_stays() -> None:
    sizes = server_sizes(buffer_pool_mib=7, queue=1, threads=96, memory_mib=1)
    assert sizes == ServerSizes(buffer_pool_mib=7, queue=1)
