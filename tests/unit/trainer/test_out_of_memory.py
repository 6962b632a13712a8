"""A step that does not fit says which micro-batch would, by trying; compiled blocks learn what plain ones do."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.unit.trainer.small_run import LinearTask, NoStops, make_loop
from tests.unit.trainer.small_tasks import Split, make_run, take
from trainer_client.training.compiled import compile_blocks
from trainer_client.training.loop import Limits
from trainer_client.training.out_of_memory import OutOfMemory
from trainer_client.training.tasks.task import ClipInputs


class Large(LinearTask):
    """Of which only so many clips fit in a memory that a test has made up."""

    def __init__(self, *, room: int) -> None:
        super().__init__()
        self.room = room

    def rows(self, x: ClipInputs) -> Tensor:
        if len(x) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB.\nmore")
        return super().rows(x)


@pytest.mark.parametrize(
    ("room", "line"),
    [
        (2, r"step 0: 3 clips at once do not fit .*Tried to allocate 3.00 GiB\); --micro-clips 1 fits"),
        (0, r"step 0: 3 clips at once do not fit .*not one does; wanted --checkpointing block"),
    ],
)
def test_the_line_names_the_micro_batch_that_fits(room: int, line: str) -> None:
    loop = make_loop(steps=3, task=Large(room=room))
    with pytest.raises(OutOfMemory, match=line) as caught:
        loop.run(Limits(steps=3), stops=NoStops())
    assert "\n" not in str(caught.value)
    assert loop.steps_done == 0


@pytest.mark.slow
def test_compiled_blocks_learn_what_plain_ones_do() -> None:
    """Drop path follows the seeds in compiled code too, and names of weights stay."""
    wanted, plain = take(make_run("classify-random", Split()), until=4)
    run = make_run("classify-random", Split())
    assert compile_blocks(run.task.model) == 2
    losses, compiled = take(run, until=4)
    assert losses == pytest.approx(wanted, abs=1e-5)
    assert compiled.keys() == plain.keys()
