"""Help: a line a verb, a first screen of 40 lines and 80 columns for each, all options on the page behind it."""

from __future__ import annotations

import io
import re
from contextlib import redirect_stdout
from functools import partial
from importlib.metadata import entry_points

import pytest
import tyro

from framefeed.cli.command import main
from framefeed.cli.help_page import COLUMNS, FIRST_LINES
from framefeed.cli.option_fields import first_sentence, option_fields
from trainer_client.training.recipes.catalogue import RECIPES, find_recipe
from trainer_client.training.recipes.recipe import Recipe

VERBS = {point.name: point for point in entry_points(group="framefeed.verbs")}
PAGES = [*VERBS, *(f"train {recipe}" for recipe in RECIPES)]


def _page(capsys: pytest.CaptureFixture[str], *args: str) -> list[str]:
    with pytest.raises(SystemExit) as ended:
        main(list(args))
    assert ended.value.code == 0
    return capsys.readouterr().out.splitlines()


def test_there_is_a_line_for_each_verb(capsys: pytest.CaptureFixture[str]) -> None:
    lines = _page(capsys, "--help")
    assert lines == _page(capsys, "help")
    assert len(lines) <= FIRST_LINES
    for name in VERBS:
        (line,) = [line for line in lines if re.match(rf"  {name}  +\S", line)]
        assert len(line) <= COLUMNS
        assert line.endswith("."), f"{name}: the first sentence of its class goes on in the next line"


@pytest.mark.parametrize("name", PAGES)
def test_each_first_screen_fits_and_the_page_behind_it_has_every_option(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    first = _page(capsys, *name.split(), "--help")
    whole = _page(capsys, *name.split(), "--help-all")
    assert len(first) <= FIRST_LINES
    assert [line for line in (*first, *whole) if len(line) > COLUMNS] == []
    assert "(default: None)" not in "".join(whole)
    if name == "train":
        return
    typed = _tyros_flags(name)
    assert typed <= set(re.findall(r"--[a-z][\w.-]*", " ".join(whole))), "an option that tyro takes is on no page"


def _tyros_flags(name: str) -> set[str]:
    """What tyro's own page says that it takes, but for how a switch is put off where it is off."""
    recipe = find_recipe(name.split()[1]) if name.startswith("train ") else None
    kind = Recipe if recipe else VERBS[name].load()
    page = io.StringIO()
    ask = partial(tyro.cli, kind, args=["--help"], use_underscores=False)
    with redirect_stdout(page), pytest.raises(SystemExit):
        ask(default=recipe) if recipe else ask()
    flags = set(re.findall(r"^│ (?:-h, )?(--[a-z][\w.-]*)", page.getvalue(), flags=re.MULTILINE))
    assert flags - {"--help", "--name"} <= {flag for one in option_fields(kind, recipe) for flag in one.flags}
    return flags - {"--help", "--name"}


def test_a_first_screen_says_how_many_options_are_behind_it(capsys: pytest.CaptureFixture[str]) -> None:
    first = _page(capsys, "serve", "--help")
    left = re.search(r"framefeed serve --help-all has (\d+) more options", first[-1])
    assert left
    shown = sum(bool(re.match(r"  (--|[A-Z])", line)) for line in first)
    assert shown + int(left[1]) == len(option_fields(VERBS["serve"].load()))


def test_help_and_version_are_words_and_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert _page(capsys, "help", "index") == _page(capsys, "index", "--help") == _page(capsys, "index", "-h")
    assert re.fullmatch(r"framefeed \d+\.\d+.*", _page(capsys, "--version")[0])


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("One. Two.", "One."),
        ("Sockets, e.g. 0. Default: all.", "Sockets, e.g. 0."),
        ("Such as 1.5 of\nthem.", "Such as 1.5 of them."),
        ("What it is. ego4d: a kind.", "What it is."),
    ],
)
def test_a_sentence_ends_at_a_full_stop(text: str, first: str) -> None:
    assert first_sentence(text) == first
