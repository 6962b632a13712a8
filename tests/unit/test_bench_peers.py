"""The peers of the decode bench are found where they lie, with their versions, and none is taken for another."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

import pytest

from framefeed.errors import BadInput
from framefeed_bench.contestants import InstalledPeer, PeerStart, installed_peers


def distribution(folder: Path, name: str, version: str) -> None:
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_a_peer_in_a_folder_is_found_beside_the_one_whose_package_it_has_as_well(tmp_path: Path) -> None:
    distribution(tmp_path / "decord2", "decord2", "3.4.0")
    found = installed_peers(tmp_path)
    assert found["decord2"] == InstalledPeer(module="by_decord", version="3.4.0", folder=tmp_path / "decord2")
    assert found["decord"].folder is None
    assert found["decord"].version == metadata.version("decord")
    assert "video-reader-rs" not in found


def test_a_folder_without_what_it_is_called_for_is_refused(tmp_path: Path) -> None:
    distribution(tmp_path / "video-reader-rs", "other", "1.0")
    with pytest.raises(BadInput, match=r"has no video-reader-rs, wanted what pip install --target puts there"):
        installed_peers(tmp_path)


def test_two_distributions_of_one_package_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "packages_distributions", lambda: {"decord": ["decord", "decord2"]})
    assert {"decord", "decord2"}.isdisjoint(installed_peers(tmp_path))


def test_a_peer_runs_from_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    PeerStart(peer=InstalledPeer(module="by_opencv", version="1", folder=tmp_path), tasks=[])()
    assert sys.path[0] == str(tmp_path)
