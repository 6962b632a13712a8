"""Small clips for client tests: requests, replies and plans of 2x2-pixel clips, each told by its seed."""

from __future__ import annotations

from typing import Any

from framefeed.clip import ClipInfo, Colour
from framefeed.crops import Box, ResizedCentreCrop
from framefeed.request import ClipRequest
from framefeed.sampling import Segments
from framefeed.wire import ClipReply, ErrorReply, Load, ServerReply
from trainer_client.clip_policy import ClipPolicy
from trainer_client.feed.prefetch import BatchPlan
from trainer_client.feed.sampler import Sampler, Share
from trainer_client.samples import Sample

POLICY = ClipPolicy(sampling=Segments(frames=1), crop=ResizedCentreCrop(), width_px=2, height_px=2)
CLIP_BYTES = POLICY.clip_bytes


def request(number: int) -> ClipRequest:
    return POLICY.request(Sample(video=f"video{number}", start_s=number, end_s=number + 1), seed=number)


def plan(step: int, *, batch: int = 2) -> BatchPlan:
    places = Sampler(samples=10, run_seed=1, share=Share(batch_clips=batch)).batch(step)
    samples = tuple(Sample(video=f"video{i}", start_s=0, end_s=1) for i in places.indices.tolist())
    requests = tuple(POLICY.request(s, seed) for s, seed in zip(samples, places.seeds.tolist(), strict=True))
    return BatchPlan(places=places, samples=samples, requests=requests, policy=POLICY)


def info(seed: int = 0) -> ClipInfo:
    """A ClipInfo that carries the seed of its request in `read_bytes`, so that swapped clips show."""
    box = Box(x_px=0, y_px=0, width_px=2, height_px=2)
    return ClipInfo(pts_s=(0.0,), box=box, flipped=False, colour=Colour(), read_bytes=seed, fed_packets=1)


def clip(attempt: int, seed: int = 0, *, load: Load | None = None) -> ClipReply:
    return ClipReply(attempt=attempt, server="s", info=info(seed), load=load or Load())


def error(attempt: int, code: str) -> ErrorReply:
    return ErrorReply(attempt=attempt, server="s", code=code, message=f"{code} it is")


def who(attempt: int, *, state: str = "ready", fingerprint: str = "f1", workers: int = 4, **more: Any) -> ServerReply:
    """`more` are other fields of it."""
    known = {"fingerprint": fingerprint, "workers": workers, "state": state}
    return ServerReply(attempt=attempt, server="s", videos=1, **known, **more)  # type: ignore[arg-type]
