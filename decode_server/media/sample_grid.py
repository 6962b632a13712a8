"""Where a box of the displayed frame lies among the coded samples: turned, mirrored, and with pixels of another shape.

Pure. People see square pixels the right way up, and boxes are in those; decoders give samples, chroma every second
one. A box is cut where samples are, so it is first moved onto their chroma grid, by less than one and a half displayed
pixels an edge (plus the stretch), and it is the moved box that is reported.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from framefeed.crops import Box


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleGrid:
    """The coded frame, and how it is shown: stretched to square pixels, turned counter-clockwise, then mirrored.

    `sar` is width : height of a sample. A wide one is stretched in width and a narrow one in height, so that no sample
    is lost to the displayed size.
    """

    width_px: int
    height_px: int
    sar: Fraction = Fraction(1)
    rotation_deg: int = 0
    mirrored: bool = False

    @property
    def display_px(self) -> tuple[int, int]:
        """Width and height of the displayed frame."""
        width_px, height_px = self._square_px
        return (height_px, width_px) if self.rotation_deg % 180 else (width_px, height_px)

    def snapped(self, box: Box) -> Box:
        """The displayed box that is cut when `box` is asked for: the nearest on the chroma grid, at least 2x2 samples.

        A snapped box snaps to itself.
        """
        coded = self.coded_box(box)
        scale_x, scale_y = self._scale
        x0, x1 = round(coded.x_px * scale_x), round((coded.x_px + coded.width_px) * scale_x)
        y0, y1 = round(coded.y_px * scale_y), round((coded.y_px + coded.height_px) * scale_y)
        return self._turned(Box(x_px=x0, y_px=y0, width_px=x1 - x0, height_px=y1 - y0))

    def coded_box(self, box: Box) -> Box:
        """The even-edged box of coded samples that is nearest to a displayed box."""
        box = self._turned_back(box)
        scale_x, scale_y = self._scale
        x, width_px = _even_span(box.x_px / scale_x, (box.x_px + box.width_px) / scale_x, self.width_px)
        y, height_px = _even_span(box.y_px / scale_y, (box.y_px + box.height_px) / scale_y, self.height_px)
        return Box(x_px=x, y_px=y, width_px=width_px, height_px=height_px)

    @property
    def _square_px(self) -> tuple[int, int]:
        if self.sar == 1:
            return self.width_px, self.height_px
        if self.sar > 1:
            return round(self.width_px * self.sar), self.height_px
        return self.width_px, round(self.height_px / self.sar)

    @property
    def _scale(self) -> tuple[Fraction | int, Fraction | int]:
        """Displayed pixels a sample, along the coded axes; plain numbers where samples are square."""
        if self.sar == 1:
            return 1, 1
        width_px, height_px = self._square_px
        return Fraction(width_px, self.width_px), Fraction(height_px, self.height_px)

    def _turned(self, box: Box) -> Box:
        """A box of the square-pixel frame as a box of the displayed one."""
        width_px, height_px = self._square_px
        x, y, w, h = box.x_px, box.y_px, box.width_px, box.height_px
        for _ in range(self.rotation_deg // 90 % 4):
            x, y, w, h, width_px, height_px = y, width_px - x - w, h, w, height_px, width_px
        return Box(x_px=width_px - x - w if self.mirrored else x, y_px=y, width_px=w, height_px=h)

    def _turned_back(self, box: Box) -> Box:
        width_px, height_px = self.display_px
        x, y, w, h = box.x_px, box.y_px, box.width_px, box.height_px
        x = width_px - x - w if self.mirrored else x
        for _ in range(self.rotation_deg // 90 % 4):
            x, y, w, h, width_px, height_px = height_px - y - h, x, h, w, height_px, width_px
        return Box(x_px=x, y_px=y, width_px=w, height_px=h)


def _even_span(low: Fraction | float, high: Fraction | float, size: int) -> tuple[int, int]:
    """(start, length), both even, nearest to [low, high) within `size` samples."""
    last = size & ~1
    start = min(2 * round(low / 2), max(last - 2, 0))
    return start, max(min(2 * round(high / 2), last) - start, 2)
