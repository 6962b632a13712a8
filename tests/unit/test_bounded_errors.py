"""An error shows what it was given bounded, where the line is made: `repr` is as long as what was given."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from framefeed.errors import BadInput
from trainer_client.loader_options import LoaderOptions

ROOT = Path(__file__).parents[2]
PACKAGES = ("framefeed", "decode_server", "trainer_client")
BOUNDED_ALREADY = {
    "trainer_client/feed/buckets.py: video": "a name of the manifest, which bounds it",
    "trainer_client/text/narration_bpe.py: saved['framefeed_tokenizer']": "a file that the run has written",
    "trainer_client/text/narration_bpe.py: error": "an exception of a known kind",
}


def test_no_bad_input_shows_what_it_was_given_by_repr() -> None:
    found = set()
    for path in (file for package in PACKAGES for file in (ROOT / package).rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "BadInput":
                shown = [one for one in ast.walk(call) if isinstance(one, ast.FormattedValue)]
                name = path.relative_to(ROOT)
                found |= {f"{name}: {ast.unparse(one.value)}" for one in shown if one.conversion == ord("r")}
    assert found == set(BOUNDED_ALREADY)


@pytest.mark.parametrize("servers", [5, None, float("nan"), b"x", {}, True, "tcp://" + "a" * 10_000])
def test_servers_that_are_no_list_are_one_line(servers: object) -> None:
    with pytest.raises(BadInput, match="servers") as caught:
        LoaderOptions(servers=servers, batch_clips=2)  # type: ignore[arg-type]
    assert len(str(caught.value)) <= 300


@pytest.mark.parametrize("name", ["order", "run", "on_stall"])
def test_a_long_text_is_shown_in_part(name: str) -> None:
    with pytest.raises(BadInput, match=name) as caught:
        LoaderOptions(servers=["tcp://127.0.0.1:9"], batch_clips=2, **{name: "a" * 10_000})  # type: ignore[arg-type]
    assert len(str(caught.value)) <= 300
