"""How much memory and how long a queue a server has where its user does not say: by the threads that decode. Pure."""

from __future__ import annotations

from dataclasses import dataclass

_LEAST_POOL_MIB = 256  # the largest clip there is
_POOL_MIB_A_THREAD = 16  # seven clips of 16x224x224: two in the worker, the others on their way; 27 of 4x224x224
_MEMORY_PART = 8  # of the machine's
_LEAST_QUEUE = 256
_QUEUE_A_THREAD = 16  # clips of 20 to 100 ms: a request at the end of a full queue begins within 0.3 to 1.6 s


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSizes:
    """The buffer pool in MiB, and the requests that may wait."""

    buffer_pool_mib: int
    queue: int


def server_sizes(
    *, buffer_pool_mib: int | None, queue: int | None, threads: int, memory_mib: int | None
) -> ServerSizes:
    """Those that are given, and for None what `threads` that decode want on a machine with so much memory (None: that
    is not known).
    """
    wanted_mib = max(_POOL_MIB_A_THREAD * threads, _LEAST_POOL_MIB)
    if memory_mib is not None:
        wanted_mib = min(wanted_mib, max(memory_mib // _MEMORY_PART, _LEAST_POOL_MIB))
    return ServerSizes(
        buffer_pool_mib=wanted_mib if buffer_pool_mib is None else buffer_pool_mib,
        queue=max(_QUEUE_A_THREAD * threads, _LEAST_QUEUE) if queue is None else queue,
    )
