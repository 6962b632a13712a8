"""What the GPU gives: the paper's figure 4 measured, and our dual encoder beside transformers' at one batch.

It knows cases and contestants; the clocks and memory are in gpu_speed. Needs CUDA.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from framefeed.errors import FramefeedError
from framefeed_bench.gpu_speed import count_flops, fits_on_gpu, largest_batch, matmul_peak, seconds_a_step
from framefeed_bench.model_cases import ModelCase, all_cases
from framefeed_bench.peer_towers import PeerDualEncoder
from framefeed_bench.product_step import ProductStep, clips_of, resident_batch
from framefeed_models.dual_encoder import DualEncoder, DualEncoderConfig, DualEncoding, avion
from trainer_client.training.compute import ComputeOptions

Row = dict[str, str | int | float]
_EQUAL = 1e-3
_EAGER, _COMPILED = ComputeOptions(compiled="off"), ComputeOptions(compiled="on")


def measure_cases(memory_bytes: float, *, most: int = 2048) -> list[Row]:
    """Each case's largest batch within so much of the GPU's memory, and its clips a second at that batch."""
    rows: list[Row] = []
    for case in all_cases():
        with _memory(memory_bytes):
            config, ours = case.config(), ProductStep(case.config(), _EAGER)
            batch = largest_batch(partial(_fits, ours, config), most=most)
            speed = batch / _seconds(ours, config, batch) if batch else 0.0
            rows.append({**describe(case), "largest_batch": batch, "clips_per_s": round(speed, 1)})
            del ours
    return rows


def duel(batch: int) -> dict[str, float]:
    """ViT-B, 4 frames, bf16, one batch size: clips a second of ours and of transformers', and of the matmul peak.

    Ours by the product's whole step, with its augmentation; theirs from clips that are normalised already. Both are
    timed compiled and as they are. Raises FramefeedError if the two do not compute the same.
    """
    config = avion("CLIP_VITB16")
    torch.manual_seed(0)
    peak = matmul_peak()
    found = {"batch": float(batch), "matmul_peak_tflops": round(peak / 1e12, 1)}
    plain = DualEncoder(config)
    _prove_equal(plain, PeerDualEncoder(plain))
    ours = ProductStep(config, _EAGER)
    few = resident_batch(config, 2, _EAGER)
    flops = count_flops(lambda: ours.step(few)) / 2
    found["gflops_per_clip"] = round(flops / 1e9, 1)

    def tell(name: str, seconds: float) -> None:
        speed = batch / seconds
        found[f"{name}: clips_per_s"] = round(speed, 1)
        found[f"{name}: share_of_peak"] = round(speed * flops / peak, 3)

    tell("ours, eager", _seconds(ours, config, batch))
    tell("ours", _seconds(ProductStep(config, _COMPILED), config, batch))
    for name, compiled in (("transformers", False), ("transformers, compiled", True)):
        tell(name, _peer_seconds(PeerDualEncoder(plain), config, batch, compiled=compiled))
    found["ours_over_transformers"] = round(found["ours: clips_per_s"] / found["transformers: clips_per_s"], 3)
    return found


def clip_loss(encoding: DualEncoding) -> Tensor:
    """The symmetric InfoNCE loss over the batch (Radford et al. 2021, figure 3)."""
    logits = encoding.logits()
    target = torch.arange(len(logits), device=logits.device)
    return (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2


def _seconds(ours: ProductStep, config: DualEncoderConfig, clips: int) -> float:
    batch = resident_batch(config, clips, _EAGER)
    return seconds_a_step(lambda: ours.step(batch))


def _peer_seconds(model: PeerDualEncoder, config: DualEncoderConfig, clips: int, *, compiled: bool) -> float:
    """float32 weights under bf16 autocast, fused AdamW, as most scripts have it."""
    batch = resident_batch(config, clips, _EAGER)
    x_BCTYX, tokens_BL = clips_of(batch), batch.made_by(lambda _: {})["tokens_BL"]
    model = model.cuda().train()
    forward: Callable[..., DualEncoding] = torch.compile(model) if compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16):
            loss = clip_loss(forward(x_BCTYX, tokens_BL))
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return seconds_a_step(step)


def _fits(ours: ProductStep, config: DualEncoderConfig, clips: int) -> bool:
    def two_steps() -> None:
        batch = resident_batch(config, clips, _EAGER)
        for _ in range(2):
            ours.step(batch)

    try:
        return fits_on_gpu(two_steps)
    finally:
        ours.model.zero_grad(set_to_none=True)


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
