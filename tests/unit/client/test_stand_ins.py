"""Who stands in for a clip that no server can give follows from its seed, is recorded, and has a budget."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framefeed.errors import BadInput, CorruptMedia, StorageFault
from framefeed.quarantine import read_quarantine
from tests.unit.client.clips import plan
from trainer_client.feed.stand_ins import Place, PoisonBudgetSpent, PoisonOptions, StandIn, StandIns, read, spell
from trainer_client.measures.stats import Ledger
from trainer_client.samples import Sample

DATASET = [Sample(video=f"video{i}", start_s=i, end_s=i + 1) for i in range(20)]
PLACE = Place(position=45, index=7, seed=99)
ERROR = CorruptMedia("clip of video7 [7, 8) s: it is so")


def stand_ins(policy: str = "replace", *, dataset: list[Sample] = DATASET, **options: Any) -> StandIns:
    chosen = PoisonOptions(policy=policy, **{"budget": 100, **options})  # type: ignore[arg-type]
    return StandIns(dataset, chosen, ledger=Ledger())


@pytest.mark.parametrize("policy", ["replace", "skip"])
def test_the_choice_follows_from_the_seed_alone(policy: str) -> None:
    first, second = stand_ins(policy), stand_ins(policy)
    found = first.after(PLACE, None, ERROR)
    second.after(Place(position=3, index=4, seed=5), None, ERROR)
    assert second.after(PLACE, None, ERROR) == found
    assert (found.position, found.failed, found.reason, found.sample) == (
        45,
        (7,),
        "corrupt_media",
        DATASET[found.index],
    )
    assert found.index != 7
    assert found.seed != 99, "its crop and frames are its own"
    assert first.after(Place(position=46, index=7, seed=100), None, ERROR).seed != found.seed


@given(st.integers(0, 2**64 - 1), st.integers(0, 19))
def test_a_stand_in_that_fails_is_followed_by_another(seed: int, index: int) -> None:
    target, place, found, seen = stand_ins(), Place(position=0, index=index, seed=seed), None, [index]
    for _ in range(5):
        found = target.after(place, found, ERROR)
        assert found.failed == tuple(seen)
        assert found.index not in seen
        seen.append(found.index)


def test_the_policy_raise_raises() -> None:
    with pytest.raises(CorruptMedia) as raised:
        stand_ins("raise").after(PLACE, None, ERROR)
    assert raised.value is ERROR


def test_when_nobody_is_left_the_error_is_raised() -> None:
    with pytest.raises(CorruptMedia):
        stand_ins(dataset=DATASET[:1]).after(Place(position=0, index=0, seed=1), None, ERROR)


@pytest.mark.parametrize(("budget", "allowed"), [(0, 0), (3, 3), (0.1, 2), (0.001, 1), (1, 1), (0.5, 10)])
def test_past_the_budget_the_run_ends(budget: float, allowed: int) -> None:
    target = stand_ins(budget=budget)
    for index in range(allowed):
        for _ in range(2):
            target.after(Place(position=index, index=index, seed=index), None, ERROR)
    with pytest.raises(
        PoisonBudgetSpent, match=rf"{allowed + 1} of 20 samples .* at most {allowed} .*: clip of video7"
    ):
        target.after(Place(position=19, index=19, seed=19), None, ERROR)


def test_a_dropped_sample_is_not_asked_for_again_and_its_stand_in_is_the_same_as_if_it_were() -> None:
    places = plan(3).places
    bad = int(places.indices[1])
    place = Place(position=int(places.positions[1]), index=bad, seed=int(places.seeds[1]))
    asked = stand_ins("skip").after(place, None, ERROR)
    knowing = stand_ins("skip")
    assert knowing.of(places) == {}
    knowing.after(Place(position=0, index=bad, seed=1), None, ERROR)
    known = knowing.of(places)
    assert list(known) == [1]
    assert (known[1].index, known[1].seed, known[1].draw) == (asked.index, asked.seed, asked.draw)
    assert known[1].reason == "dropped"
    replacing = stand_ins("replace")
    replacing.after(place, None, ERROR)
    assert replacing.of(places) == {}, "another epoch tries it anew"


def record() -> list[StandIn]:
    target = stand_ins()
    first = target.after(PLACE, None, ERROR)
    return [first, target.after(PLACE, first, ERROR)]


def test_text_brings_a_record_back() -> None:
    assert read(spell(record()), DATASET) == record()
    assert read(None, DATASET) == []
    for text in ("?", "[[1]]", 7, spell(record()).replace("corrupt", "x")[:-9]):
        with pytest.raises(BadInput, match="resume: stand_ins is"):
            read(text, DATASET)
    with pytest.raises(BadInput, match="wanted a record of this dataset"):
        read(spell(record()), DATASET[:1])


def test_a_restart_knows_what_was_bad_and_a_replay_who_stood_in() -> None:
    places = plan(3).places
    place = Place(position=int(places.positions[0]), index=int(places.indices[0]), seed=int(places.seeds[0]))
    stood_in = stand_ins().after(place, None, ERROR)
    spent = stand_ins(budget=1)
    spent.restart([stood_in])
    assert spent.of(places) == {}
    spent.after(place, None, ERROR)
    with pytest.raises(PoisonBudgetSpent):
        spent.after(Place(position=1, index=(place.index + 1) % 20, seed=2), None, ERROR)
    replaying = stand_ins("raise")
    replaying.restart([stood_in], replay=True)
    assert replaying.of(places) == {0: stood_in}


def test_the_list_names_what_was_found_once(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "for it"
    for policy in ("replace", "skip", "raise"):
        target = stand_ins(policy, folder=folder)
        for _ in range(2):
            if policy == "raise":
                with pytest.raises(CorruptMedia):
                    target.after(PLACE, None, ERROR)
            else:
                target.after(PLACE, None, ERROR)
        target.write_found()
        (span,) = read_quarantine(folder).spans
        assert (span.video, span.start_s, span.end_s, span.reason, span.found_by) == (
            "video7",
            7,
            8,
            str(ERROR),
            "train",
        )
    assert [path.name for path in folder.iterdir()] == ["framefeed.quarantine.jsonl"]


def test_a_list_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    target = stand_ins(folder=tmp_path / "file")
    target.after(PLACE, None, ERROR)
    with pytest.raises(StorageFault, match=r"quarantine list in .* cannot be written"):
        target.write_found()


@pytest.mark.parametrize("options", [{"policy": "ignore"}, {"budget": -1}, {"budget": 1.5}, {"budget": float("nan")}])
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="loader: poison"):
        PoisonOptions(**options)
