"""The inputs on which an int8 graph is compared with its model: clips of the user's videos, or made ones."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from framefeed.crops import ResizedCentreCrop
from framefeed.errors import BadInput
from framefeed.manifest import read_manifest
from framefeed.sampling import Segments
from framefeed_models.tubelets import TubeletGrid
from trainer_client.clip_policy import ClipPolicy
from trainer_client.fleet.addresses import LOCAL
from trainer_client.loader import ClipLoader, LoaderOptions
from trainer_client.samples import VideoWindows
from trainer_client.training.onnx_export.graphs import Graph, made_clips

_BATCHES, _BATCH_CLIPS, _WINDOW_S = 8, 8, 2.0
_CLIPS = _BATCHES * _BATCH_CLIPS


def batches_for(graph: Graph, grid: TubeletGrid, root: Path | None) -> tuple[list[dict[str, Tensor]], str]:
    """Inputs of a graph, and what they are, as the end of a line. Blocks while the clips of a root are decoded.

    Raises BadInput for a root that is not indexed.
    """
    if "clips" not in graph.inputs:
        return _made_tokens(graph), f"{_CLIPS} texts of random tokens"
    if root is None:
        clips = [made_clips(grid, count=_BATCH_CLIPS, seed=1 + number) for number in range(_BATCHES)]
        told = "made clips: --measure-on ROOT says it for your own"
    else:
        clips = _clips_of(root, grid)
        told = f"clips of {root}"
    return [_with_masks(graph, grid, batch) for batch in clips], f"{sum(map(len, clips))} {told}"


def check_root(root: Path) -> None:
    """Raise BadInput for a root of which there are no clips, before an export that takes minutes."""
    _windows(root)


def _windows(root: Path) -> VideoWindows:
    dataset = VideoWindows(read_manifest(root), window_s=_WINDOW_S)
    if not len(dataset):
        raise BadInput(f"--measure-on {root} has no video to measure on, wanted one at least")
    return dataset


def _clips_of(root: Path, grid: TubeletGrid) -> list[Tensor]:
    """Clips of up to so many windows, each once."""
    policy = ClipPolicy(
        sampling=Segments(frames=grid.frames),
        crop=ResizedCentreCrop(ratio=grid.width_px / grid.height_px),
        width_px=grid.width_px,
        height_px=grid.height_px,
    )
    dataset = _windows(root)
    batch_clips = min(_BATCH_CLIPS, len(dataset))
    steps = min(_BATCHES, len(dataset) // batch_clips)
    options = LoaderOptions(
        servers=(LOCAL,), root=root, batch_clips=batch_clips, rank=0, world_size=1, steps=steps, run="export"
    )
    with ClipLoader(dataset, policy, options) as loader:
        return [torch.from_numpy(batch.pixels.copy()) for batch in loader]


def _with_masks(graph: Graph, grid: TubeletGrid, clips: Tensor) -> dict[str, Tensor]:
    if "visible" not in graph.inputs:
        return {"clips": clips}
    order_BN = torch.rand(len(clips), grid.tokens, generator=torch.Generator().manual_seed(1)).argsort(dim=1)
    kept = graph.inputs["visible"].shape[1]
    return {"clips": clips, "visible": order_BN[:, :kept], "masked": order_BN[:, kept:]}


def _made_tokens(graph: Graph) -> list[dict[str, Tensor]]:
    draws = torch.Generator().manual_seed(1)
    length = graph.inputs["tokens"].shape[1]
    return [
        {"tokens": torch.randint(1, graph.vocabulary, (_BATCH_CLIPS, length), generator=draws)} for _ in range(_BATCHES)
    ]
