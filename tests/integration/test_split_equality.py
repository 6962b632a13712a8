"""One run in any split: processes, DDP, FSDP2 and micro-batches change no loss and no weight beyond rounding."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from tests.unit.trainer.small_tasks import TASKS, Split, largest_difference, make_run, part, take
from tests.unit.trainer.stored_runs import kept_in, save, write_part
from trainer_client.training.ranks import Ranks
from trainer_client.training.run_state import load_run, state_of, tensors_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

STEPS, WORLD = 20, 2
LOSS, WEIGHT = 1e-6, 1e-5
SPLITS = {
    "ddp": Split(parallel="ddp"),
    "fsdp2": Split(parallel="fsdp2"),
    "fsdp2-keep": Split(parallel="fsdp2-keep", micro_clips=2),
    "2 x 2": Split(parallel="ddp", micro_clips=2),
}
CONTINUED = ("classify-random", "cmae")


def _rank(rank: int, folder: str) -> None:
    """Every task in every split, and the middle third of a run of three; rank 0 writes what it saw."""
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", WORLD)
    dist.init_process_group("gloo", rank=rank, world_size=WORLD, store=store)
    ranks = Ranks(rank=rank, world=WORLD)
    seen = {}
    for name in TASKS:
        for how, split in SPLITS.items():
            run = make_run(name, Split(ranks=ranks, parallel=split.parallel, micro_clips=split.micro_clips))
            seen[name, how] = take(run, until=STEPS)
    for name in CONTINUED:
        for how, split in SPLITS.items():
            kept = kept_in(Path(folder) / name)
            first = kept.load(kept.folder / "step_000000007", ranks)
            run = make_run(name, Split(ranks=ranks, parallel=split.parallel, micro_clips=split.micro_clips))
            seen[f"{name} on", how] = take(run, until=14, after=first)
            last = kept_in(Path(folder) / name / how)
            write_part(last, state_of(run, data={"position": 14}), ranks)
            dist.barrier()
            if rank == 0:
                last.commit(14, world=WORLD)
    if rank == 0:
        torch.save(seen, f"{folder}/seen.pt")
    dist.destroy_process_group()


Seen = dict[tuple[str, str], tuple[list[float], dict[str, torch.Tensor]]]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Seen]:
    folder = tmp_path_factory.mktemp("ranks")
    for name in CONTINUED:
        run = make_run(name, Split())
        take(run, until=7)
        save(kept_in(folder / name), state_of(run, data={"position": 7}))
    mp.spawn(_rank, args=(str(folder),), nprocs=WORLD)  # each waits for the other; a failure ends both
    found: Seen = torch.load(Path(folder) / "seen.pt", weights_only=False)
    return folder, found


@pytest.mark.parametrize("name", TASKS)
def test_no_split_changes_a_run(name: str, ran: tuple[Path, Seen]) -> None:
    seen = ran[1]
    losses, alone = take(make_run(name, Split()), until=STEPS)
    assert losses[0] != pytest.approx(losses[-1], abs=1e-4), "a run that learns nothing is equal to all"
    splits = {how: seen[name, how] for how in SPLITS} | {"x 4": take(make_run(name, Split(micro_clips=2)), until=STEPS)}
    for how, (theirs, state) in splits.items():
        assert theirs == pytest.approx(losses, rel=LOSS, abs=LOSS), how
        assert largest_difference(part(state, "model."), part(alone, "model.")) <= WEIGHT, how
        assert largest_difference(part(state, "average."), part(alone, "average.")) <= WEIGHT, how


@pytest.mark.parametrize("name", CONTINUED)
@pytest.mark.parametrize("how", SPLITS)
def test_a_run_goes_from_one_process_to_two_and_back(name: str, how: str, ran: tuple[Path, Seen]) -> None:
    """Over checkpoints on storage; with drop path, dropout and mixup in one of them."""
    folder, seen = ran
    losses, alone = take(make_run(name, Split()), until=STEPS)
    first, _ = take(make_run(name, Split()), until=7)
    middle, state = seen[f"{name} on", how]
    stored = kept_in(folder / name / how).load(folder / name / how / "step_000000014", Ranks())
    resumed = make_run(name, Split())
    load_run(resumed, stored)
    assert all(torch.equal(tensor, state[known]) for known, tensor in tensors_of(resumed).items())
    last, ended = take(resumed, until=STEPS)
    assert first + middle + last == pytest.approx(losses, abs=1e-5)
    assert largest_difference(part(ended, "model."), part(alone, "model.")) <= WEIGHT
    assert largest_difference(part(ended, "average."), part(alone, "average.")) <= WEIGHT
