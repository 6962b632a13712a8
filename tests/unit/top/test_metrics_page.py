"""Pages as numbers: what a page may be is anything, and what comes of it is bounded, printable and finite."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framefeed.cli.top.metrics_page import LARGEST, Page, parse_page

NAME = "framefeed_x_total"


def parse(text: str) -> Page:
    return parse_page("http://h:1/metrics", text, at_s=1.0)


def test_samples_by_name_and_labels_and_nothing_of_others() -> None:
    page = parse(f'# TYPE {NAME} counter\n{NAME}{{rank="0",cause="read"}} 2\n{NAME}{{rank="1"}} 3.5\nprocess_x 1\n')
    assert page.trouble == ""
    assert list(page.samples) == [NAME]
    assert page.total(NAME) == 5.5
    assert list(page.values(NAME, rank="0")) == [({"cause": "read"}, 2.0)]


@pytest.mark.parametrize("number", ["NaN", "+Inf", "-Inf", "1e300", "1e16"])
def test_what_is_no_number_to_compute_with_is_left_out(number: str) -> None:
    page = parse(f'{NAME}{{rank="0"}} {number}\n{NAME}{{rank="1"}} 1\n')
    assert page.total(NAME) == 1.0


def test_labels_are_printable_and_short() -> None:
    page = parse(f'{NAME}{{rank="\x1b[2J\u202e[red]{"y" * 500}"}} 1\n')
    ((labels, _),) = page.values(NAME)
    assert labels["rank"].isprintable()
    assert len(labels["rank"]) <= 100


@pytest.mark.parametrize(
    ("text", "trouble"),
    [
        ("<html>\n</html>", "no framefeed metric"),
        ("", "no framefeed metric"),
        (f"{NAME}{{rank= 1", "cannot be read"),
        (f"{NAME} \x1b[2J\n", "cannot be read"),
        (f'{NAME}{{rank="{"x" * 3000}"}} 1\n', "too long lines"),
        (f"{NAME} 1\n" * 60_000, "too many"),
    ],
)
def test_what_is_no_page_of_ours_is_a_line(text: str, trouble: str) -> None:
    page = parse(text)
    assert trouble in page.trouble
    assert page.trouble.isprintable()
    assert not page.samples


@given(st.text(max_size=80), st.text(max_size=20), st.floats() | st.text(max_size=10))
def test_no_text_breaks_it(labels: str, name: str, value: float | str) -> None:
    for text in (labels, f"framefeed_{name}{{{labels}}} {value}\n", f'framefeed_a{{b="{labels}"}} {value} {name}\n'):
        page = parse(text)
        assert page.trouble.isprintable()
        for samples in page.samples.values():
            assert all(math.isfinite(number) and abs(number) <= LARGEST for number in samples.values())
            assert all(word.isprintable() for key in samples for pair in key for word in pair)
