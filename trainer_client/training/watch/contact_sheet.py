"""Contact sheets: clips as rows of frames in one PNG; knows pictures and labels, not what they show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from framefeed.new_file import NewFile

_FONT = "DejaVu Sans"  # Matplotlib brings it; others are where somebody has installed them
_FRAME_IN, _MARGIN_IN, _TITLE_IN = 1.0, 1.1, 0.45


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SheetClip:
    """One clip: its label, the times of its T frames in seconds, named rows of float RGB (T, Y, X, 3) in [0, 1]."""

    label: str
    times_s: tuple[float, ...]
    rows: Mapping[str, npt.NDArray[np.float32]]

    def __post_init__(self) -> None:
        for name, frames in self.rows.items():
            if frames.ndim != 4 or frames.shape[3] != 3 or len(frames) != len(self.times_s):
                wanted = f"({len(self.times_s)}, Y, X, 3)"
                raise ValueError(f"contact sheet: row {name!r} of {self.label} is {frames.shape}, wanted {wanted}")


def draw_sheet(path: Path, clips: Sequence[SheetClip], *, title: str) -> None:
    """Write a PNG: for each clip its label, and one line of pictures for each of its rows, times above the first."""
    if not clips:
        raise ValueError("contact sheet: got no clips, wanted at least one")
    from matplotlib.figure import Figure  # noqa: PLC0415  # half a second of every start, for a sheet at a run's end

    frames = max(len(clip.times_s) for clip in clips)
    heights_in = [len(clip.rows) * _FRAME_IN + _TITLE_IN for clip in clips]
    size_in = (_MARGIN_IN + frames * _FRAME_IN, _TITLE_IN + sum(heights_in))
    figure = Figure(figsize=size_in, dpi=110, facecolor="white")
    top_in = size_in[1]
    write = partial(figure.text, va="center", family=_FONT, parse_math=False)
    write(0.01, 1 - 0.6 * _TITLE_IN / size_in[1], _drawable(title), fontsize=11, weight="bold")
    top_in -= _TITLE_IN
    for clip in clips:
        write(_MARGIN_IN / size_in[0], (top_in - 0.12) / size_in[1], _drawable(clip.label), fontsize=8)
        top_in -= _TITLE_IN
        for number, (name, pictures) in enumerate(clip.rows.items()):
            top_in -= _FRAME_IN
            middle = (top_in + _FRAME_IN / 2) / size_in[1]
            write(0.9 * _MARGIN_IN / size_in[0], middle, name, fontsize=8, ha="right")
            for t, picture in enumerate(pictures):
                left = (_MARGIN_IN + t * _FRAME_IN) / size_in[0]
                box = (left, top_in / size_in[1], 0.97 * _FRAME_IN / size_in[0], 0.97 * _FRAME_IN / size_in[1])
                axes = figure.add_axes(box)
                axes.imshow(picture, interpolation="nearest")
                axes.set_axis_off()
                if number == 0:
                    axes.set_title(f"{clip.times_s[t]:.2f} s", fontsize=6, pad=1)
    with NewFile(path) as new:
        figure.savefig(new.file, format="png")
        new.take_place()


def _drawable(text: str) -> str:
    """Text with what the font has no picture of, such as Chinese characters, as Python spells it."""
    from matplotlib.font_manager import findfont, get_font  # noqa: PLC0415  # as above

    font = get_font(findfont(_FONT))
    return "".join(
        c if c.isprintable() and font.get_char_index(ord(c)) else c.encode("unicode_escape").decode() for c in text
    )
