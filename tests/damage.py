"""Damaged copies of media files, and a process that tries to decode them, which may hang or crash without harm.

A seed decides all of a mutation. What counts as right is the caller's to say.
"""

from __future__ import annotations

import multiprocessing as mp
import random
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

DEADLINE_S = 5.0
KINDS = ("truncated", "bits flipped", "range zeroed", "sizes wrong")
_SIZED_BOXES = (
    b"moov",
    b"trak",
    b"mdia",
    b"stbl",
    b"stsz",
    b"stco",
    b"stsc",
    b"stts",
    b"ctts",
    b"mdat",
    b"avcC",
    b"elst",
)
_HEAD_BYTES = 600


def mutated(data: bytes, kind: str, seed: int) -> bytes:
    """A damaged copy of a file's bytes."""
    rng = random.Random(f"{kind}:{seed}")
    copy = bytearray(data)
    if kind == "truncated":
        del copy[rng.randrange(len(copy)) :]
    elif kind == "bits flipped":
        for _ in range(rng.choice([1, 1, 4, 40])):
            copy[rng.randrange(len(copy))] ^= 1 << rng.randrange(8)
    elif kind == "range zeroed":
        start, length = rng.randrange(len(copy)), rng.choice([8, 188, 1000, 8000])
        copy[start : start + length] = bytes(len(copy[start : start + length]))
    else:
        _spoil_sizes(copy, rng)
    return bytes(copy)


def _spoil_sizes(copy: bytearray, rng: random.Random) -> None:
    """Overwrite the size of an ISO box or a number in it; of other containers, numbers near the start or the end."""
    boxes = [at for name in _SIZED_BOXES if (at := copy.find(name)) >= 4]
    if boxes:
        at = rng.choice(boxes) + rng.choice([-4, 8, 12, 16, 20])
    else:
        at = rng.choice([rng.randrange(_HEAD_BYTES), len(copy) - 1 - rng.randrange(_HEAD_BYTES)])
    at = max(min(at, len(copy) - 4), 0)
    copy[at : at + 4] = rng.choice([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", rng.randbytes(4)])


def outcomes(trial: Callable[[Any], str], jobs: Sequence[Any]) -> Iterator[str]:
    """`trial(job)` of each job, in a process of its own; "hang" past DEADLINE_S and "crash" where the process dies."""
    context = mp.get_context("spawn")
    at = 0
    while at < len(jobs):
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(trial, list(jobs[at:]), theirs), daemon=True)
        process.start()
        theirs.close()
        ours.recv()  # started
        try:
            while at < len(jobs):
                outcome = ours.recv() if ours.poll(DEADLINE_S) else "hang"
                at += 1
                yield outcome
                if outcome == "hang":
                    break
        except EOFError:
            at += 1
            yield "crash"
        finally:
            process.kill()
            process.join()
            ours.close()


def _serve(trial: Callable[[Any], str], jobs: Sequence[Any], pipe: Connection) -> None:
    pipe.send("started")
    for job in jobs:
        pipe.send(trial(job))
