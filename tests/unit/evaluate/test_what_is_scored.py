"""What of a scoring nobody can have meant is one line: views, templates and tail classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from framefeed.errors import BadInput
from framefeed_models.tubelets import TubeletGrid
from tests.manifests import manifest_of
from trainer_client.datasets.open_dataset import open_dataset
from trainer_client.datasets.spec import DataSpec, Kind
from trainer_client.evaluate.choose_scorer import Asked
from trainer_client.evaluate.epic_data import epic_subsets
from trainer_client.evaluate.scorers import class_features
from trainer_client.evaluate.views_of_clips import Rule, ViewOptions

GRID = TubeletGrid(frames=4, height_px=32, width_px=32)
HEADER = (
    "narration_id,participant_id,video_id,start_timestamp,stop_timestamp,narration,verb_class,noun_class,"
    "all_noun_classes"
)


@pytest.mark.parametrize("name", ["windows", "boxes", "stride"])
def test_no_views_are_none(name: str) -> None:
    with pytest.raises(BadInput, match=f"views: {name} is 0, wanted 1 to 1000"):
        ViewOptions(**{name: 0})  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "rule"), [("table", "auto"), ("table", "segments"), ("kinetics", "lavila_segments")])
def test_windows_of_a_rule_that_has_none_are_not_left_out_in_silence(kind: Kind, rule: Rule) -> None:
    with pytest.raises(BadInput, match=r"views: windows is 5, and the rule .* has one window of"):
        ViewOptions(rule=rule, windows=5).policy(kind, GRID)


@pytest.mark.parametrize("rule", ["avion_views", "videomae_views", "tsn_segments", "lavila_dense"])
def test_rules_with_windows_have_them(rule: Rule) -> None:
    assert ViewOptions(rule=rule, windows=3, boxes=3).policy("table", GRID).views == 9


def test_a_template_has_a_place_for_the_name_and_nothing_else_is_one() -> None:
    data = DataSpec(kind="table", path=Path("x.csv"))
    with pytest.raises(BadInput, match=r"template 'a video' has no \{\}, wanted it where the class's name goes"):
        Asked(data=data, templates=("{}", "a video"))
    said = list[str]()

    def texts(sentences: list[str]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
        said.extend(sentences)
        return np.eye(len(sentences))

    (template,) = Asked(data=data, templates=("{x} {} {0",)).templates
    class_features(texts, ["a{b", "c"], [template])  # type: ignore[arg-type]
    assert said == ["{x} a{b {0", "{x} c {0"]


@pytest.mark.parametrize(
    ("ids", "line"),
    [
        ("97\n", "have 97, wanted 0 to 96"),
        ("-1\n", "have -1, wanted 0 to 96"),
        ("x\n", "are no numbers"),
        ("", "have none"),
    ],
)
def test_tail_classes_that_are_none_are_not_left_out_in_silence(tmp_path: Path, ids: str, line: str) -> None:
    row = "n0,P01,P01_1,00:00:00.00,00:00:01.00,take plate,0,2,[2]"
    (tmp_path / "EPIC_100_validation.csv").write_text(f"{HEADER}\n{row}\n")
    (tmp_path / "EPIC_100_tail_verbs.csv").write_text(f"verb\n{ids}")
    (tmp_path / "EPIC_100_tail_nouns.csv").write_text("noun\n3\n")
    (tmp_path / "EPIC_100_unseen_participant_ids_validation.csv").write_text("participant_id\nP01\n")
    spec = DataSpec(kind="ek100_cls", path=tmp_path, split="val", cache=tmp_path / "cache")
    dataset = open_dataset(spec, manifest_of({"P01/P01_1": 5.0}))
    with pytest.raises(BadInput, match=f"tail classes .*EPIC_100_tail_verbs.csv {line}"):
        epic_subsets(spec, dataset)
