"""Which folders are warned about: those that others could change."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from framefeed.folder_guard import warn_if_exposed, why_exposed

LOG = logging.getLogger("test")


@pytest.mark.parametrize(
    ("mode", "owner", "says"),
    [
        (0o40755, 1000, ""),
        (0o40775, 1000, ""),
        (0o41777, 1000, ""),
        (0o40755, 0, ""),
        (0o40777, 1000, "everybody may write there (mode 777), wanted 1777 or no other writers"),
        (0o40757, 0, "everybody may write there (mode 757), wanted 1777 or no other writers"),
        (0o40700, 1001, "it belongs to user 1001, not to 1000 or root"),
    ],
)
def test_which_are_exposed(mode: int, owner: int, says: str) -> None:
    assert why_exposed(mode=mode, owner=owner, user=1000) == says


def test_it_is_said_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tmp_path.chmod(0o755)
    warn_if_exposed(tmp_path, what="index", log=LOG)
    warn_if_exposed(tmp_path / "none", what="index", log=LOG)
    assert not caplog.records
    tmp_path.chmod(0o777)
    warn_if_exposed(tmp_path, what="index", log=LOG)
    (record,) = caplog.records
    assert record.getMessage().startswith(f"index {tmp_path}: others could change what is read from it: everybody may")
