"""The copy stream on a GPU: slots are lent while a copy is held up, and fed from resident data the GPU is not idle.

Skipped where there is no CUDA.
"""

from __future__ import annotations

import dataclasses
import math

import pytest

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("no CUDA device", allow_module_level=True)

from framefeed_bench.gpu_speed import waiting_is_an_error  # noqa: E402
from tests.unit.trainer.small_run import MadeFeed, NoStops  # noqa: E402
from tests.unit.trainer.small_tasks import FRAMES, SIDE_PX, Split, make_run, make_share  # noqa: E402
from trainer_client.feed.batch import Batch  # noqa: E402
from trainer_client.feed.slots import SlotPool  # noqa: E402
from trainer_client.training.copies import StreamCopies  # noqa: E402
from trainer_client.training.device_feed import DeviceFeed, Preparing  # noqa: E402
from trainer_client.training.loop import Limits, StepRecord, TrainLoop  # noqa: E402
from trainer_client.training.ranks import Ranks  # noqa: E402
from trainer_client.training.torch_batches import pinned_memory  # noqa: E402

CUDA = torch.device("cuda")
SHAPE = (8, FRAMES, SIDE_PX * 3 // 2, SIDE_PX)
HELD_CYCLES = 400_000_000  # 200 ms and more at 2 GHz


class PinnedFeed(MadeFeed):
    """Shares of a plan in page-locked slots."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = SlotPool(math.prod(SHAPE), spare=4, allocate=pinned_memory)

    def __next__(self) -> Batch:
        made = make_share(self.step, Ranks(), frames=FRAMES)
        self.step += 1
        pixels = self.pool.take(SHAPE)
        pixels[:] = made.pixels
        return dataclasses.replace(made, pixels=pixels)


def test_no_slot_is_used_again_before_its_delayed_copy_is_done() -> None:
    source, copying = PinnedFeed(), StreamCopies(CUDA)
    with torch.cuda.stream(copying._stream):
        torch.cuda._sleep(HELD_CYCLES)  # the copies stand behind it
    taken = []
    with DeviceFeed(source, Preparing(), device=CUDA, copying=copying) as feed:
        for _ in range(8):
            feed.fetch()
            feed.fill(most=99)
            taken.append(feed.take().pixels)
    torch.cuda.synchronize()
    for step, pixels in enumerate(taken):
        assert torch.equal(pixels.cpu(), torch.from_numpy(make_share(step, Ranks(), frames=FRAMES).pixels))


@pytest.mark.parametrize("name", ["classify-random", "mae", "contrastive"])
def test_the_whole_step_waits_for_nothing(name: str) -> None:
    """Augmentation included; batches come from page-locked slots by the product's feed."""
    run = make_run(name, Split(precision="bf16"), device=CUDA)
    loop = TrainLoop(run, PinnedFeed(), device=CUDA)
    loop.run(Limits(steps=3), stops=NoStops())
    records = list[StepRecord]()
    loop.on_record.append(records.append)
    before = run.task.rows

    def watched(x: object) -> object:
        with waiting_is_an_error():
            return before(x)

    run.task.rows = watched
    loop.run(Limits(steps=6), stops=NoStops())
    assert all(record.idle_s is not None for record in records)


def test_fed_from_resident_data_the_gpu_is_not_idle() -> None:
    """A step that takes the GPU some milliseconds hides all that the host does."""
    run = make_run("classify", Split(precision="bf16"), steps=40, device=CUDA)
    before = run.task.rows

    def longer(x: object) -> object:
        torch.cuda._sleep(100_000_000)
        return before(x)

    run.task.rows = longer
    records = list[StepRecord]()
    loop = TrainLoop(run, PinnedFeed(), device=CUDA)
    loop.on_record.append(records.append)
    loop.run(Limits(steps=40), stops=NoStops())
    timed = records[10:]
    idle_s = sum(sum((record.idle_s or {}).values()) for record in timed)
    assert idle_s <= 0.005 * sum(record.step_s for record in timed)
