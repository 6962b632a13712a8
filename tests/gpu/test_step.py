"""Each task's step on a GPU: it waits for nothing and learns what the CPU does; skipped where there is no CUDA."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("no CUDA device", allow_module_level=True)

from framefeed_bench.gpu_speed import waiting_is_an_error  # noqa: E402
from framefeed_bench.gpu_step import STRONG  # noqa: E402
from tests.unit.trainer.small_tasks import CPU, FRAMES, TASKS, Split, make_run, make_share  # noqa: E402
from trainer_client.training.device_feed import Preparing, to_device  # noqa: E402
from trainer_client.training.precision import DTYPES, PrecisionName  # noqa: E402
from trainer_client.training.ranks import Ranks  # noqa: E402
from trainer_client.training.step import train_step  # noqa: E402
from trainer_client.training.tasks.cmae import CmaeTask  # noqa: E402

CUDA = torch.device("cuda")
FINITE_SCALE = 64.0  # no gradient of these models overflows float16 with it, and no step is skipped


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("micro_clips", [None, 2])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_step_waits_for_nothing_and_is_the_cpu_s(
    name: str, micro_clips: int | None, precision: PrecisionName
) -> None:
    """The whole step of a batch that was prepared ahead; its numbers are read behind it."""
    split = Split(micro_clips=micro_clips, precision=precision)
    run, plain = make_run(name, split, device=CUDA), make_run(name, Split())
    run.passes.precision.scale.fill_(min(float(run.passes.precision.scale), FINITE_SCALE))
    frames = FRAMES + 2 if isinstance(run.task, CmaeTask) else FRAMES
    losses, wanted = list[float](), list[float]()
    preparing = Preparing(work=run.task.on_host, dtype=DTYPES[precision])
    for step in range(4):
        share = make_share(step, Ranks(), frames=frames)
        batch = to_device(share, CUDA, preparing)
        torch.cuda.synchronize()
        if step == 0:  # the first step allocates and chooses kernels
            tensors = train_step(run, batch)
        else:
            with waiting_is_an_error():
                tensors = train_step(run, batch)
        losses.append(tensors.read().loss)
        wanted.append(train_step(plain, to_device(share, CPU)).read().loss)
    assert losses == pytest.approx(wanted, rel=1e-3 if precision == "fp32" else 5e-2)


@pytest.mark.parametrize("name", TASKS)
def test_a_step_with_all_augmentations_waits_for_nothing(name: str) -> None:
    run = make_run(name, Split(precision="bf16"), device=CUDA)
    frames = FRAMES + 2 if isinstance(run.task, CmaeTask) else FRAMES
    preparing = Preparing(work=run.task.on_host, dtype=torch.bfloat16, augment=STRONG)
    for step in range(3):
        batch = to_device(make_share(step, Ranks(), frames=frames), CUDA, preparing)
        torch.cuda.synchronize()
        if step == 0:
            tensors = train_step(run, batch)
        else:
            with waiting_is_an_error():
                tensors = train_step(run, batch)
        assert not tensors.read().skipped
