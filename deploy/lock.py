"""`python -m deploy.lock [WHEEL ...]`: writes requirements/*.lock, with hashes, from pyproject.toml by uv.

Each is whole, so that pip installs it without looking for dependencies. What only torch's CUDA build needs has a file
of its own: `make` installs it where that build is the one that pip found. A WHEEL is another build of a locked version,
as torch's for the CPU from its own index, whose hash is to be good as well. It installs nothing.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "requirements"
BUILD = "build.in"  # what `make` builds the editable install with
EXTRAS = {"decode": (), "train": ("trainer",), "dev": ("trainer", "bench", "dev", "clip")}
UNUSED = ("torchvision", "timm")  # open_clip_torch wants them for what is not used of it: its vocabulary file is
CUDA = ("nvidia-", "cuda-", "triton")
HEADER = "# Made by `python -m deploy.lock`; with another version of a library in it, run that again.\n"


def resolve(name: str) -> list[str]:
    """The requirements of a lock file, each with its hashes, at the versions that stand there. Raises if uv fails."""
    lock = FOLDER / f"{name}.lock"
    extras = [word for extra in EXTRAS[name] for word in ("--extra", extra)]
    inputs = [str(FOLDER / BUILD)] if extras else []  # an image has what was built
    before = FOLDER / "dev.lock"  # one version of each library for all
    pins = [line.split(" ")[0] for line in before.read_text().splitlines() if "==" in line] if before.exists() else []
    command = [
        *("uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--generate-hashes"),
        *("--no-annotate", "--no-header", "--constraint", "-", *extras, "pyproject.toml", *inputs),
        *(word for name in UNUSED for word in ("--no-emit-package", name)),
    ]
    done = subprocess.run(command, cwd=ROOT, input="\n".join(pins), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"lock: {lock.name}: uv failed: {done.stderr.strip()}")
    found: list[str] = []
    for line in done.stdout.splitlines(keepends=True):
        if line.startswith(" "):
            found[-1] += line
        else:
            found.append(line)
    return found


def with_wheels(requirements: Sequence[str], wheels: Sequence[Path]) -> list[str]:
    """The same, with the hashes of these wheels beside those of the same name and version."""
    hashes: dict[str, str] = {}
    for wheel in wheels:
        name, version = wheel.name.split("-")[:2]
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        hashes[f"{name}=={version.partition('+')[0]}"] = f" \\\n    --hash=sha256:{digest}\n"
    return [one.rstrip("\n") + hashes.get(one.split()[0], "\n") for one in requirements]


def main() -> None:
    """Write all files, those of the most libraries first."""
    wheels = [Path(name) for name in sys.argv[1:]]
    cuda: list[str] = []
    for name in ("dev", "train", "decode"):
        found = with_wheels(resolve(name), wheels)
        cuda = cuda or [one for one in found if one.startswith(CUDA)]
        (FOLDER / f"{name}.lock").write_text(HEADER + "".join(one for one in found if not one.startswith(CUDA)))
    (FOLDER / "cuda.lock").write_text(HEADER + "".join(cuda))


if __name__ == "__main__":
    main()
