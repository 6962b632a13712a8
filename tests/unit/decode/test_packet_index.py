"""The record comes back as it was packed; a damaged one is refused by place."""

import pytest

from decode_server.media.packet_index import KEY, unpack_index
from framefeed.errors import CorruptMedia
from tests.unit.decode.indices import make_index

INDEX = make_index([0, 3, 1, 2], [KEY, 0, 2, 2], [100, 50, 20, 20], [48, 0, 0, 0])


def test_round_trip() -> None:
    back = unpack_index(INDEX.pack(), where="x")
    assert back.pack() == INDEX.pack()
    assert back.shown.tolist() == [0, 2, 3, 1]
    assert back.times_s.tolist() == [0, 1 / 30, 2 / 30, 3 / 30]


@pytest.mark.parametrize("cut", [0, 1, 10, 200, len(INDEX.pack()) - 1])
def test_a_record_cut_short_is_refused(cut: int) -> None:
    with pytest.raises(CorruptMedia, match="packet index at file:7 is damaged"):
        unpack_index(INDEX.pack()[:cut], where="file:7")


def test_columns_that_disagree_are_refused() -> None:
    bad = make_index([0, 1], [KEY, 0], [1, 1], [0, 0])
    object.__setattr__(bad, "crc32", bad.crc32[:1])
    with pytest.raises(CorruptMedia, match="columns do not agree"):
        unpack_index(bad.pack(), where="x")


def test_displayed_size_is_turned_with_the_picture() -> None:
    object.__setattr__(turned := make_index([0], [KEY], [1], [0]), "rotation_deg", 270)
    assert turned.display_px == (288, 512)
