"""Every option that takes a number refuses one out of its limits, before anything is done, by its name as typed."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

import pytest

from decode_server.indexing.index import build_index
from framefeed.cli.command import main
from framefeed.cli.option_errors import as_typed
from framefeed.cli.option_fields import OptionField, option_fields
from framefeed.errors import BadInput, fields_named
from tests.videos import make_numbered_video
from trainer_client.training.recipes.catalogue import find_recipe
from trainer_client.training.recipes.recipe import Recipe

# A command that is refused for something else, so that nothing runs where a number is taken.
COMMANDS = {
    "chunk": "nowhere --advise --batch-clips 1 --step-s 1 --storage-mb-per-s 1",
    "demo": "--videos file",
    "demo videos": "file",
    "doctor": "nowhere",
    "eval": "nowhere root --data.kind table --data.path nowhere",
    "extract": "nowhere root --out file",
    "fleet up": "nowhere --registry file",
    "healthcheck": "nourl",
    "index": "nowhere",
    "serve": "nowhere",
    "show": "nowhere --index 1 --samples nowhere",
    "show run": "nowhere --step 1",
    "targets": "nowhere --out file",
    "top": "--registry nowhere",
    "verify": "nowhere",
}
TRAIN = "train mae root --out file --preset tiny"
NUMBERS = ("N", "X")
TOO_SMALL, NO_NUMBER = "-1", "nan"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("options")
    make_numbered_video(place / "root/a.mp4", frames=10)
    build_index(place / "root")
    (place / "file").write_text("x")
    return place


def numbers(fields: tuple[OptionField, ...]) -> list[OptionField]:
    return [one for one in fields if one.flags and one.value.replace("…", "").split()[:1] in ([n] for n in NUMBERS)]


def refuse_each(command: str, fields: tuple[OptionField, ...], capsys: pytest.CaptureFixture[str]) -> None:
    checked = numbers(fields)
    assert checked
    for one in checked:
        values = one.value.replace("…", "").split()
        for bad in (TOO_SMALL, NO_NUMBER) if "X" in values else (TOO_SMALL,):
            assert main([*command.split(), one.name, *[bad] * len(values)]) in (1, 2)
            said = capsys.readouterr().err
            assert f"{one.name} " in said, f"{command} {one.name} {bad}: {said}"
            assert said.count("\n") == 1


@pytest.mark.parametrize("verb", COMMANDS)
def test_a_number_out_of_its_limits_is_refused_by_the_option_as_typed(
    verb: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    (point,) = entry_points(group="framefeed.verbs", name=verb)
    refuse_each(f"{verb} {COMMANDS[verb]}", option_fields(point.load()), capsys)


@pytest.mark.slow
def test_so_is_one_of_training(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    refuse_each(TRAIN, option_fields(Recipe, find_recipe("mae")), capsys)


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("--io-threads 100", "--io-threads is 100, wanted 1 to "),
        ("--micro-clips 3 --batch-clips 4", "--micro-clips is 3, wanted what divides the 4 clips of a rank"),
        ("--order some", "--order is 'some', wanted 'strict' or 'window:W'"),
        ("--poison-servers 0", "--poison-servers is 0, wanted at least 1"),
        ("--poison-budget 1.5", "--poison-budget is 1.5, wanted a whole number or a share from 0 to 1"),
        ("--watchdog-s 0", "--watchdog-s is 0, wanted more than 0 seconds"),
        ("--attempt-s 0", "--attempt-s is 0, wanted more than 0 seconds"),
        ("--affinity-slack 0", "--affinity-slack is 0, wanted more than 0"),
        ("--look-every-s 0", "--look-every-s is 0, wanted more than 0 seconds"),
        ("--local-cpus 0", "--local-cpus is 0, wanted at least 1"),
        ("--average-decay 1", "--average-decay is 1, wanted 0 or more and less than 1"),
        ("--keep-checkpoints 0", "--keep-checkpoints is 0, wanted at least 1"),
        ("--metrics-port 70000", "--metrics-port is 70000, wanted 0 to 65535"),
        ("--blur-px 3 1", "--blur-px is 3 to 1, wanted 0 < least <= largest <= 20"),
        ("--buckets --lengths 4 2", "--lengths is (4, 2), wanted numbers from 1 to 512 that grow"),
        ("--buckets --frames-per-s 0", "--frames-per-s is 0, wanted a positive number"),
        ("--longest-px 1", "--longest-px is 1, wanted 2 to 4096"),
        ("--crop-scale 2 1", "--crop-scale is 2 1, wanted 0 < low <= high <= 1"),
        ("--tls-cert a", "--tls-cert is given without tls_key, wanted both or neither"),
        ("--frames 100000", "--frames is 100000, wanted at most 512"),
        ("--size-px 80000", "--size-px is 80000, wanted at most 4096"),
    ],
)
def test_what_belongs_to_another_s_field_is_said_of_the_option(
    typed: str, says: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    assert main([*TRAIN.split(), *typed.split()]) == 2
    assert capsys.readouterr().err.startswith(f"framefeed: {says}")


def test_python_reads_the_field_and_who_renames_it_another() -> None:
    def refused(field: str) -> BadInput:
        return BadInput("is 0, wanted 1", of="loader", field=field)

    assert str(refused("stall_s")) == "loader: stall_s is 0, wanted 1"
    with pytest.raises(BadInput, match=r"^loader: watchdog_s is 0, wanted 1$"), fields_named(stall_s="watchdog_s"):
        raise refused("stall_s")
    with pytest.raises(BadInput, match=r"^loader: other is 0, wanted 1$"), fields_named(stall_s="watchdog_s"):
        raise refused("other")
    assert str(refused("steps").said_by("rank 1")) == "rank 1: loader: steps is 0, wanted 1"


def test_an_option_is_named_only_where_one_alone_can_be_meant() -> None:
    fields = option_fields(Recipe, find_recipe("mae"))
    said = BadInput("is 0", of="x", field="io_threads").said_by("rank 1")
    assert str(as_typed(said, fields)) == "rank 1: --io-threads is 0"
    for field in ("", "no_option"):
        error = BadInput("is 0", of="x", field=field)
        assert as_typed(error, fields) is error
    assert str(as_typed(BadInput("is 0", field="root"), fields)) == "ROOT is 0"
