"""What the GPU gives: the paper's figure 4 measured, and our dual encoder beside transformers' at one batch.

It knows cases and contestants; the clocks and memory are in gpu_speed. Needs CUDA.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch

from framefeed.errors import FramefeedError
from framefeed_bench.gpu_speed import Trainer, fits_on_gpu, largest_batch, make_pairs, matmul_peak
from framefeed_bench.model_cases import ModelCase, all_cases
from framefeed_bench.peer_towers import PeerDualEncoder
from framefeed_models.dual_encoder import DualEncoder, avion

Row = dict[str, str | int | float]
_EQUAL = 1e-3


def measure_cases(memory_bytes: float, *, most: int = 2048) -> list[Row]:
    """Each case's largest batch within so much of the GPU's memory, and its clips a second at that batch."""
    rows: list[Row] = []
    for case in all_cases():
        with _memory(memory_bytes):
            trainer = Trainer(DualEncoder(case.config()), compiled=False)
            batch = largest_batch(partial(fits_on_gpu, trainer, case.config()), most=most)
            speed = batch / trainer.seconds(make_pairs(case.config(), batch)) if batch else 0.0
            rows.append({**describe(case), "largest_batch": batch, "clips_per_s": round(speed, 1)})
            del trainer
    return rows


def duel(batch: int) -> dict[str, float]:
    """ViT-B, 4 frames, bf16, one batch size: clips a second of ours and of transformers', and of the matmul peak.

    Ours is compiled; both are also timed as they are. Raises FramefeedError if the two do not compute the same.
    """
    config = avion("CLIP_VITB16")
    torch.manual_seed(0)
    ours = DualEncoder(config)
    theirs = PeerDualEncoder(ours)
    _prove_equal(ours, theirs)
    peak = matmul_peak()
    flops = Trainer(ours, compiled=False).flops(make_pairs(config, 2)) / 2
    found = {
        "batch": float(batch),
        "matmul_peak_tflops": round(peak / 1e12, 1),
        "gflops_per_clip": round(flops / 1e9, 1),
    }
    for name, model, compiled in (
        ("ours", ours, True),
        ("ours, eager", ours, False),
        ("transformers", theirs, False),
        ("transformers, compiled", theirs, True),
    ):
        torch.cuda.empty_cache()
        speed = batch / Trainer(model, compiled=compiled).seconds(make_pairs(config, batch))
        model.cpu()
        found |= {f"{name}: clips_per_s": round(speed, 1), f"{name}: share_of_peak": round(speed * flops / peak, 3)}
    found["ours_over_transformers"] = round(found["ours: clips_per_s"] / found["transformers: clips_per_s"], 3)
    return found


def describe(case: ModelCase) -> Row:
    """What a row is about."""
    return {"encoder": case.encoder, "frames": case.frames, "variant": case.variant}


def _prove_equal(ours: DualEncoder, theirs: PeerDualEncoder) -> None:
    """The same weights give the same features, float32, on the CPU."""
    config = ours.config
    grid = config.video.grid
    clips = torch.randn(1, grid.channels, grid.frames, grid.height_px, grid.width_px)
    tokens = torch.full((1, config.text.context), config.text.vocabulary - 1)
    tokens[:, :-1] = torch.randint(1, config.text.vocabulary - 2, (1, config.text.context - 1))
    with torch.no_grad():
        seen, wanted = ours.eval()(clips, tokens), theirs.eval()(clips, tokens)
    for name in ("video_BE", "text_BE"):
        difference = float((getattr(seen, name) - getattr(wanted, name)).abs().max())
        if difference > _EQUAL:
            raise FramefeedError(f"bench: {name} of ours and transformers' differ by {difference:.1e}, wanted {_EQUAL}")


@contextmanager
def _memory(limit_bytes: float) -> Iterator[None]:
    """The process may use no more of the GPU than this, as if it were a smaller one."""
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, limit_bytes / total))
    try:
        yield
    finally:
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(1.0)
