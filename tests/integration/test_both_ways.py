"""At any instant a file shows the same picture served as it is and from its chunks: every file of the hard ones, of the
real footage and of the media matrix, at 200 random instants each. Real footage has no numbers: its times must agree,
and its pictures be alike.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from decode_server.indexing.probe import ProbeOptions, probe_file
from decode_server.media.packet_index import PacketIndex
from tests.barred import HARD, Pixels, read_picture
from tests.media_matrix import all_files, make_file
from tests.two_ways import as_it_is, chunked, duration_s, shown_at_each
from tests.videos import read_frame_number

VIDEOS = HARD.parent / "videos"
INSTANTS = 200
EDGE_S = 2e-3  # nearer to a change of pictures a clock of milliseconds may show either
LEAST_PSNR_DB = 25.0  # of a chunk's picture; neighbours of real footage differ by more where it moves
UNNUMBERED = ("05c_gray", "12_still")

pytestmark = pytest.mark.slow


def _instants(index: PacketIndex, end_s: float, seed: str) -> list[float]:
    """Random instants within what both ways show, in order, none of them near a change of pictures."""
    times_s = [float(at_s) for at_s in index.times_s]
    rng, found = random.Random(seed), list[float]()
    while len(found) < INSTANTS:
        at_s = rng.uniform(0, min(end_s, index.duration_s) - EDGE_S)
        place = bisect_right(times_s, at_s)
        if all(abs(at_s - times_s[near]) > EDGE_S for near in (place - 1, place) if 0 <= near < len(times_s)):
            found.append(at_s)
    return sorted(found)


def _psnr_db(one: Pixels, other: Pixels) -> float:
    error = float(np.mean((one.astype(float) - other.astype(float)) ** 2))
    return 10 * float(np.log10(255**2 / max(error, 1e-9)))


def _same_at_every_instant(path: Path, folder: Path, number: Callable[[Pixels], int] | None) -> None:
    probed = probe_file(path, name=path.name, chunk=False, options=ProbeOptions(index_folder=folder))
    if probed.index is None:
        assert probed.use.refused.endswith("chunk it instead"), probed.use.refused
        chunked(path, folder / "chunks")
        return
    plain, (chunks, _) = as_it_is(path, folder / "plain"), chunked(path, folder / "chunks")
    half_frame_s = probed.index.duration_s / len(probed.index.times_s) / 2
    instants_s = _instants(probed.index, duration_s(chunks), path.name)
    for here, there in zip(shown_at_each(plain, instants_s), shown_at_each(chunks, instants_s), strict=True):
        assert there.since_s == pytest.approx(here.since_s, abs=half_frame_s), (path.name, here.at_s)
        if number is None:
            assert _psnr_db(here.rgb, there.rgb) > LEAST_PSNR_DB, (path.name, here.at_s)
        else:
            assert number(there.rgb) == number(here.rgb), (path.name, here.at_s)


def _hard() -> list[str]:
    return sorted(path.name for path in HARD.iterdir() if path.suffix != ".md") if HARD.is_dir() else []


@pytest.mark.parametrize("name", _hard())
def test_a_hard_file(tmp_path: Path, name: str) -> None:
    number = None if name.startswith(UNNUMBERED) else lambda rgb: read_picture(rgb)[0]
    _same_at_every_instant(HARD / name, tmp_path, number)


@pytest.mark.parametrize("name", sorted(path.name for path in VIDEOS.iterdir()) if VIDEOS.is_dir() else [])
def test_real_footage(tmp_path: Path, name: str) -> None:
    _same_at_every_instant(VIDEOS / name, tmp_path, None)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("made")


@pytest.mark.parametrize("name", all_files())
def test_a_file_of_the_matrix(made: Path, tmp_path: Path, name: str) -> None:
    path = make_file(made, name, frames=70)
    _same_at_every_instant(path, tmp_path, lambda rgb: read_frame_number(rgb[..., 1]))
