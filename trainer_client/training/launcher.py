"""Starts the processes of a run on this machine, and ends all of them when one ends; knows nothing of training.

What torchrun does for those who know it: each rank finds its number and the others in its environment.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from torch.distributed import TCPStore  # type: ignore[attr-defined]

from framefeed.cli.children import Child, Children
from framefeed.cli.stop_signals import StopSignals
from framefeed.errors import FramefeedError
from trainer_client.training.processes import GONE, LAUNCHED, LOST_CODE

_TICK_S = 0.2
_AFTER_ONE_S = 10.0  # what others have to end by themselves once one has failed


def launch(write_recipe: Callable[[Path], None], *, processes: int) -> None:
    """Train a recipe in so many processes, ranks 0 and up: each reads the file that `write_recipe` writes.

    Blocks until all have ended; none outlives this one.

    SIGTERM and SIGINT are handed on. When one fails the others are ended, within some 25 s, and the error says which
    it was. Raises KeyboardInterrupt after a clean end on SIGINT, SystemExit where a rank has said why.
    """
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    with (
        tempfile.TemporaryDirectory(prefix="framefeed-") as folder,
        StopSignals() as stops,
        Children(Path(folder)) as children,
    ):
        recipe = Path(folder) / "recipe.json"
        write_recipe(recipe)
        ranks = [
            children.start(
                f"rank {rank}",
                [sys.executable, "-m", "framefeed.cli", "train", str(recipe)],
                quiet=False,
                environment=_environment(rank, processes, port=store.port),
            )
            for rank in range(processes)
        ]
        _watch(ranks, stops, store)
    if stops.last == "SIGINT":
        raise KeyboardInterrupt


def _environment(rank: int, processes: int, *, port: int) -> dict[str, str]:
    count = str(processes)
    names = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    return {**os.environ, **names, **where, LAUNCHED: "1"}


def _watch(ranks: list[Child], stops: StopSignals, store: TCPStore) -> None:
    """Wait for the ranks; once one has failed the others have some seconds."""
    ended: dict[str, int] = {}
    told, until_s = 0, float("inf")
    while len(ended) < len(ranks) and time.monotonic() < until_s:
        for rank in ranks:
            if rank.name not in ended and (code := rank.wait(_TICK_S / len(ranks))) is not None:
                ended[rank.name] = code
                if code != 0:
                    store.set(GONE, rank.name)
                    until_s = min(until_s, time.monotonic() + _AFTER_ONE_S)
        if stops.count > told:
            told = stops.count
            for rank in ranks:
                if rank.name not in ended:
                    rank.terminate()
    _judge(ended, interrupted=stops.last == "SIGINT")


def _judge(ended: dict[str, int], *, interrupted: bool) -> None:
    """Raise for the rank that failed by itself, not for those that lost it."""
    failed = {
        name: code for name, code in ended.items() if code not in (0, LOST_CODE, *((130,) if interrupted else ()))
    }
    for name, code in failed.items():
        if code < 0:
            raise FramefeedError(f"{name} was ended by {signal.Signals(-code).name}; the other ranks were ended")
    if failed:
        raise SystemExit(max(failed.values()))  # it has said why
    if LOST_CODE in ended.values():
        raise FramefeedError("the ranks lost each other; all were ended")
