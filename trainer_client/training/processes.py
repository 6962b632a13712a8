"""One process of several that train together: it joins the others, and what goes wrong is said by one of them.

What starts them (torchrun, or `launch`) names each in the environment; alone there is nothing to join. It knows no
model.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]
from torch.distributed.distributed_c10d import _get_default_store

from framefeed.errors import BadInput, FramefeedError
from framefeed.show_value import show_value
from trainer_client.node_memory import local_ranks
from trainer_client.training.ranks import Ranks

LAUNCHED = "FRAMEFEED_LAUNCHED"  # set where the launcher says who was lost
GONE = "framefeed/gone"  # key of the store: which rank has ended before the run was over
LOST_CODE = 75  # exit code of a rank that lost another one; sysexits' EX_TEMPFAIL
_JOIN = timedelta(seconds=120)
_LOOK_S, _LOOKS = 0.1, 50


class RankLost(FramefeedError):
    """Another process of the run is gone, or does not answer."""

    code = "rank_lost"


def ranks_in(environment: Mapping[str, str] = os.environ) -> Ranks:
    """Which process this is, as torchrun tells (RANK, WORLD_SIZE). Raises BadInput if it says no such thing."""
    rank, world = environment.get("RANK", "0"), environment.get("WORLD_SIZE", "1")
    if not (rank.isdecimal() and world.isdecimal() and int(rank) < int(world)):
        raise BadInput(
            f"environment: RANK is {show_value(rank)} of WORLD_SIZE {show_value(world)}, wanted 0 <= rank < world size"
        )
    return Ranks(rank=int(rank), world=int(world))


def ranks_here(environment: Mapping[str, str] = os.environ) -> int:
    """How many processes of the run this machine has, to the first of them; 0 to the others. Raises as local_ranks."""
    return local_ranks(environment) if environment.get("LOCAL_RANK", "0") == "0" else 0


@contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """Within it the ranks are one group (gloo on CPUs, nccl on GPUs). Blocks until all are there, 120 s at most.

    An error that leaves it is said by the first rank that has one; the others exit with the same code and no word.
    Raises RankLost, naming them, when other ranks are gone.
    """
    ranks = ranks_in()
    if ranks.world == 1:
        yield ranks
        return
    _join(device)
    try:
        with _one_voice(ranks):
            yield ranks
    finally:
        _leave()


def _join(device: torch.device) -> None:
    backend = "nccl" if device.type == "cuda" else "gloo"
    try:
        dist.init_process_group(backend, timeout=_JOIN)
    except (RuntimeError, ValueError) as error:
        why = str(error).partition("\n")[0]
        raise FramefeedError(f"the other processes cannot be joined within {_JOIN.seconds} s: {why}") from None


def _leave() -> None:
    if dist.is_initialized():
        try:
            dist.destroy_process_group()
        except RuntimeError as error:  # the others are gone: there is nothing to leave
            print(f"framefeed: leaving the group: {error}", file=sys.stderr) if LAUNCHED not in os.environ else None


@contextmanager
def _one_voice(ranks: Ranks) -> Iterator[None]:
    try:
        yield
    except RankLost as error:
        if LAUNCHED in os.environ or not _speaks():
            raise SystemExit(LOST_CODE) from None
        raise RankLost(f"rank {ranks.rank}: {error}") from None
    except FramefeedError as error:
        _leaves(ranks)
        if _speaks():
            raise error.said_by(f"rank {ranks.rank}") from error
        raise SystemExit(2 if isinstance(error, BadInput) else 1) from None
    except RuntimeError as error:
        if not _is_of_the_group(error):
            raise
        gone = _gone(ranks)
        if LAUNCHED in os.environ or not _speaks():
            raise SystemExit(LOST_CODE) from None
        raise RankLost(f"{gone}; rank {ranks.rank} saw it first ({str(error).splitlines()[0][:200]})") from None


def run_store() -> Store:
    """The key-value store of all ranks; of `launch` the one that it has too. Within `joined` only."""
    store = _get_default_store()
    while LAUNCHED in os.environ and isinstance(store, PrefixStore):  # torchrun's prefixes say which restart it is
        store = store.underlying_store
    return store


def _leaves(ranks: Ranks) -> None:
    """Tell those that wait for this rank."""
    with contextlib.suppress(RuntimeError, ValueError):
        run_store().set(GONE, f"rank {ranks.rank}")


def _speaks() -> bool:
    """Whether nobody has said yet why the run ends. The store is the starter's, or rank 0's and then gone with it."""
    try:
        return int(_get_default_store().add("framefeed/voice", 1)) == 1
    except (RuntimeError, ValueError):
        return True


def _is_of_the_group(error: RuntimeError) -> bool:
    return isinstance(error, dist.DistError) or any(
        word in str(error) for word in ("gloo", "Connection closed by peer", "NCCL", "Connection reset", "Broken pipe")
    )


def _gone(ranks: Ranks) -> str:
    """Which ranks do not say, within some seconds, that they have seen it too."""
    try:
        store = _get_default_store()
        store.set(f"framefeed/lost/{ranks.rank}", "seen")
        missing = [rank for rank in range(ranks.world) if rank != ranks.rank]
        for _ in range(_LOOKS):
            missing = [rank for rank in missing if not store.check([f"framefeed/lost/{rank}"])]
            if len(missing) < 1:
                break
            time.sleep(_LOOK_S)
    except (RuntimeError, ValueError):
        return "rank 0 is gone, or whoever started the ranks"
    return f"rank {', '.join(map(str, missing))} is gone" if missing else "the ranks lost each other"
