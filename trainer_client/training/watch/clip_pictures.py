"""A batch's clips as pictures, films and records, as they were received: sheets for people, digests for tests.

It knows batches and drawing, not which clips are shown, when or why.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from framefeed.cli.drawing import Picture, draw_text, stack
from framefeed.clip import ClipInfo
from trainer_client.feed.batch import Batch
from trainer_client.samples import Sample
from trainer_client.training.augment.pixels import yuv_to_rgb

_COLUMNS = 8
_HEAD_PX = 18


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ShownClip:
    """One clip of a batch: its row there, `pixels` uint8 (T, Y, X, 3) rgb24 or (T, Y*3/2, X) yuv420p as received."""

    row: int
    position: int
    epoch: int
    index: int
    seed: int
    sample: Sample
    info: ClipInfo
    pixels: npt.NDArray[np.uint8]
    stood_in: str = ""
    """Why it stands in the place of the planned sample; "" for one that was planned."""

    @property
    def times(self) -> Iterator[tuple[float, bool]]:
        """Each frame's time in seconds of the video, and whether it is black padding."""
        padding = self.info.padding or (False,) * len(self.info.pts_s)
        return zip(self.info.pts_s, padding, strict=True)


def shown_clips(batch: Batch, rows: Sequence[int]) -> list[ShownClip]:
    """These rows of a batch; their pixels are views of its."""
    stood_in = {int(one.position): one.reason for one in batch.stand_ins}
    return [
        ShownClip(
            row=row,
            position=int(batch.positions[row]),
            epoch=int(batch.epochs[row]),
            index=int(batch.indices[row]),
            seed=int(batch.seeds[row]),
            sample=batch.samples[row],
            info=batch.infos[row],
            pixels=batch.pixels[row],
            stood_in=stood_in.get(int(batch.positions[row]), ""),
        )
        for row in rows
    ]


def rgb_of(clip: ShownClip) -> npt.NDArray[np.uint8]:
    """A clip as RGB, uint8 (T, Y, X, 3)."""
    if clip.pixels.ndim == 4:
        return clip.pixels
    i420_BTRX = torch.from_numpy(clip.pixels)[None]
    rgb_BCTYX = yuv_to_rgb(i420_BTRX, colours=[clip.info.colour], siting="center")
    return rgb_BCTYX[0].permute(1, 2, 3, 0).round().to(torch.uint8).numpy()


def record_of(clip: ShownClip) -> dict[str, object]:
    """All that is known of a clip, as JSON can say it; `sha256` is that of its pixels' bytes, in C order."""
    sample, info = clip.sample, clip.info
    return {
        "row": clip.row,
        "position": clip.position,
        "epoch": clip.epoch,
        "index": clip.index,
        "seed": clip.seed,
        "video": sample.video,
        "start_s": sample.start_s,
        "end_s": sample.end_s,
        "stood_in": clip.stood_in,
        "shape": list(clip.pixels.shape),
        "sha256": hashlib.sha256(np.ascontiguousarray(clip.pixels).data).hexdigest(),
        "pts_s": list(info.pts_s),
        "padding": list(info.padding),
        "box": str(info.box),
        "flipped": info.flipped,
        "matrix": info.colour.matrix,
        "full_range": info.colour.full_range,
    }


def sheet_of(clips: Sequence[ShownClip]) -> Picture:
    """Each clip's frames in lines of eight with their times, under a line with its row and span."""
    return stack([_strip(clip) for clip in clips], axis=0, gap_px=12)


def film_of(clips: Sequence[ShownClip]) -> list[Picture]:
    """The clips beside one another, up to eight in a line, as moving pictures: T of them."""
    frames = [_frames(clip) for clip in clips]
    length = max(map(len, frames))
    moments = [[one[min(t, len(one) - 1)] for one in frames] for t in range(length)]
    return [_lines(tiles) for tiles in moments]


def _strip(clip: ShownClip) -> Picture:
    lines = _lines(_frames(clip))
    start_s, end_s = clip.sample.start_s, clip.sample.end_s
    head = np.zeros((_HEAD_PX, max(lines.shape[1], 240), 3), np.uint8)
    draw_text(head, f"#{clip.row}  [{start_s:.3f}, {end_s:.3f}) s")
    return stack([head, lines], axis=0)


def _frames(clip: ShownClip) -> list[Picture]:
    tiles = []
    for picture, (at_s, padded) in zip(rgb_of(clip), clip.times, strict=True):
        head = np.zeros((_HEAD_PX, picture.shape[1], 3), np.uint8)
        draw_text(head, "pad" if padded else f"{at_s:.3f} s", x_px=0)
        tiles.append(stack([head, picture], axis=0, gap_px=0))
    return tiles


def _lines(tiles: Sequence[Picture]) -> Picture:
    return stack([stack(tiles[i : i + _COLUMNS], axis=1) for i in range(0, len(tiles), _COLUMNS)], axis=0)
