"""Drawing on RGB pictures with NumPy: boxes, small text, and rows and columns of tiles; knows no clips and no files."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from framefeed.crops import Box

Picture = npt.NDArray[np.uint8]

# Glyphs of 3 x 5 pixels: an octal digit a row, its bits from left to right.
_GLYPHS = {
    "0": "75557", "1": "26227", "2": "71747", "3": "71317", "4": "55711", "5": "74717", "6": "74757", "7": "71122",
    "8": "75757", "9": "75717", ".": "00002", ":": "02020", "-": "00700", "+": "02720", "x": "05250", "s": "03636",
    "p": "06564", "a": "25755", "d": "65556", "#": "57575", "/": "11244", "[": "64446", ")": "42224", ",": "00024",
    " ": "00000",
}  # fmt: skip
_ROWS, _COLUMNS, _TEXT_SCALE = 5, 4, 2
GREEN, YELLOW = (0, 230, 60), (255, 220, 0)


def draw_box(picture: Picture, box: Box, *, colour: tuple[int, int, int] = GREEN) -> None:
    """Dim what lies outside the box and draw its edge, two pixels wide, just inside it."""
    y, x = slice(box.y_px, box.y_px + box.height_px), slice(box.x_px, box.x_px + box.width_px)
    inside = picture[y, x].copy()
    picture //= 2
    picture[y, x] = inside
    window = picture[y, x]
    for edge in (window[:2], window[-2:], window[:, :2], window[:, -2:]):
        edge[...] = colour


def draw_text(picture: Picture, text: str, *, x_px: int = 2, y_px: int = 2) -> None:
    """Write yellow text on black from (x_px, y_px) on, as far as the picture goes; other characters show as blanks."""
    rows = np.zeros((_ROWS, _COLUMNS * len(text) + 1), np.bool_)
    for i, character in enumerate(text):
        for row, digit in enumerate(_GLYPHS.get(character, _GLYPHS[" "])):
            rows[row, _COLUMNS * i + 1 : _COLUMNS * i + 4] = [int(digit) >> bit & 1 for bit in (2, 1, 0)]
    mask = np.pad(rows, ((1, 1), (0, 0))).repeat(_TEXT_SCALE, 0).repeat(_TEXT_SCALE, 1)
    window = picture[y_px : y_px + len(mask), x_px : x_px + mask.shape[1]]
    window[...] = np.where(mask[: window.shape[0], : window.shape[1], None], YELLOW, 0)


def stack(pictures: Sequence[Picture], *, axis: int, gap_px: int = 4) -> Picture:
    """Pictures below (axis 0) or beside (axis 1) one another, on dark grey where they leave room."""
    across = 1 - axis
    width = max(picture.shape[across] for picture in pictures)
    length = sum(picture.shape[axis] for picture in pictures) + gap_px * (len(pictures) - 1)
    whole = np.full((length, width, 3) if axis == 0 else (width, length, 3), 40, np.uint8)
    at = 0
    for picture in pictures:
        target = whole[at:] if axis == 0 else whole[:, at:]
        target[: picture.shape[0], : picture.shape[1]] = picture
        at += picture.shape[axis] + gap_px
    return whole
