"""A verb that is refused leaves nothing behind that was not there: no empty folder, no half of a result."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from framefeed.cli.command import main
from framefeed.new_folder import new_folder
from tests.unit.cli.mistaken_place import furnish

TRAIN = "train mae root --out new/run --preset tiny --device cpu "
REFUSED = (
    "index nowhere --index new",
    "index empty --index new",
    "index junk --index new/deep",
    "index plain --index new --report no/r",
    "index plain --index new --max-gap-s 0",
    "chunk nowhere --out new",
    "chunk empty --out new/deep",
    "chunk junk --out new/deep",
    "chunk plain --out new --encoder-options crf",
    "chunk plain --out new --report no/r",
    "check root junk/a.mp4 --fixed new --report new.json",
    "check root nowhere --fixed new",
    "verify plain --report new",
    "show root --video b --out new.png",
    "export nowhere --out new",
    "extract nowhere root --out new",
    "eval nowhere root --data.kind table --data.path nowhere --out new.json",
    "keys file/new name",
    "keys new a/b",
    "targets nowhere --out new.json",
    "demo --videos file --out new",
    "demo --out new --seconds 0",
    "demo videos new --videos 0",
    "serve root --metrics-port PORT --bind tcp://127.0.0.1:0 --registry new",
    TRAIN + "--metrics-port PORT",
    TRAIN + "--frames 3",
    TRAIN + "--servers tcp://127.0.0.1",
    TRAIN + "--local-cpus 1000",
    TRAIN + "--init-from nowhere",
    TRAIN + "--prefetch-mib 1 --batch-clips 1000",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("refused")
    furnish(place)
    return place


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "place")


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


@pytest.mark.parametrize("typed", REFUSED)
def test_what_is_refused_leaves_nothing(
    typed: str, place: Path, taken_port: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    before = set(place.rglob("*"))
    assert main(typed.replace("PORT", str(taken_port)).split()) in (1, 2)
    assert capsys.readouterr().err.startswith("framefeed: ")
    assert set(place.rglob("*")) == before


def refuse(folder: Path, file: str) -> None:
    assert folder.is_dir()
    if file:
        (folder / file).write_text("somebody's")
    raise ValueError("refused")


def test_a_new_folder_goes_again_with_what_was_made_for_it_alone(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()

    def refused_in(folder: Path, file: str = "") -> None:
        with pytest.raises(ValueError, match="refused"), new_folder(tmp_path / folder):
            refuse(tmp_path / folder, file)

    refused_in(Path("old/a/b"))
    assert list(tmp_path.rglob("*")) == [tmp_path / "old"]
    refused_in(Path("old"))
    assert (tmp_path / "old").is_dir()
    refused_in(Path("old/a/b"), "../file")
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "old", tmp_path / "old/a", tmp_path / "old/a/file"]
    with new_folder(tmp_path / "old/c"):
        pass
    assert (tmp_path / "old/c").is_dir()
