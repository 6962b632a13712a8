"""The models' bench on the GPU: figure 4 measured, and our dual encoder beside transformers'. Skipped without CUDA."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("no CUDA device", allow_module_level=True)

from framefeed_bench.gpu_duel import duel  # noqa: E402
from framefeed_bench.models import ModelsBench  # noqa: E402


@pytest.mark.timeout(400)
def test_ours_is_faster_than_transformers_and_near_the_peak() -> None:
    """ViT-B, 4 frames, bf16, batch 256; `framefeed bench models` writes the same into bench/results."""
    found = duel(256)
    assert found["ours_over_transformers"] >= 1.25, found
    assert found["ours: share_of_peak"] >= 0.40, found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_whole_bench(tmp_path: Path) -> None:
    ModelsBench(out=tmp_path / "models.json", batch=64).run()
    result = json.loads((tmp_path / "models.json").read_text())
    batches = {(row["encoder"], row["frames"], row["variant"]): row["largest_batch"] for row in result["measured"]}
    plain, flash, both = (batches["ViT-B", 4, v] for v in ("plain", "+flash", "+checkpointing"))
    assert plain < flash < both
    assert result["gpu"] == torch.cuda.get_device_name()
