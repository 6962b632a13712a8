"""The README tells the truth where a test can know it."""

import json
import re
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from framefeed_bench.readme import PAGES, with_tables
from trainer_client.training.recipes.catalogue import RECIPES

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("page", PAGES)
def test_tables_are_those_of_the_results(page: str) -> None:
    assert with_tables(page, ROOT / "bench/results") == (ROOT / page).read_text(), (
        "run python -m framefeed_bench.readme"
    )


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= 200


def test_every_folder_and_file_it_names_exists() -> None:
    listing = README[README.index("## Where things are") :]
    folders = re.findall(r"^    ([a-z_]+)/", listing, flags=re.MULTILINE)
    files = re.findall(r"\b([a-z_]+\.py)\b", listing)
    assert len(folders) == 8
    assert len(files) > 10
    assert [name for name in folders if not (ROOT / name).is_dir()] == []
    there = {path.name for folder in folders for path in (ROOT / folder).rglob("*.py")}
    assert [name for name in files if name not in there] == []


def test_every_verb_it_shows_exists() -> None:
    verbs = {point.name for point in entry_points(group="framefeed.verbs")}
    shown = set(re.findall(r"^    framefeed ((?:train |bench )?[a-z]+) ", README, flags=re.MULTILINE))
    known = verbs - {"train"} | {f"train {recipe}" for recipe in RECIPES}
    assert {"chunk", "index", "serve", "train mae"} <= shown <= known


def test_the_commands_it_shows_are_targets() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert {"demo", "test"} <= set(re.findall(r"\bmake ([a-z-]+)", README)) <= targets


def test_both_pixel_formats_are_proved_in_every_case() -> None:
    cases = json.loads((ROOT / "bench/results/decode.json").read_text())["cases"]
    assert len(cases) == 4
    for case in cases:
        assert min(case["rows"][f"framefeed {way}"]["psnr_db"] for way in ("RGB", "YUV")) >= 25
