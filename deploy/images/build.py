"""Builds the images `decode` and `train` from this tree with the `docker` command; knows nothing of what runs in them.

    python deploy/images/build.py decode
    python deploy/images/build.py train --base nvcr.io/nvidia/cuda-with-python:3.11
    python deploy/images/build.py decode --base framefeed-base:bookworm --wheels wheels/   # no network

Wheels come from pip, those of which requirements/*.lock has the hashes; with --wheels from a folder that is there. The
build itself fetches nothing but the base.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from framefeed.errors import BadInput, FramefeedError

ROOT = Path(__file__).resolve().parents[2]
Target = Literal["decode", "train"]
_PIP = (sys.executable, "-m", "pip")
_SOURCES = ("framefeed", "decode_server", "trainer_client", "models", "bench", "pyproject.toml", "README.md", "LICENSE")
_EPOCH_S = "315532800"  # 1980, the first time that a wheel can hold: the same tree gives the same wheel


@dataclass(frozen=True, kw_only=True)
class Build:
    """Build an image of this tree."""

    target: Annotated[Target, tyro.conf.Positional]
    """decode: a server, without torch. train: a trainer."""
    base: str = "python:3.11-slim-bookworm"
    """Image with Python 3.11 and venv; for GPUs one with NVIDIA's libraries, if torch's wheel does not bring them."""
    tag: str = ""
    """Name of the image. Default: framefeed-TARGET:latest."""
    wheels: Path | None = None
    """Folder of wheels for the whole image, this tree's included. Default: made by pip first."""
    no_cache: bool = False
    """Build every layer anew."""

    def run(self) -> None:
        """Build it and print its name. Raises BadInput for a folder without wheels, FramefeedError if a tool fails."""
        with tempfile.TemporaryDirectory(prefix="framefeed-image-") as scratch:
            context = Path(scratch)
            wheels = self.wheels or make_wheels(self.target, context / "all")
            sort_wheels(wheels, context / "wheels")
            shutil.copy(ROOT / "deploy/images/Dockerfile", context)
            call(self.command(context))
        print(self.name)

    @property
    def name(self) -> str:
        """The image's name with its tag."""
        return self.tag or f"framefeed-{self.target}:latest"

    def command(self, context: Path) -> list[str]:
        """The `docker build` of a context; it has no secret in it, as each layer would keep it."""
        options = ["--quiet", *(["--no-cache"] if self.no_cache else []), "--build-arg", f"BASE={self.base}"]
        return ["docker", "build", *options, "--target", self.target, "--tag", self.name, str(context)]


def make_wheels(target: Target, out: Path) -> Path:
    """Fill a folder with all wheels of an image, those of the lock files. Asks pip's package index.

    Where it has those already only framefeed's own is made. Raises FramefeedError if pip fails.
    """
    locks = [ROOT / f"requirements/{name}.lock" for name in (target, "cuda")]
    wanted = hashlib.sha256(b"".join(lock.read_bytes() for lock in locks)).hexdigest()
    stamp = out / "made_of"
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(out, ignore_errors=True)
        _fetch_locked(locks[0], out)
        if any(map(is_for_cuda, out.glob("torch-*.whl"))):
            _fetch(locks[1], out)
    for own in out.glob("framefeed-*.whl"):
        own.unlink()
    make_own_wheel(out)
    stamp.write_text(wanted)
    return out


def make_own_wheel(out: Path) -> Path:
    """Make framefeed's wheel of this tree, without an index. Raises FramefeedError if pip fails."""
    with tempfile.TemporaryDirectory(prefix="framefeed-source-") as scratch:
        source = Path(scratch)
        for name in _SOURCES:  # a copy: building in the tree leaves files that a later wheel would take along
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, source)
        call([*_PIP, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(out), str(source)])
    return next(out.glob("framefeed-*.whl"))


def is_for_cuda(wheel: Path) -> bool:
    """Whether a build of torch needs NVIDIA's libraries from wheels of their own."""
    with zipfile.ZipFile(wheel) as archive:
        metadata = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        needs = [line for line in archive.read(metadata).decode().splitlines() if line.startswith("Requires-Dist:")]
    return any("nvidia" in line or "cuda" in line for line in needs)


def _fetch_locked(lock: Path, out: Path) -> None:
    """Fetch all that a lock file names, torch first from where pip looks beside its index (`find-links`): a build for
    the CPU may lie there, whose hash is in the file as well, and pip prefers the index's whatever lies there.
    """
    torch, others = split_lock(lock.read_text())
    with tempfile.TemporaryDirectory(prefix="framefeed-lock-") as scratch:
        for name, text in (("torch", torch), ("others", others)):
            (Path(scratch) / name).write_text(text)
        if torch:
            try:
                _fetch(Path(scratch) / "torch", out, "--no-index")
            except FramefeedError:  # there is none
                _fetch(Path(scratch) / "torch", out)
        _fetch(Path(scratch) / "others", out)


def split_lock(text: str) -> tuple[str, str]:
    """A lock file's requirement of torch with its hashes, and all others."""
    torch: list[str] = []
    others: list[str] = []
    kept = others
    for line in text.splitlines(keepends=True):
        if not line.startswith(" "):
            kept = torch if line.startswith("torch==") else others
        kept.append(line)
    return "".join(torch), "".join(others)


def _fetch(lock: Path, out: Path, *words: str) -> None:
    options = ["--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:", "--wheel-dir", str(out)]
    call([*_PIP, "wheel", *options, *words, "--requirement", str(lock)])


def sort_wheels(source: Path, to: Path) -> None:
    """Link or copy a folder's wheels to TO/own and TO/libraries. Raises BadInput unless it has one of framefeed."""
    wheels = sorted(source.glob("*.whl"))
    own = [wheel for wheel in wheels if wheel.name.startswith("framefeed-")]
    if len(own) != 1:
        raise BadInput(f"--wheels {source} has {len(own)} of framefeed-*.whl; wanted one, and all that it needs")
    for wheel in wheels:
        folder = to / ("own" if wheel in own else "libraries")
        folder.mkdir(parents=True, exist_ok=True)
        try:
            os.link(wheel, folder / wheel.name)
        except OSError:  # another file system
            shutil.copy(wheel, folder)


def call(command: list[str]) -> None:
    """Run a tool. Raises FramefeedError with the end of what it said if it fails."""
    environment = {**os.environ, "SOURCE_DATE_EPOCH": _EPOCH_S}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", env=environment, check=False, timeout=3600
        )
    except FileNotFoundError:
        raise FramefeedError(f"{command[0]} is not installed; wanted on the PATH") from None
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())[-1000:]
        raise FramefeedError(f"{' '.join(command[:3])} failed with exit code {done.returncode}: {said}")


if __name__ == "__main__":
    try:
        tyro.cli(Build).run()
    except FramefeedError as error:
        raise SystemExit(f"build: {error}") from None
