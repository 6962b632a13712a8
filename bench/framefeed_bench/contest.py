"""Times contestants fairly: each in a process of its own, in turns, by its own CPU seconds, all threads counted.

In one process they would disturb each other: threads that a peer leaves behind would be charged to whoever is next,
and several copies of FFmpeg would share one set of names. It knows nothing of what the contestants do.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, Protocol

from framefeed.errors import FramefeedError

_ANSWER_LIMIT_S = 600


class Contestant(Protocol):
    """What runs in a contestant's process."""

    def round(self) -> None:
        """Do what is timed."""

    def clip(self, number: int) -> object:
        """Give one result, to be checked."""


Start = Callable[[], Contestant]


class Contest:
    """Running contestants by name."""

    def __init__(self, connections: dict[str, Connection]) -> None:
        self._connections = connections

    def clip(self, name: str, number: int) -> Any:
        """One result of a contestant. Raises FramefeedError when it fails or takes longer than 10 minutes."""
        return self._ask(name, number)

    def cpu_seconds(self, rounds: int) -> dict[str, list[float]]:
        """CPU seconds of each round of each contestant: A B C, A B C, …, after one round that does not count.

        Raises FramefeedError when a contestant fails or takes longer than 10 minutes for a round.
        """
        for name in self._connections:
            self._ask(name, None)
        times_s: dict[str, list[float]] = {name: [] for name in self._connections}
        for _ in range(rounds):
            for name in self._connections:
                times_s[name].append(self._ask(name, None))
        return times_s

    def _ask(self, name: str, question: int | None) -> Any:
        connection = self._connections[name]
        try:
            connection.send(question)
            if not connection.poll(_ANSWER_LIMIT_S):
                raise FramefeedError(f"bench: {name} did not answer for {_ANSWER_LIMIT_S} s")
            return connection.recv()
        except (EOFError, OSError):
            raise FramefeedError(f"bench: {name} failed; its traceback is above") from None


@contextmanager
def contest(starts: Mapping[str, Start]) -> Iterator[Contest]:
    """Start each contestant (a picklable function that prepares it) in its process; end them all on leaving."""
    spawn = multiprocessing.get_context("spawn")
    processes = []
    connections: dict[str, Connection] = {}
    try:
        for name, start in starts.items():
            ours, theirs = spawn.Pipe()
            process = spawn.Process(target=_serve, args=(start, theirs), name=name, daemon=True)
            process.start()
            theirs.close()
            processes.append(process)
            connections[name] = ours
        yield Contest(connections)
    finally:
        for connection in connections.values():
            connection.close()
        for process in processes:
            process.terminate()
            process.join(10)


def _serve(start: Start, connection: Connection) -> None:
    contestant = start()
    while True:
        try:
            question: int | None = connection.recv()
        except EOFError:
            return
        if question is not None:
            connection.send(contestant.clip(question))
            continue
        began = time.process_time()
        contestant.round()
        connection.send(time.process_time() - began)
