"""Batches on their way to the device: two ahead, prepared by another thread, their slots lent until copies are done."""

from __future__ import annotations

import ctypes
import dataclasses
import threading
from collections.abc import Iterator, Mapping

import numpy as np
import pytest
import torch
from torch import Tensor

from framefeed.errors import BadInput, CorruptMedia
from framefeed_models.pixel_norm import IMAGENET
from tests.interrupts import Interrupt, Interruption
from tests.unit.trainer.small_run import MadeFeed, make_batch
from trainer_client.feed.batch import Batch
from trainer_client.feed.slots import SlotPool
from trainer_client.training.augment.rule import AugmentOptions
from trainer_client.training.copies import Copies, NoCopies, Tensors
from trainer_client.training.device_feed import DeviceFeed, Preparing

CPU = torch.device("cpu")


class LateCopies:
    """A device whose copies happen when a test lets them: until then it has not read the host's memory."""

    def __init__(self) -> None:
        self.pending = list[_Late]()

    def begin(self, tensors: Tensors) -> Copies:
        on_device = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
        # As a device does: it knows addresses, and holds nobody's memory.
        addresses = {name: (t.data_ptr(), t.numel() * t.element_size()) for name, t in tensors.items()}
        late = _Late(addresses, on_device)
        self.pending.append(late)
        return Copies(tensors=on_device, done=late)

    def arrive(self, copies: Copies) -> None:
        """The stream waits, this thread does not."""


class _Late:
    """The event of one batch's copies."""

    def __init__(self, addresses: Mapping[str, tuple[int, int]], into: Mapping[str, Tensor]) -> None:
        self._addresses, self._into, self.done = addresses, into, False

    def query(self) -> bool:
        return self.done

    def happen(self, *, only: str) -> None:
        address, size = self._addresses[only]
        flat = self._into[only].view(torch.uint8).flatten()
        flat.copy_(torch.frombuffer(bytearray(ctypes.string_at(address, size)), dtype=torch.uint8))
        self.done = True


class SlotFeed(MadeFeed):
    """Batches in slots of a pool, each full of its number."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = SlotPool(3 * 2 * 6 * 4, spare=8)

    def __next__(self) -> Batch:
        made = super().__next__()
        pixels = self.pool.take((3, 2, 6, 4))
        pixels[:] = made.step
        return dataclasses.replace(made, pixels=pixels)


def test_a_slot_is_not_received_into_before_its_delayed_copy_is_done() -> None:
    source, copying, seen = SlotFeed(), LateCopies(), list[int]()
    with DeviceFeed(source, Preparing(), device=CPU, copying=copying) as feed:
        taken = []
        for _ in range(6):
            feed.fetch()
            feed.fill(most=99)
            batch = feed.take()
            taken.append(batch.pixels)
            del batch  # nobody holds the slot any more; its copy has not happened
        for late, pixels in zip(copying.pending, taken, strict=False):
            late.happen(only=".pixels")
            seen.append(int(pixels.max()))
            assert int(pixels.min()) == seen[-1], "a slot was used again while its copy read it"
        assert seen == list(range(6))
        count = len(copying.pending)
        for late in copying.pending:
            late.done = True
        addresses = {source.pool.take((3, 2, 6, 4)).ctypes.data for _ in range(count)}
        assert len(addresses) <= count


def test_two_are_ahead_and_the_next_is_there() -> None:
    source = MadeFeed()
    with DeviceFeed(source, Preparing(), device=CPU) as feed:
        for step in range(5):
            feed.fetch()
            feed.fill(most=5 - step)
            assert len(feed) == min(3, 5 - step)
            assert feed.take().batch.step == step
            assert source.step == min(step + 3, 5)


def test_a_batch_that_is_not_there_is_not_waited_for_while_others_are() -> None:
    source = MadeFeed(late=[1])
    with DeviceFeed(source, Preparing(), device=CPU) as feed:
        feed.fetch()
        feed.fill(most=9)
        assert len(feed) == 1
        feed.take()
        feed.fetch()
        assert source.step == 2


def test_what_a_task_makes_on_the_host_is_made_by_another_thread_ahead_of_its_step() -> None:
    threads, steps = list[str](), list[int]()

    def work(batch: Batch) -> dict[str, Tensor]:
        threads.append(threading.current_thread().name)
        steps.append(batch.step)
        return {"number_B": torch.full((len(batch),), batch.step)}

    with DeviceFeed(MadeFeed(), Preparing(work=work), device=CPU) as feed:
        feed.fetch()
        feed.fill(most=3)
        batch = feed.take()
        feed.take()
        feed.take()
    assert steps == [0, 1, 2]
    assert all(name.startswith("framefeed-device-feed") for name in threads)
    assert batch.made_by(work)["number_B"].tolist() == [0, 0, 0]
    assert steps == [0, 1, 2], "nothing is made again"


def test_an_error_comes_at_its_batch_and_not_before() -> None:
    def refuse(batch: Batch) -> dict[str, Tensor]:
        if batch.step == 1:
            raise BadInput("label")
        return {}

    with DeviceFeed(MadeFeed(), Preparing(work=refuse), device=CPU) as feed:
        feed.fetch()
        feed.fill(most=9)
        feed.take()
        with pytest.raises(BadInput, match="label"):
            feed.take()

    def fail(step: int) -> None:
        if step == 2:
            raise CorruptMedia("clip of v")

    with DeviceFeed(MadeFeed(fail), Preparing(), device=CPU) as feed:
        for _ in range(2):
            feed.fetch()
            feed.fill(most=9)
            feed.take()
        for _ in range(2):
            with pytest.raises(CorruptMedia):
                feed.fetch()


def test_what_is_ahead_stays_for_the_next_with_and_goes_when_the_source_moves() -> None:
    feed = DeviceFeed(MadeFeed(), Preparing(), device=CPU)
    with feed:
        feed.fetch()
        feed.fill(most=9)
        feed.take()
    with feed:
        assert feed.take().batch.step == 1
    feed.clear()
    with feed:
        feed.fetch()
        assert feed.take().batch.step == 3


class WholeFeed(MadeFeed):
    """As a loader's, its next() gives a batch and counts it, or neither, wherever an exception comes from outside."""

    def __next__(self) -> Batch:
        made = make_batch(self.step, frames=2, side_px=4)
        self.step += 1
        return made


def test_an_exception_from_outside_loses_and_doubles_no_batch() -> None:
    """At any instruction where CPython may run a signal's handler, in fetch(), fill() or take()."""
    taken, number, came = list[int](), 1, True
    with DeviceFeed(WholeFeed(), Preparing(), device=CPU) as feed:
        while came:
            interruption = Interruption(number)
            try:
                with interruption:
                    feed.fetch()
                    feed.fill(most=9)
                    taken.append(feed.take().batch.step)
            except Interrupt:
                pass
            came = interruption.came
            number += 1
            feed.fetch()
            taken.append(feed.take().batch.step)
    assert number > 50
    assert taken == list(range(len(taken)))


def _augmented(seeds: list[int], **options: object) -> Iterator[Tensor]:
    batch = make_batch(0, clips=4, frames=3, side_px=16)
    batch = dataclasses.replace(batch, seeds=np.array(seeds, np.uint64))
    preparing = Preparing(augment=AugmentOptions(**options))  # type: ignore[arg-type]
    sent = preparing.begin(batch, NoCopies())
    yield from preparing.finish(sent, NoCopies()).normalised(IMAGENET)


@pytest.mark.parametrize(
    "options",
    [
        {"flip": 0.5},
        {"jitter": 0.8, "grey": 0.3},
        {"blur": 0.5},
        {"rand_ops": 3},
        {"erase": 0.9, "erase_noise": True},
        {"shift_frames": 1, "jitter_frames": 1},
    ],
    ids="-".join,
)
def test_an_augmentation_follows_the_clips_seed_wherever_it_is_and_changes_some(options: dict[str, object]) -> None:
    seeds = [11, 12, 13, 14]
    clips, same = list(_augmented(seeds, **options)), list(_augmented(seeds, **options))
    others = list(_augmented([11, 99, 98, 97], **options))
    assert all(torch.equal(a, b) for a, b in zip(clips, same, strict=True))
    assert torch.equal(clips[0], others[0])
    assert any(not torch.equal(a, b) for a, b in zip(clips[1:], others[1:], strict=True))


def test_a_batch_that_comes_again_is_prepared_again() -> None:
    """Each is ahead of its own turn, as those that differ are."""
    batch, prepared = make_batch(0), list[Batch]()

    class Again(MadeFeed):
        def __next__(self) -> Batch:
            self.step += 1
            return batch

    def work(given: Batch) -> dict[str, Tensor]:
        prepared.append(given)
        return {}

    with DeviceFeed(Again(), Preparing(work=work), device=torch.device("cpu")) as feed:
        feed.fill(most=3)
    assert prepared == [batch] * 3
