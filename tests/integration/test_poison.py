"""Clips that no server can give, and batches that overtake: what stands in and what was used when survives restarts."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from framefeed.crops import ResizedCentreCrop
from framefeed.errors import BadInput, CorruptMedia
from framefeed.quarantine import read_quarantine
from framefeed.sampling import Segments
from tests.clip_servers import ClipServer, Manner, pixels_of
from trainer_client.clip_policy import ClipPolicy
from trainer_client.feed.batch import Batch
from trainer_client.feed.sampler import Sampler, Share
from trainer_client.feed.stand_ins import PoisonBudgetSpent, PoisonOptions
from trainer_client.loader import ClipLoader, LoaderOptions
from trainer_client.samples import Sample

POLICY = ClipPolicy(sampling=Segments(frames=2), crop=ResizedCentreCrop(), width_px=8, height_px=8)
DATASET = [Sample(video=f"video{i}", start_s=i, end_s=i + 1) for i in range(30)]
BATCH, STEPS = 3, 24  # two epochs and a bit
# No bad sample comes again within what is prefetched: there only time decides if it is asked for again or dropped.
RUN_SEED = 14
BAD = Manner(refuse=(("video3", "corrupt_media"), ("video11", "unsupported_media"), ("video12", "corrupt_media")))


def loader(*urls: str, registry: CollectorRegistry | None = None, **options: Any) -> ClipLoader:
    chosen = {"batch_clips": BATCH, "steps": STEPS, "run_seed": RUN_SEED, "stall_s": 30.0, **options}
    return ClipLoader(DATASET, POLICY, LoaderOptions(servers=urls, **chosen), registry=registry)


def poison(policy: str, **options: Any) -> PoisonOptions:
    return PoisonOptions(policy=policy, **{"budget": 3, **options})  # type: ignore[arg-type]


def prints(batch: Batch) -> tuple[int, list[int], list[int], bytes]:
    """What a batch is, ids and bytes; that it is what it says of itself is checked."""
    for row, sample in enumerate(batch.samples):
        assert DATASET[batch.indices[row]] == sample
        assert np.array_equal(batch.pixels[row], pixels_of(POLICY.request(sample, int(batch.seeds[row]))))
    stood_in = {stand_in.position for stand_in in batch.stand_ins}
    planned = Sampler(samples=len(DATASET), run_seed=RUN_SEED, share=Share(batch_clips=BATCH)).batch(batch.step)
    for row, position in enumerate(batch.positions.tolist()):
        assert (batch.indices[row] == planned.indices[row]) == (position not in stood_in)
    return batch.step, batch.indices.tolist(), batch.seeds.tolist(), batch.pixels.tobytes()


@pytest.mark.parametrize("policy", ["replace", "skip"])
def test_stand_ins_are_the_same_after_any_restart_and_for_any_servers(policy: str, tmp_path: Path) -> None:
    chosen = poison(policy, folder=tmp_path)
    registry = CollectorRegistry()
    with ClipServer(BAD) as one, ClipServer(BAD) as two:
        with loader(one.url, two.url, poison=chosen, registry=registry) as run:
            batches = [prints(batch) for batch in run]
            stats, end = run.stats, run.state_dict()
            assert registry.get_sample_value("framefeed_trainer_stand_ins_total", {"rank": "0"}) == stats.stood_in
        assert len(batches) == STEPS
        assert stats.conserved
        assert stats.poisoned == {"corrupt_media": 2, "unsupported_media": 1}
        assert stats.stood_in >= 6
        assert {span.video for span in read_quarantine(tmp_path).spans} == {"video3", "video11", "video12"}
        for done in (0, 5, 13, STEPS - 1):
            with loader(two.url, poison=chosen) as before:
                early = [prints(next(before)) for _ in range(done)]
                state = before.state_dict()
            with loader(one.url, two.url, poison=chosen) as later:
                later.load_state_dict(state)
                assert early + [prints(batch) for batch in later] == batches
                assert later.state_dict() == end
    with ClipServer() as healed, loader(healed.url, poison=chosen) as again:
        again.replay(end)
        assert [prints(batch) for batch in again] == batches, "even when the videos are whole again"
        again.replay(end, first=7)
        assert [prints(batch) for batch in again] == batches[7:]


def test_a_dropped_sample_is_asked_for_once_and_a_replaced_one_every_epoch() -> None:
    counts = {}
    for policy in ("replace", "skip"):
        with ClipServer(BAD) as only, loader(only.url, poison=poison(policy)) as run:
            stood_in = sum(len(batch.stand_ins) for batch in run)
            refused = sum(n for (_, outcome), n in run.stats.requests.items() if outcome.endswith("media"))
            counts[policy] = stood_in, refused
    assert counts["replace"][0] == counts["skip"][0] >= 6
    assert counts["skip"][1] == 3
    assert counts["replace"][1] >= 6


def test_past_the_budget_the_run_ends_with_one_line() -> None:
    with ClipServer(BAD) as only, loader(only.url, poison=poison("replace", budget=2)) as run:
        for _ in range(2):
            with pytest.raises(PoisonBudgetSpent, match=r"3 of 30 samples could not be had, wanted at most 2") as spent:
                list(run)
            assert "\n" not in str(spent.value)
        assert run.stats.conserved


def test_the_default_ends_the_run_and_lists_why(tmp_path: Path) -> None:
    with ClipServer(BAD) as only, loader(only.url, poison=poison("raise", folder=tmp_path)) as run:
        with pytest.raises(CorruptMedia):
            list(run)
        assert read_quarantine(tmp_path).spans


def test_all_ranks_take_every_step_whatever_is_bad() -> None:
    ranks = []
    with ClipServer(BAD) as only:
        for rank in range(3):
            share = {"rank": rank, "world_size": 3, "batch_clips": 1, "poison": poison("skip")}
            with loader(only.url, **share) as run:
                ranks.append([batch.indices.tolist() for batch in run])
        with loader(only.url, poison=poison("skip")) as alone:
            whole = [batch.indices.tolist() for batch in alone]
    assert [[*a, *b, *c] for a, b, c in zip(*ranks, strict=True)] == whole


def overtaken(state_after: int, **options: Any) -> tuple[list[Any], dict[str, Any], list[Any]]:
    """A run whose first batch is held up until `state_after` others came: what came, its state then, and the rest."""
    first = Sampler(samples=len(DATASET), run_seed=RUN_SEED, share=Share(batch_clips=BATCH)).batch(0)
    held_up = Manner(refuse=((f"video{first.indices[0]}", "storage_fault"),))
    with ClipServer(held_up) as only, loader(only.url, order="window:4", **options) as run:
        came = [prints(next(run)) for _ in range(state_after)]
        state = run.state_dict()
        only.manner = Manner()
        return came, dict(state), [prints(batch) for batch in run]


def test_ready_batches_overtake_within_the_window_and_the_run_resumes_and_replays() -> None:
    with ClipServer() as only, loader(only.url) as run:
        undisturbed = [prints(batch) for batch in run]
    came, state, rest = overtaken(3)
    assert [step for step, *_ in came] == [1, 2, 3], "and no more: the window is four"
    assert sorted(came + rest) == undisturbed
    assert state["position"] == 3 * BATCH
    assert state["order"] is not None
    with ClipServer() as only, loader(only.url) as later:
        later.load_state_dict(state)
        assert [prints(batch) for batch in later] == [undisturbed[0], *undisturbed[4:]]
        end = later.state_dict()
        later.replay(end)
        assert [prints(batch) for batch in later] == [*came, undisturbed[0], *undisturbed[4:]]
        later.replay(state)
        assert [prints(batch) for batch in later] == came
        later.load_state_dict(end)
        assert list(later) == []


@pytest.mark.parametrize("rank", [0, 1])
def test_a_state_with_gaps_is_for_one_rank(rank: int) -> None:
    _, state, _ = overtaken(2)
    with loader("tcp://127.0.0.1:1", rank=rank, world_size=3, batch_clips=1) as other:
        for use in (other.load_state_dict, other.replay):
            with pytest.raises(BadInput, match="overtaken and not used yet, and world_size is 3, wanted 1"):
                use(state)


def test_a_windowed_run_without_gaps_goes_on_and_is_replayed_with_several_ranks() -> None:
    came, state, _ = overtaken(3)
    with ClipServer() as only, loader(only.url) as alone:
        alone.load_state_dict(state)
        whole = [*(step for step, *_ in came), next(alone).step]
        state = alone.state_dict()
        ranks = []
        for rank in range(3):
            with loader(only.url, rank=rank, world_size=3, batch_clips=1) as one:
                one.load_state_dict(state)
                later = [(batch.step, batch.indices.tolist()) for batch in one]
                one.replay(state)
                ranks.append([[(batch.step, batch.indices.tolist()) for batch in one], later])
        rest = [(batch.step, batch.indices.tolist()) for batch in alone]
    for replayed, later in ranks:
        assert [step for step, _ in replayed] == whole == [1, 2, 3, 0]
        assert [step for step, _ in later] == [step for step, _ in rest]
    for at, (_, indices) in enumerate(rest):
        assert [index for _, later in ranks for index in later[at][1]] == indices


class Healer(logging.Handler):
    """Heals a server when something is said."""

    def __init__(self, server: ClipServer) -> None:
        super().__init__(logging.ERROR)
        self.server = server
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(record.getMessage())
        self.server.manner = Manner()


def test_a_standstill_that_is_only_told_goes_on_when_a_server_answers() -> None:
    log = logging.getLogger("trainer_client.loader")
    with ClipServer(Manner(silent_after=0)) as only:
        healer = Healer(only)
        log.addHandler(healer)
        try:
            with loader(only.url, stall_s=0.2, attempt_s=0.3, on_stall="log") as run:
                assert len(list(run)) == STEPS
                assert run.stats.stalls == len(healer.told) >= 1
        finally:
            log.removeHandler(healer)
    assert f"{only.url} up" in healer.told[0]
    assert "video" in healer.told[0]
