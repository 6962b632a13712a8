"""The quarantine list: what overlaps it, who owns which lines, and what is written is read again."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framefeed.errors import BadInput
from framefeed.quarantine import QUARANTINE_NAME, Finder, Quarantine, QuarantinedSpan, read_quarantine


def span(video: str, start_s: float, end_s: float, found_by: Finder = "verify") -> QuarantinedSpan:
    return QuarantinedSpan(video=video, start_s=start_s, end_s=end_s, reason="torn", found_by=found_by)


def test_what_overlaps_touches_and_what_only_meets_does_not() -> None:
    quarantine = Quarantine([span("a", 2, 3), span("a", 5, 6), span("b", 0, 9)])
    assert quarantine.touching("a", 0, 2) is None
    assert quarantine.touching("a", 3, 5) is None
    assert quarantine.touching("a", 2.9, 10) == span("a", 2, 3)
    assert quarantine.touching("a", 4, 5.1) == span("a", 5, 6)
    assert quarantine.touching("c", 0, 99) is None


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 30)), max_size=8), st.integers(0, 60), st.integers(1, 20))
def test_touching_agrees_with_a_plain_search(rows: list[tuple[int, int]], start_s: int, length_s: int) -> None:
    spans = [span("v", at, at + length) for at, length in rows]
    plain = any(s.start_s < start_s + length_s and start_s < s.end_s for s in spans)
    assert (Quarantine(spans).touching("v", start_s, start_s + length_s) is not None) == plain


def test_each_verb_replaces_its_own_lines_only() -> None:
    quarantine = Quarantine([span("a", 1, 2, "chunk"), span("a", 3, 4), span("b", 5, 6)])
    again = quarantine.replaced([span("c", 0, 1)], found_by="verify")
    assert again.spans == (span("a", 1, 2, "chunk"), span("c", 0, 1))
    partly = quarantine.replaced((), found_by="verify", videos={"a"})
    assert partly.spans == (span("a", 1, 2, "chunk"), span("b", 5, 6))


def test_what_is_written_is_read_again_and_an_empty_list_is_no_file(tmp_path: Path) -> None:
    assert read_quarantine(tmp_path).spans == ()
    quarantine = Quarantine([span("a/ü b", 1.25, 2), span("a/ü b", 3, 4, "chunk")])
    quarantine.write(tmp_path)
    assert read_quarantine(tmp_path).spans == quarantine.spans
    assert [path.name for path in tmp_path.iterdir()] == [QUARANTINE_NAME]
    Quarantine().write(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_lists_of_several_folders_are_one(tmp_path: Path) -> None:
    for name, spans in (("x", [span("a", 1, 2)]), ("y", [span("a", 1, 2), span("b", 1, 2)])):
        (tmp_path / name).mkdir()
        Quarantine(spans).write(tmp_path / name)
    assert read_quarantine(tmp_path / "x", tmp_path / "y", tmp_path).spans == (span("a", 1, 2), span("b", 1, 2))


@pytest.mark.parametrize("text", ["", "[]", "{}\n", '{"framefeed_quarantine": 1, "spans": 2}\n', "\x00garbage"])
def test_a_list_that_is_not_whole_is_refused_not_ignored(tmp_path: Path, text: str) -> None:
    (tmp_path / QUARANTINE_NAME).write_text(text)
    with pytest.raises(BadInput, match="quarantine list"):
        read_quarantine(tmp_path)


def test_a_span_of_no_length_is_refused() -> None:
    with pytest.raises(BadInput, match=r"span of 'v' is \[2, 2\)"):
        span("v", 2, 2)
