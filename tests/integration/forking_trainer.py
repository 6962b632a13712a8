"""A trainer that forks in the middle of its run: `python -m tests.integration.forking_trainer HOW URL...`.

It prints one line of JSON: a digest of each batch, whether all pixels were the servers', and what its child said.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from framefeed.crops import RandomResizedCrop
from framefeed.errors import FramefeedError
from framefeed.sampling import Segments
from tests.integration.fake_worker import pattern_of
from trainer_client.clip_policy import ClipPolicy
from trainer_client.feed.batch import Batch
from trainer_client.loader import ClipLoader, LoaderOptions
from trainer_client.samples import Sample

POLICY = ClipPolicy(sampling=Segments(frames=4), crop=RandomResizedCrop(), width_px=224, height_px=224)
DATASET = [Sample(video="pattern", start_s=i, end_s=i + 1) for i in range(40)]
STEPS, FORKED_AT = 24, 4


def open_loader(servers: list[str], *, video: str = "pattern") -> ClipLoader:
    """Two batches ahead, so that most of the run is still to be asked for when it forks."""
    options = LoaderOptions(servers=servers, batch_clips=4, steps=STEPS, run_seed=5, prefetch_batches=2, stall_s=30.0)
    return ClipLoader([replace(sample, video=video) for sample in DATASET], POLICY, options)


def is_right(batch: Batch) -> bool:
    """Whether its pixels are those that were asked for."""
    wanted = (POLICY.request(sample, int(seed)) for sample, seed in zip(batch.samples, batch.seeds, strict=True))
    return all((clip.reshape(-1) == pattern_of(one)).all() for clip, one in zip(batch.pixels, wanted, strict=True))


def descriptors() -> list[str]:
    """What this process has open that is of the feed's kinds."""
    kinds = ("socket:", "anon_inode:[event", "/memfd:")
    found = (os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink())
    mapped = [line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "memfd:" in line]
    return [name for name in found if name.startswith(kinds)] + mapped


def use(run: ClipLoader) -> list[str]:
    """Use it as its owner would; what it says to that."""
    uses: list[Callable[[], object]] = [
        lambda: next(run),
        lambda: run.stats,
        run.state_dict,
        lambda: run.load_state_dict({}),
        lambda: run.replay({}),
        lambda: pickle.dumps(run),
    ]
    said = []
    for one in uses:
        try:
            said.append(f"worked: {one()}")
        except FramefeedError as error:
            said.append(str(error))
    run.close()
    return said


def fork_by_hand(run: ClipLoader) -> object:
    """A child that uses the loader and ends as programs do, through all of the interpreter's exit."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        said = {"said": use(run), "open": descriptors(), "pid": os.getpid()}
        os.write(writer, json.dumps(said).encode())
        sys.exit(7)
    os.close(writer)
    with open(reader) as answer:
        told = json.load(answer)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return {**told, "exit": status}


def fork_by_multiprocessing(run: ClipLoader) -> object:
    """A pool's children, which leave by os._exit."""
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return pool.map(abs, range(-9, 0))


def fork_by_dataloader(run: ClipLoader) -> object:
    """Workers of another dataset's DataLoader, alive until the run is over."""
    import torch.utils.data  # noqa: PLC0415 - the other ways need no torch

    numbers = [torch.tensor(number) for number in range(64)]
    other = iter(torch.utils.data.DataLoader(numbers, batch_size=2, num_workers=2))  # type: ignore[arg-type, var-annotated]
    next(other)
    return other


def fork_by_subprocess(run: ClipLoader) -> object:
    """Programs that are started with and without Python between fork and exec; what the second has open."""
    subprocess.run(["true"], preexec_fn=lambda: None, check=True)
    script = "import os; print([os.readlink(f'/proc/self/fd/{fd}') for fd in os.listdir('/proc/self/fd')[:-1]])"
    command = [sys.executable, "-c", script]
    return subprocess.run(command, capture_output=True, text=True, close_fds=False, check=True).stdout


WAYS = {
    "none": lambda run: None,
    "fork": fork_by_hand,
    "multiprocessing": fork_by_multiprocessing,
    "dataloader": fork_by_dataloader,
    "subprocess": fork_by_subprocess,
}


def main(how: str, servers: list[str]) -> None:
    """Run to the end, and fork on the way."""
    digests, right, told = [], [], None
    with open_loader(servers) as run:
        for number, batch in enumerate(run):
            if number == FORKED_AT:
                told = WAYS[how](run)
            digests.append(hashlib.sha256(np.ascontiguousarray(batch.pixels)).hexdigest())
            right.append(is_right(batch))
        conserved, retries = run.stats.conserved, sum(run.stats.retries.values())
        report = {"pid": os.getpid(), "digests": digests, "right": all(right), "conserved": conserved}
        told = told if isinstance(told, dict | list | str | None) else "alive"
        print(json.dumps({**report, "retries": retries, "told": told}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
