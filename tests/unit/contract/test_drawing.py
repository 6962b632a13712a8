"""Drawing: edges where the box is, text that differs by what it says, tiles that do not overlap."""

import numpy as np

from framefeed.cli.drawing import GREEN, YELLOW, draw_box, draw_text, stack
from framefeed.crops import Box


def test_a_box_is_drawn_on_its_own_edge_and_dims_the_rest() -> None:
    picture = np.full((40, 60, 3), 200, np.uint8)
    draw_box(picture, Box(x_px=10, y_px=4, width_px=20, height_px=30))
    assert (picture[4:34, 10:12] == GREEN).all()
    assert (picture[32:34, 10:30] == GREEN).all()
    assert (picture[6:32, 12:28] == 200).all()
    assert (picture[:, 30:] == 100).all()
    assert (picture[:4] == 100).all()


def test_text_says_what_it_says_and_is_cut_at_the_edge() -> None:
    seen = set()
    for text in ["1.234 s", "1.235 s", "#7 pad", "320x180+4-2", "[1/2)"]:
        picture = np.zeros((20, 120, 3), np.uint8)
        draw_text(picture, text)
        assert (picture == YELLOW).all(axis=2).any()
        seen.add(picture.tobytes())
    assert len(seen) == 5
    draw_text(np.zeros((6, 9, 3), np.uint8), "0123456789")


def test_tiles_lie_side_by_side() -> None:
    small, large = np.full((4, 6, 3), 1, np.uint8), np.full((8, 10, 3), 2, np.uint8)
    row = stack([small, large], axis=1, gap_px=3)
    assert row.shape == (8, 19, 3)
    assert (row[:4, :6] == 1).all()
    assert (row[:, 9:] == 2).all()
    assert (row[4:, :6] == 40).all()
    assert stack([small, large], axis=0, gap_px=3).shape == (15, 10, 3)
