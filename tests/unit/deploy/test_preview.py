"""Pictures of the dashboards have every panel of their JSON, what Prometheus answered, and say what they are."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from matplotlib.figure import Figure

from deploy.grafana.dashboards import BOARDS
from deploy.grafana.preview import Series, Window, committed, draw, in_unit, legend

WINDOW = Window(start_s=1000.0, end_s=1060.0)
TIMES_S = [1000.0, 1030.0, 1060.0]


def answers(expression: str) -> Sequence[Series]:
    bounds = ["0.01", "0.1", "+Inf"] if "_bucket" in expression and "quantile" not in expression else ["1"]
    return [
        Series(labels={"le": bound, "instance": "d"}, times_s=TIMES_S, values=[1.0, 2.0, 3.0 + place])
        for place, bound in enumerate(bounds)
    ]


def texts(figure: Figure) -> set[str]:
    found = {text.get_text() for text in figure.texts}
    for axes in figure.axes:
        found |= {text.get_text() for text in axes.texts} | {axes.get_title(loc="left")}
    return found


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_every_panel_is_drawn_and_the_picture_says_that_it_is_a_preview(board: object) -> None:
    body = committed(board.uid)  # type: ignore[attr-defined]
    asked: list[str] = []

    def ask(expression: str) -> Sequence[Series]:
        asked.append(expression)
        return answers(expression)

    figure = draw(body, ask, WINDOW)
    assert {panel["title"] for panel in body["panels"]} <= texts(figure)
    assert len(asked) == sum(len(panel.get("targets", [])) for panel in body["panels"])
    assert not any("$" in expression for expression in asked)
    assert any("preview" in text for text in texts(figure))
    assert "No data" not in texts(figure)
    for axes in figure.axes:
        assert axes.lines or axes.collections or axes.texts, axes.get_title(loc="left")


def test_a_panel_without_an_answer_says_so() -> None:
    figure = draw(committed(BOARDS[0].uid), lambda _: [], WINDOW)
    assert "No data" in texts(figure)


def test_numbers_and_names_are_written_as_grafana_would() -> None:
    assert [in_unit(value, unit) for value, unit in ((0.384, "percentunit"), (0.0123, "s"), (12.5, "ops"))] == [
        "38.4 %",
        "12.3 ms",
        "12.5 /s",
    ]
    assert [in_unit(value, unit) for value, unit in ((2.5e9, "Bps"), (3e6, "bytes"), (0, "short"))] == [
        "2.5 GB/s",
        "3 MB",
        "0",
    ]
    assert legend("rank {{rank}} of {{gone}}", {"rank": "3"}) == "rank 3 of "
