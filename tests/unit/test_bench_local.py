"""The bench of a loader's own server: what it cannot measure is one line, before anything is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from framefeed.errors import BadInput
from framefeed_bench.local import LocalBench


@pytest.mark.parametrize(("steps", "rounds"), [(8, 5), (60, 0)])
def test_too_little_to_measure_is_one_line(tmp_path: Path, steps: int, rounds: int) -> None:
    with pytest.raises(BadInput, match="wanted more than 8, and --rounds at least 1"):
        LocalBench(root=tmp_path, steps=steps, rounds=rounds, out=tmp_path / "x").run()
