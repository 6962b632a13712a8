"""Drawn files are right, or one line names what is not used: no frame is missing, doubled, out of order or of another
colour in silence, as the file is and as it is chunked.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, note, settings

from decode_server.indexing.probe import ProbeOptions, probe_file
from decode_server.media.media_use import MediaUse
from tests.barred import read_picture
from tests.strange import Strange, make_strange, strange_files
from tests.two_ways import as_it_is, decoded, shown_at

FILES = int(os.environ.get("FRAMEFEED_STRANGE_FILES", "60"))
_OFF = 20  # of 255: JPEG and the MPEGs at low rates
pytestmark = pytest.mark.slow


@settings(max_examples=FILES, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
@given(strange_files())
def test_a_strange_file_is_right_or_named(strange: Strange) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = make_strange(folder, strange)
        seen, use = decoded(path, off=_OFF)
        note(f"{use}")
        _check(strange, seen, use)
        probed = probe_file(path, name=path.name, chunk=False, options=ProbeOptions(index_folder=folder))
        if probed.index is None:
            assert "chunk it instead" in probed.use.refused
            assert len({(s.size_px, s.pix_fmt) for s in strange.stretches}) > 1 or "parameters" in probed.use.refused
            return
        assert probed.index.times_s == pytest.approx([at_s for at_s, _ in seen], abs=1e-3)
        root = as_it_is(path, folder / "root")
        picked = seen[:: max(len(seen) // 6, 1)]
        for (_, number), shown in zip(picked, shown_at(root, [at_s + 1e-3 for at_s, _ in picked]), strict=True):
            assert read_picture(shown.rgb)[0] == number
            assert read_picture(shown.rgb)[1] < _OFF


def _check(strange: Strange, seen: list[tuple[float, int]], use: MediaUse) -> None:
    """The numbers come in order, once each; those that are missing are named; times are those of the file."""
    numbers = [number for _, number in seen]
    assert numbers == sorted(set(numbers))
    assert not set(numbers) - set(strange.numbers)
    times_s = dict(zip(strange.numbers, strange.times_s, strict=True))
    firsts = [stretch.first for stretch in strange.stretches]
    since: dict[int, float] = {}
    for at_s, number in seen:
        part = max(first for first in firsts if first <= number)
        since.setdefault(part, at_s - times_s[number])
        assert at_s - times_s[number] == pytest.approx(since[part], abs=0.02), number
    if strange.lasts_s is not None and not use.losses:
        assert use.used_s == pytest.approx(strange.lasts_s, abs=0.02)
    for number in sorted(set(strange.numbers) - set(numbers)):
        at_s = times_s[number] + since[max(first for first in firsts if first <= number)]
        ends_s = [(loss.start_s - 0.1, (use.used_s if loss.end_s is None else loss.end_s) + 0.1) for loss in use.losses]
        assert any(start_s <= at_s <= end_s for start_s, end_s in ends_s), f"{number} is missing in silence"
