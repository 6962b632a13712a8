"""The examples run as a user runs them: in an environment of their own, made from the wheel, beside a project that has
its own `models/`, `bench/` and `utils.py`. They go on after Ctrl-C; validation counts each sample once.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import venv
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from decode_server.indexing.index import build_index
from deploy.images.build import make_own_wheel
from tests.videos import make_numbered_video

EXAMPLES = Path(__file__).parents[2] / "examples"
# What the environment has beside the wheel: packages of which each is too large to be installed again.
LIBRARIES = ("numpy", "av", "torch", "jax", "lightning")
OWN = {"framefeed", "framefeed_models", "framefeed_bench", "decode_server", "trainer_client"}
WHOSE = """
import sys
from pathlib import Path
import trainer_client.script, framefeed_models.vit, framefeed_bench.decode, models, bench, utils
for module in (models, bench, utils):
    assert Path(module.__file__).is_relative_to(Path.cwd()), module
for name in ("framefeed", "framefeed_models", "framefeed_bench", "decode_server", "trainer_client"):
    assert Path(sys.modules[name].__file__).is_relative_to(sys.prefix), sys.modules[name]
"""
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("examples") / "root"
    for name in "abcde":
        make_numbered_video(root / f"{name}.mp4", frames=60)
    build_index(root)
    return root


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_own_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def bin_(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a new environment with the wheel."""
    prefix = tmp_path_factory.mktemp("environment")
    venv.create(prefix, symlinks=True)
    specs = [find_spec(name) for name in LIBRARIES]
    folders = {str(Path(spec.origin).parents[1]) for spec in specs if spec is not None and spec.origin is not None}
    site_packages = next(prefix.glob("lib/python3*/site-packages"))
    (site_packages / "libraries.pth").write_text("\n".join(sorted(folders)))
    pip = (sys.executable, "-m", "pip", "--python", str(prefix / "bin/python"), "install", "--quiet")
    subprocess.run([*pip, "--no-deps", "--no-index", "--ignore-installed", str(wheel)], check=True, timeout=100)
    return prefix / "bin"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's folder: the examples are its scripts."""
    project = tmp_path / "project"
    shutil.copytree(EXAMPLES, project, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("models/__init__.py", "bench/__init__.py", "utils.py"):
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).touch()
    return project


def _begin(bin_: Path, *command: object, cwd: Path, **more: str) -> subprocess.Popen[str]:
    words = [str(bin_ / "python"), *map(str, command)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | more
    return subprocess.Popen(words, cwd=cwd, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def _done(bin_: Path, *command: object, cwd: Path, **environment: str) -> str:
    process = _begin(bin_, *command, cwd=cwd, **environment)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    return out


def test_the_wheel_has_names_of_its_own_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        top = {name.partition("/")[0] for name in archive.namelist()}
    assert {name for name in top if not name.endswith(".dist-info")} == OWN


def test_a_project_beside_it_keeps_its_own_modules(bin_: Path, project: Path) -> None:
    _done(bin_, "-c", WHOSE, cwd=project)
    verbs = _done(bin_, "-m", "framefeed.cli", "--help", cwd=project)
    assert "bench decode" in verbs
    assert "not installed" not in verbs


@pytest.mark.parametrize(("example", "needs"), [("plain_numpy.py", "numpy"), ("jax_iterator.py", "jax")])
def test_an_iterator_s_example_prints_three_batches(
    example: str, needs: str, root: Path, bin_: Path, project: Path
) -> None:
    pytest.importorskip(needs)
    assert len(_done(bin_, example, root, cwd=project).splitlines()) == 3


def test_lightning_s_example_goes_on_after_its_last_checkpoint(root: Path, bin_: Path, project: Path) -> None:
    pytest.importorskip("lightning")
    for epoch in range(2):
        said = _done(bin_, "lightning_module.py", root, cwd=project, EPOCHS=str(epoch + 1))
        steps = [line.partition(" loss ")[0] for line in said.splitlines() if " loss " in line]
        assert steps == [f"epoch {epoch} step {3 * epoch + i}" for i in range(3)]


def test_fine_tuning_goes_on_after_ctrl_c_by_what_was_used(root: Path, bin_: Path, project: Path) -> None:
    command = ("finetune_csv.py", root, "clips.csv")
    (project / "clips.csv").write_text("video,label\na,x\nb.mp4,x\n")
    process = _begin(bin_, *command, cwd=project)
    assert process.communicate(timeout=60)[1].endswith(
        "1 of 2 rows of clips.csv cannot be used; row 1: 'b.mp4' [0, 1) s: not in the root; did you mean 'b'?\n"
    )
    assert process.returncode == 1
    (project / "clips.csv").write_text("video,label\na,x\nb,x\nc,y\nd,y\ne,y\n")
    process = _begin(bin_, *command, cwd=project, EPOCHS="4000")
    assert process.stdout is not None
    first = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    rest, err = process.communicate(timeout=60)
    assert process.returncode != 0
    steps = [int(line.split()[1]) for line in (first + rest).splitlines() if line.startswith("step ")]
    assert steps == list(range(len(steps))), err
    epochs = str((len(steps) + 2) * 4 // 5 + 1)
    said = _done(bin_, *command, cwd=project, EPOCHS=epochs).splitlines()
    assert said[0].startswith(f"step {len(steps)} ")
    assert said[-1].startswith("accuracy ")
    assert said[-1].endswith(" of 5")
