"""Names of any bytes and length have a text, a video name and a folder, and each text leads back to its file."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decode_server.sources.file_names import as_path, as_text, fitting, for_people, video_names

_PARTS = st.binary(min_size=1, max_size=40).map(lambda part: part.replace(b"\0", b"0").replace(b"/", b"_"))


@given(st.lists(_PARTS, min_size=1, max_size=4))
def test_a_text_leads_back_to_its_path_and_can_be_written(parts: list[bytes]) -> None:
    path = os.fsdecode(b"/".join(parts))
    as_text(path).encode()
    for_people(path).encode()
    assert as_path(as_text(path)) == path
    assert as_path(path) == path


@pytest.mark.parametrize(
    ("owners", "given_names", "names"),
    [
        (["a.mp4", "b.mkv"], {}, ["a", "b"]),
        (["a.mp4", "a.mkv"], {}, ["a.mp4", "a.mkv"]),
        (["a.mp4", "a.mkv"], {"a.mp4": "a"}, ["a", "a.mkv"]),
        (["a.mp4"], {"a.mp4": "a.mp4"}, ["a.mp4"]),
        (["a.mp4.mkv", "a.mp4", "a.mkv"], {}, ["a.mp4.mkv", "a.mp4", "a.mkv"]),
        ([os.fsdecode(b"caf\xe9%.mp4")], {}, ["caf%E9%25"]),
        ([os.fsdecode(b"\xe9.mp4"), "%E9.mp4"], {}, ["%E9.mp4", None]),
        (["noextension"], {}, ["noextension"]),
    ],
    ids=range(8),
)
def test_each_video_has_a_name_of_its_own(
    owners: list[str], given_names: dict[str, str], names: list[str | None]
) -> None:
    found = video_names(owners, given=given_names)
    assert [found.get(owner) for owner in owners] == names


@given(st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1, max_size=400))
def test_a_folder_name_fits_and_two_long_ones_differ(name: str) -> None:
    one, other = (fitting(f"{name}{end}/{name}{end}", suffix=".mp4") for end in "ab")
    for part in (*one.split("/")[:-1], one.split("/")[-1] + ".mp4"):
        assert len(part.encode()) <= 255
    assert one != other
