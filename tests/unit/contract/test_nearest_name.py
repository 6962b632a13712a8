"""The name that was meant: capitals are no difference, and where nothing is like it there is none."""

from __future__ import annotations

import pytest

from framefeed.nearest_name import nearest_name


@pytest.mark.parametrize(
    ("typed", "names", "meant"),
    [
        ("AV1", ("h264", "av1"), "av1"),
        ("av1", ("P01_AV1", "AV1"), "AV1"),
        ("straße", ("STRASSE",), "STRASSE"),
        ("serv", ("serve", "chunk"), "serve"),
        ("xyzzy", ("serve", "chunk"), ""),
        ("x", (), ""),
    ],
)
def test_the_name_that_was_meant(typed: str, names: tuple[str, ...], meant: str) -> None:
    assert nearest_name(typed, names) == meant


def test_without_a_cutoff_something_is_nearest() -> None:
    assert nearest_name("plain", ("v", "w"), cutoff=0.0) in ("v", "w")
