"""The lock files hold what pyproject.toml asks for, and no wheel without a hash."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy.images.build import ROOT, split_lock
from deploy.lock import CUDA, EXTRAS, FOLDER, with_wheels

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def locked(name: str) -> dict[str, str]:
    """The version of each library of a lock file."""
    lines = (FOLDER / f"{name}.lock").read_text().splitlines()
    pins = [line.split()[0].split("==") for line in lines if not line.startswith((" ", "#"))]
    return {canonicalize_name(library): version for library, version in pins}


@pytest.mark.parametrize("name", list(EXTRAS))
def test_what_the_project_asks_for_is_locked_at_a_version_that_it_takes(name: str) -> None:
    asked = [*PROJECT["dependencies"]]
    for extra in EXTRAS[name]:
        asked += PROJECT["optional-dependencies"][extra]
    versions = locked(name)
    for requirement in map(Requirement, asked):
        assert versions[canonicalize_name(requirement.name)] in requirement.specifier, requirement


@pytest.mark.parametrize("name", [*EXTRAS, "cuda"])
def test_each_has_hashes(name: str) -> None:
    text = (FOLDER / f"{name}.lock").read_text()
    pins = text.count("==") - text.count("=='")
    assert pins > 10
    for block in text.split("\n"):
        if block and not block.startswith((" ", "#")):
            assert block.endswith("\\"), f"{block} has no hash"


def test_all_files_agree_and_only_one_of_them_has_what_cuda_needs() -> None:
    everything = locked("dev")
    for name in EXTRAS:
        assert locked(name).items() <= everything.items()
        assert not [library for library in locked(name) if library.startswith(CUDA)]
    assert all(library.startswith(CUDA) for library in locked("cuda"))


def test_another_build_of_a_locked_version_adds_its_hash_and_nothing_else(tmp_path: Path) -> None:
    wheel = tmp_path / "torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl"
    wheel.write_bytes(b"")
    digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    ours, other = "torch==2.13.0 \\\n    --hash=sha256:aa\n", "numpy==2.4.6 \\\n    --hash=sha256:bb\n"
    changed = f"torch==2.13.0 \\\n    --hash=sha256:aa \\\n    --hash=sha256:{digest}\n"
    assert with_wheels([ours, other], [wheel]) == [changed, other]


def test_torch_is_told_from_the_other_libraries_of_a_lock() -> None:
    text = (FOLDER / "train.lock").read_text()
    torch, others = split_lock(text)
    assert re.fullmatch(r"torch==\S+ \\\n(    --hash=sha256:[0-9a-f]{64}( \\)?\n)+", torch)
    assert "torch==" not in others
    assert sorted((torch + others).splitlines()) == sorted(text.splitlines())
    assert split_lock((FOLDER / "decode.lock").read_text())[0] == ""
