"""The shortest studies of `make learn`, whole: made scenes, recipes through local servers, and figures as promised."""

from __future__ import annotations

import pytest

from framefeed_bench.learn import missing, prepared, studied
from framefeed_bench.learn_trials import Trials

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> Trials:
    return prepared(tmp_path_factory.mktemp("learn"))


@pytest.mark.parametrize("name", ["direction", "size"])
def test_a_study_finds_what_is_wanted(
    trials: Trials, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    study = studied(trials, name)
    assert missing(study) == []
    assert study["figures"]
    assert all(len(curve) > 10 for curve in study["losses"].values())
