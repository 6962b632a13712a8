"""What a virtual machine needs to run framefeed's servers: this Python and these packages on a disk of its own.

Files keep the paths that they have here. It knows no kernel and no network.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
_PACKAGES = ("framefeed", "decode_server")
_NEVER_RUN = ("test", "tests", "idlelib", "tkinter", "ensurepip", "lib2to3", "site-packages", "config-*")
_LEFT_OUT = shutil.ignore_patterns(*_NEVER_RUN)
_MOUNT_POINTS = ("proc", "sys", "dev", "tmp", "run", "mnt")
_WHAT_IS_LOADED = """
import json, os, re, sys
import decode_server.service.serve, decode_server.service.server, decode_server.service.workers.worker
import decode_server.service.listeners.gateway.zmq_gateway, decode_server.service.listeners.zmq_listener
from importlib.metadata import distribution, entry_points
from framefeed.cli.verbs import find_verb, parse_verb
parse_verb(*find_verb({point.name: point for point in entry_points(group="framefeed.verbs")}, ["serve", "/"]))
files = [m.__file__ for m in sys.modules.values() if getattr(m, "__file__", None)]
sites = sorted({re.match(r".*/site-packages/[^/]+", f)[0] for f in files if "/site-packages/" in f})
maps = sorted({line.split()[-1] for line in open("/proc/self/maps") if ".so" in line})
sites.append(os.path.abspath(distribution("framefeed")._path))
print(json.dumps({"sites": sites, "maps": maps, "stdlib": json.__file__.rpartition("/json/")[0]}))
"""


def make_disk(path: Path, scratch: Path) -> Path:
    """Write an ext4 file system of some 400 MiB to a file."""
    said = subprocess.run(
        [sys.executable, "-c", _WHAT_IS_LOADED], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    loaded = json.loads(said.stdout)
    tree = scratch / "tree"
    for folder in _MOUNT_POINTS:
        (tree / folder).mkdir(parents=True)
    _copy_folder(Path(loaded["stdlib"]), tree)
    for package in _PACKAGES:
        shutil.copytree(
            ROOT / package, tree / str(ROOT / package).lstrip("/"), ignore=shutil.ignore_patterns("recorded")
        )
    for site in map(Path, loaded["sites"]):
        for part in (site, site.with_name(f"{site.name}.libs"), site.with_name(f"py{site.name}.libs")):
            if part.is_dir():
                _copy_folder(part, tree)
            elif part.is_file():
                _copy_file(part, tree)
    for file in (*map(Path, loaded["maps"]), Path(sys.executable), *_loaders()):
        _copy_file(file, tree)
        for link in file.parent.glob(f"{file.name.partition('.so')[0]}.so*"):  # by which name it is looked for
            _copy_file(link, tree)
    subprocess.run(
        ["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", str(tree), str(path), "450M"],
        check=True,
        capture_output=True,
        timeout=120,
    )
    shutil.rmtree(tree)
    return path


def _loaders() -> list[Path]:
    """The program that starts programs, by the path that they name."""
    return [path for path in (Path("/lib64/ld-linux-x86-64.so.2"),) if path.exists()]


def _copy_folder(folder: Path, tree: Path) -> None:
    there = tree / str(folder).lstrip("/")
    if not there.exists():
        shutil.copytree(folder, there, ignore=_LEFT_OUT)


def _copy_file(file: Path, tree: Path) -> None:
    there = tree / str(file).lstrip("/")
    if not there.exists():
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(os.path.realpath(file), there)
