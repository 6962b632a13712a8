"""`make learn`: its page says its result, a figure that is missed is told, and the probe reads what a line can read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from framefeed.errors import BadInput
from framefeed_bench.learn import LearnBench, missing
from framefeed_bench.learn_page import draw_losses, with_figures
from framefeed_bench.learn_studies import STUDIES, Figure
from framefeed_bench.linear_probe import Described, probe

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/learning.md").read_text()
RESULT: dict[str, Any] = json.loads((ROOT / "bench/results/learn.json").read_text())


def test_the_page_says_the_result() -> None:
    assert with_figures(PAGE, RESULT) == PAGE, "run python -m framefeed_bench.learn_page"


def test_a_result_is_of_studies_that_there_are_and_a_figure_holds_where_it_says_so() -> None:
    assert list(RESULT["studies"]) == [name for name in STUDIES if name in RESULT["studies"]]
    for study in RESULT["studies"].values():
        for one in study["figures"]:
            figure = Figure(**{name: one[name] for name in ("what", "value", "at_least", "at_most")})
            assert figure.holds == one["holds"]


def test_all_together_take_forty_minutes_of_cpu_at_most() -> None:
    studies = RESULT["studies"].values()
    assert RESULT["scenes_cpu_s"] + sum(study["cpu_s"] for study in studies) <= 40 * 60


def test_what_is_missed_is_told_with_its_value() -> None:
    figures = [
        {"what": "scenes", "value": 0.9, "holds": Figure(what="scenes", value=0.9, at_least=0.97).holds},
        {"what": "one frame", "value": 0.26, "holds": Figure(what="one frame", value=0.26, at_most=0.3).holds},
    ]
    assert missing({"figures": figures}) == ["scenes is 0.900"]


def test_losses_are_drawn(tmp_path: Path) -> None:
    draw_losses(tmp_path / "losses.png", RESULT)
    assert (tmp_path / "losses.png").read_bytes().startswith(b"\x89PNG")


def test_a_study_that_there_is_not_is_one_line() -> None:
    with pytest.raises(BadInput, match=r"--studies has 'colour', wanted some of direction, speed"):
        LearnBench(studies=("colour",)).run()


@pytest.mark.parametrize("read", [True, False])
def test_the_probe_is_right_where_a_line_tells_labels_and_by_chance_where_nothing_does(read: bool) -> None:
    rng = np.random.default_rng(0)

    def drawn(rows: int) -> Described:
        features_ND = rng.standard_normal((rows, 16))
        label_N = features_ND[:, :4].argmax(axis=1) if read else rng.integers(0, 4, rows)
        return Described(features_ND=7 + 3 * features_ND, label_N=label_N.astype(np.int32))

    found = probe(drawn(2000), drawn(1000))
    assert found > 0.9 if read else 0.18 < found < 0.32
