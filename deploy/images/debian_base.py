"""Makes a base image from Debian's packages, for machines that reach no image registry; knows nothing of framefeed.

python deploy/images/debian_base.py            # as root; makes framefeed-base:bookworm
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import tyro

from framefeed.errors import BadInput, FramefeedError

_PACKAGES = "python3,python3-venv,ca-certificates"
# Lists, documentation and translations: no program reads them.
_LEFT_OUT = (
    "proc",
    "sys",
    "dev",
    "var/cache/apt",
    "var/lib/apt/lists",
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
)


@dataclass(frozen=True, kw_only=True)
class Base:
    """Make a Debian 12 image with Python 3.11."""

    tag: str = "framefeed-base:bookworm"
    """Name of the image."""
    mirror: str = "http://deb.debian.org/debian"
    """Where Debian's packages are."""

    def run(self) -> None:
        """Make it and print its name. Raises BadInput without root, FramefeedError if a tool fails."""
        if os.geteuid():
            raise BadInput(f"base: this is user {os.geteuid()}, wanted root: debootstrap makes device files")
        with tempfile.TemporaryDirectory(prefix="framefeed-base-") as scratch:
            root = Path(scratch) / "root"
            command = ["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", "bookworm", str(root), self.mirror]
            _require(subprocess.run(command, capture_output=True, check=False, timeout=1800), what=command[0])
            import_tree(root, self.tag)
        print(self.tag)


def import_tree(root: Path, tag: str) -> None:
    """A folder as an image of one layer. Raises FramefeedError if tar or docker fails."""
    left_out = [f"--exclude=./{name}/*" for name in _LEFT_OUT]
    pack = ["tar", "--numeric-owner", "--one-file-system", *left_out, "-C", str(root), "-c", "."]
    with subprocess.Popen(pack, stdout=subprocess.PIPE) as tar:
        change = ["--change", "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
        command = ["docker", "import", *change, "-", tag]
        _require(
            subprocess.run(command, stdin=tar.stdout, capture_output=True, check=False, timeout=600),
            what="docker import",
        )
    if tar.returncode:
        raise FramefeedError(f"tar of {root} failed with exit code {tar.returncode}")


def _require(done: subprocess.CompletedProcess[bytes], *, what: str) -> None:
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).decode(errors="replace").split())[-1000:]
        raise FramefeedError(f"{what} failed with exit code {done.returncode}: {said}")


if __name__ == "__main__":
    try:
        tyro.cli(Base).run()
    except FramefeedError as error:
        raise SystemExit(f"debian_base: {error}") from None
