"""The step: the weights of the loop it replaces, no wait for the device, float16's scale, and batches in parts."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from framefeed.errors import BadInput
from framefeed_models.block import StackConfig
from framefeed_models.tubelets import TubeletGrid
from framefeed_models.videomae import VideoMAEConfig
from tests.unit.trainer.small_run import CPU, make_batch
from tests.unit.trainer.small_tasks import (
    FRAMES,
    GLOBAL,
    TASKS,
    Split,
    largest_difference,
    make_run,
    make_share,
    take,
)
from tests.unit.trainer.stored_runs import Kept
from trainer_client.training.augment.rule import AugmentOptions
from trainer_client.training.average import Average
from trainer_client.training.device_feed import Preparing, to_device
from trainer_client.training.learning import LearningOptions
from trainer_client.training.precision import Precision, ScaleRule
from trainer_client.training.ranks import Ranks
from trainer_client.training.run_state import load_run, state_of
from trainer_client.training.step import Run, train_step
from trainer_client.training.tasks.cmae import CmaeTask
from trainer_client.training.tasks.mae import MaeTask, MaskedInputs

# Of the loop before there was a seam, at 0a94e1a: 20 steps of a tiny VideoMAE by its own AdamW, seed 7.
OLD_LOSSES = (
    *(1.5114974, 1.4856491, 1.3372728, 1.2036628, 1.1378132, 1.0663232, 1.0679585, 1.0512973, 1.0291716, 1.0204123),
    *(1.0152847, 1.0208167, 1.0099267, 1.0113831, 1.0060514, 0.9984670, 0.9956490, 0.9926614, 0.9939918, 0.9916506),
)
OLD_NORMS = (0.756878, 0.761641, 0.581003)


def test_mae_takes_the_steps_it_took_before_there_was_a_seam() -> None:
    stack = StackConfig(width=32, depth=2, heads=2, mlp_ratio=2.0)
    grid = TubeletGrid(frames=4, height_px=16, width_px=16, tubelet_frames=2, patch_px=4)
    config = VideoMAEConfig(grid=grid, encoder=stack, decoder=replace(stack, depth=1), positions="grid")
    torch.manual_seed(7)
    task = MaeTask(config, mask_ratio=0.5, device=CPU.device)
    learning = LearningOptions(lr=1e-2).build(task.model, steps=20, batch_clips=4)
    run: Run[MaskedInputs] = Run(
        task=task, learning=learning, passes=CPU.passes, average=Average(task.model, decay=0.0), seed=0
    )
    seen = [
        train_step(run, to_device(make_batch(step, clips=4, frames=4, side_px=16), CPU.device)).read()
        for step in range(20)
    ]
    # The key's bias no longer learns what rounding makes of a gradient of zero; nothing else is another.
    assert [numbers.loss for numbers in seen] == pytest.approx(OLD_LOSSES, abs=2e-5)
    assert [numbers.grad_norm for numbers in seen[:3]] == pytest.approx(OLD_NORMS, abs=2e-6)


class HostReads(TorchFunctionMode):
    """Counts what makes this thread wait for a device: reads of its values, and copies to or from it."""

    WAITS = (
        *("item", "tolist", "__bool__", "__float__", "__int__", "__index__", "cpu", "numpy", "nonzero", "synchronize"),
        *("__contains__", "equal", "is_nonzero"),
    )
    COPIES = ("tensor", "as_tensor", "from_numpy", "cuda", "pin_memory")

    def __init__(self) -> None:
        super().__init__()
        self.seen = Counter[str]()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        moves = name == "to" and any(isinstance(a, torch.device | str) for a in (*args[1:], *(kwargs or {}).values()))
        # torch's norms and optimizers name the device that their tensors are on: nothing is copied.
        moves = moves and "site-packages" not in sys._getframe(1).f_code.co_filename
        if name in self.COPIES or moves or (name in self.WAITS and isinstance(args[0], Tensor)):
            self.seen[name] += 1
        return func(*args, **(kwargs or {}))


EVERYTHING = AugmentOptions(
    flip=0.5, jitter=0.8, grey=0.2, blur=0.5, rand_ops=2, erase=0.5, erase_noise=True, jitter_frames=1
)


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("micro_clips", [None, 2])
@pytest.mark.parametrize("augment", [AugmentOptions(), EVERYTHING], ids=["plain", "augmented"])
def test_nothing_in_a_step_waits_for_the_device(name: str, micro_clips: int | None, augment: AugmentOptions) -> None:
    """The whole step of a batch that was prepared ahead: augmentation, masks, mixup, views, losses, the optimizer."""
    run = make_run(name, Split(micro_clips=micro_clips))
    frames = FRAMES + 2 if isinstance(run.task, CmaeTask) else FRAMES
    preparing = Preparing(work=run.task.on_host, augment=augment)
    for step in range(2):
        batch = to_device(make_share(step, Ranks(), frames=frames), CPU.device, preparing)
        with HostReads() as reads:
            tensors = train_step(run, batch)
        assert dict(reads.seen) == {}
    with HostReads() as reads:
        tensors.read()
    assert reads.seen["tolist"] == 1


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precisions_learn_what_float32_does(precision: Any) -> None:
    losses, _ = take(make_run("classify", Split()), until=10)
    theirs, _ = take(make_run("classify", Split(precision=precision)), until=10)
    assert theirs == pytest.approx(losses, abs=2e-2)
    assert theirs != losses


def test_the_scale_halves_when_it_overflows_and_grows_when_it_does_not() -> None:
    precision = Precision("fp16", device=CPU.device, rule=ScaleRule(initial=8.0, growth_every=2))
    scales = []
    for overflowed in (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0):
        precision.update(torch.tensor(overflowed))
        scales.append(precision.scale.item())
    assert scales == [4.0, 4.0, 8.0, 8.0, 4.0, 4.0, 8.0]
    gradient = torch.tensor([8.0])
    precision.unscale([gradient])
    assert gradient.item() == 1.0


def test_an_overflow_in_float16_is_skipped_and_cured_by_the_scale() -> None:
    run = make_run("classify", Split(precision="fp16"), steps=50)
    run.passes.precision.scale.fill_(2.0**40)
    before = [p.detach().clone() for p in run.task.model.parameters()]
    seen = train_step(run, to_device(make_share(0, Ranks(), frames=FRAMES), CPU.device)).read()
    assert (seen.skipped, seen.scale) == (True, 2.0**40)
    assert all(torch.equal(a, b) for a, b in zip(before, run.task.model.parameters(), strict=True))
    steps = 0
    while seen.skipped:
        seen = train_step(run, to_device(make_share(0, Ranks(), frames=FRAMES), CPU.device)).read()
        steps += 1
    assert 5 < steps < 40


def test_micro_batches_that_do_not_divide_are_refused() -> None:
    run = make_run("classify", Split(micro_clips=3))
    with pytest.raises(BadInput, match=f"batch: micro_clips is 3, wanted what divides the {GLOBAL} clips of a rank"):
        train_step(run, to_device(make_share(0, Ranks(), frames=FRAMES), CPU.device))
    with pytest.raises(BadInput, match=r"--batch-clips is 8, .* 3 processes .*; wanted a multiple of 3, such as 9"):
        Ranks(rank=0, world=3).share_of(8)


@pytest.mark.parametrize("name", ["adamw", "sgd", "lion"])
def test_a_run_resumes_with_any_optimizer(name: str) -> None:
    whole, ended = take(make_run("classify-random", Split(), optimizer=name), until=8)
    first, middle = take(make_run("classify-random", Split(), optimizer=name), until=3)
    kept = Kept(step=3, tensors=middle)
    last, resumed = take(make_run("classify-random", Split(), optimizer=name), until=8, after=kept)
    assert first + last == whole
    steps = {float(tensor) for known, tensor in middle.items() if known.endswith(".step")}
    assert steps == ({3.0} if name == "adamw" else set()), "a state that was loaded is its owner's"
    assert any(known.startswith("optimizer.") for known in resumed)
    assert largest_difference(resumed, ended) == 0.0


def test_the_average_is_the_equation_and_can_stand_in_for_the_weights() -> None:
    run = make_run("classify", Split())
    wanted = {name: p.detach().double().clone() for name, p in run.task.model.named_parameters()}
    for step in range(3):
        train_step(run, to_device(make_share(step, Ranks(), frames=FRAMES), CPU.device))
        for name, parameter in run.task.model.named_parameters():
            wanted[name] = 0.9 * wanted[name] + 0.1 * parameter.detach().double()
    own = {name: p.detach().clone() for name, p in run.task.model.named_parameters()}
    with run.average.applied():
        for name, parameter in run.task.model.named_parameters():
            torch.testing.assert_close(parameter.detach().double(), wanted[name], atol=1e-6, rtol=0)
    assert all(torch.equal(p, own[name]) for name, p in run.task.model.named_parameters())
    again = make_run("classify", Split())
    load_run(again, Kept.of(state_of(run, data={})))
    assert all(torch.equal(again.average.averages[name], tensor) for name, tensor in run.average.averages.items())
    assert again.step == 3
