"""Batch slots in page-locked memory reach the device by asynchronous copies; skipped where there is no CUDA."""

from __future__ import annotations

import pytest

from tests.clip_servers import ClipServer

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("no CUDA device", allow_module_level=True)

from tests.integration.test_client import DATASET, POLICY, check  # noqa: E402
from trainer_client.loader import ClipLoader, LoaderOptions  # noqa: E402
from trainer_client.training.torch_batches import pinned_memory, torch_batches  # noqa: E402


def test_pinned_slots_are_copied_asynchronously_and_are_right() -> None:
    with ClipServer() as server:
        options = LoaderOptions(servers=[server.url], batch_clips=4, steps=25, run_seed=11)
        with ClipLoader(DATASET, POLICY, options, allocate=pinned_memory) as run:
            for batch in torch_batches(run):
                assert batch.pixels.is_pinned()
                on_device = batch.pixels.to("cuda", non_blocking=True)
                torch.cuda.synchronize()
                assert torch.equal(on_device.cpu(), batch.pixels)
                check(batch.batch)
