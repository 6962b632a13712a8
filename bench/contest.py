"""Times contestants fairly: each in a process of its own, in turns, by its own CPU seconds, all threads counted.

In one process they would disturb each other: threads that a peer leaves behind would be charged to whoever is next.
It knows nothing of what the contestants do.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

from framefeed.errors import FramefeedError

Round = Callable[[], None]
Start = Callable[[], Round]
_ROUND_LIMIT_S = 600


def cpu_seconds(contestants: dict[str, Start], *, rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each round of each contestant: A B C, A B C, …, after one round that does not count.

    A contestant is a picklable function that prepares and returns the function of a round. Blocks until all rounds are
    done. Raises FramefeedError when a contestant fails or takes longer than 10 minutes for a round.
    """
    spawn = multiprocessing.get_context("spawn")
    running = {}
    try:
        for name, start in contestants.items():
            ours, theirs = spawn.Pipe()
            process = spawn.Process(target=_contestant, args=(start, theirs), name=name, daemon=True)
            process.start()
            theirs.close()
            running[name] = (process, ours)
        for connection in (connection for _, connection in running.values()):
            connection.send("round")
        for name, (_, connection) in running.items():
            _answer(name, connection)
        times_s: dict[str, list[float]] = {name: [] for name in running}
        for _ in range(rounds):
            for name, (_, connection) in running.items():
                connection.send("round")
                times_s[name].append(_answer(name, connection))
        return times_s
    finally:
        for process, connection in running.values():
            connection.close()
            process.terminate()
            process.join(10)


def _answer(name: str, connection: Connection) -> float:
    try:
        if not connection.poll(_ROUND_LIMIT_S):
            raise FramefeedError(f"bench: {name} took longer than {_ROUND_LIMIT_S} s for a round")
        seconds: float = connection.recv()
    except EOFError:
        raise FramefeedError(f"bench: {name} failed; its traceback is above") from None
    return seconds


def _contestant(start: Start, connection: Connection) -> None:
    run_round = start()
    while True:
        try:
            connection.recv()
        except EOFError:
            return
        began = time.process_time()
        run_round()
        connection.send(time.process_time() - began)
