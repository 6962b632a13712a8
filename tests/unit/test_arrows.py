"""The arrows between packages, and the names that say nothing: read from every file by ast (DESIGN §2)."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAY_IMPORT = {
    "framefeed": set(),
    "framefeed_models": set(),
    "decode_server": {"framefeed"},
    "trainer_client": {"framefeed", "framefeed_models"},
}
# Within a package: each folder may import those before it in its line. A folder in a folder that has a place of its own
# is apart from the rest of it: recipes compose what trains and what scores, and neither knows them.
INNER_ORDERS = {
    "decode_server": (
        ("media", "sources", "clips", "indexing", "chunking"),
        ("media", "sources", "clips", "service"),
        ("media", "sources", "clips", "show"),
    ),
    "trainer_client": (
        ("measures", "fleet", "transports", "feed", "training", "evaluate", "training/recipes"),
        ("measures", "fleet", "transports", "feed", "training", "evaluate", "extract"),
        ("feed", "training", "adapters"),
        ("text", "training", "evaluate", "training/recipes"),
        ("datasets", "training", "evaluate", "training/recipes"),
        ("fleet", "transports", "feed", "datasets", "evaluate", "extract"),
    ),
    "framefeed_models": (("weights",),),
}
FOLDERS = {package: ROOT / package for package in MAY_IMPORT} | {"framefeed_models": ROOT / "models/framefeed_models"}
OURS = set(MAY_IMPORT) | {"framefeed_bench", "tests"}
WITHOUT_TORCH = {"framefeed", "decode_server"}
ONE_FILE = {
    "zmq": {
        "decode_server/service/listeners/curve.py",
        "decode_server/service/listeners/gateway/zmq_deliveries.py",
        "decode_server/service/listeners/gateway/zmq_gateway.py",
        "decode_server/service/listeners/gateway/zmq_inbound.py",
        "decode_server/service/listeners/gateway/zmq_peers.py",
        "decode_server/service/listeners/gateway/zmq_router.py",
        "decode_server/service/listeners/gateway/zmq_zap.py",
        "trainer_client/transports/zmq_link.py",
        "trainer_client/transports/zmq_transport.py",
    },
    "grpc": {
        "decode_server/service/listeners/gateway/grpc_gateway.py",
        "decode_server/service/listeners/gateway/grpc_auth.py",
        "decode_server/service/listeners/gateway/grpc_server.py",
        "trainer_client/transports/grpc_transport.py",
    },
    "lightning": {"trainer_client/adapters/lightning_data.py"},
    "onnxruntime": {"trainer_client/training/onnx_export/onnx_file.py"},
    "pyarrow": {"trainer_client/extract/shard_files.py"},
    "transformers": {"trainer_client/adapters/huggingface_trainer.py"},
    "jax": {"trainer_client/adapters/jax_batches.py"},
    "tensorflow": {"trainer_client/adapters/tf_dataset.py"},
    "ray": {"framefeed/cli/fleet/ray_plane.py"},
    "wandb": {"trainer_client/training/watch/curves.py"},
}
SAYS_NOTHING = {"utils.py", "util.py", "common.py", "helpers.py", "base.py", "misc.py"}


def _files() -> list[Path]:
    return [path for package in MAY_IMPORT for path in sorted(FOLDERS[package].rglob("*.py"))]


@cache
def _imports(path: Path) -> tuple[tuple[str, int], ...]:
    """The first part of each name that a file imports, and the line."""
    return tuple(_found(path))


def _found(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno} imports relatively"
            yield (node.module or "").split(".")[0], node.lineno


@pytest.mark.parametrize("path", _files(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_import_against_the_arrows(path: Path) -> None:
    package = next(package for package, folder in FOLDERS.items() if path.is_relative_to(folder))
    for name, line in _imports(path):
        allowed = MAY_IMPORT[package] | {package}
        assert name not in OURS or name in allowed, f"{path}:{line} imports {name}"
        assert name != "torch" or package not in WITHOUT_TORCH, f"{path}:{line} imports torch"


@pytest.mark.parametrize("package", INNER_ORDERS)
def test_no_import_against_the_arrows_within_a_package(package: str) -> None:
    folders = {path.name for path in FOLDERS[package].iterdir() if (path / "__init__.py").exists()}
    layers = {layer for order in INNER_ORDERS[package] for layer in order}
    assert folders == {layer for layer in layers if "/" not in layer}
    before = {(a, b) for order in INNER_ORDERS[package] for i, b in enumerate(order) for a in order[:i]}
    for path in (path for folder in folders for path in (FOLDERS[package] / folder).rglob("*.py")):
        here = _layer(path.relative_to(FOLDERS[package]).parts, layers)
        for name in re.findall(rf"^from {package}\.([a-z_.]+)", path.read_text(), flags=re.MULTILINE):
            there = _layer(tuple(name.split(".")), layers)
            assert there not in layers or there == here or (there, here) in before, f"{path} imports {name}"


def _layer(parts: tuple[str, ...], layers: set[str]) -> str:
    inner = "/".join(parts[:2])
    return inner if inner in layers else parts[0]


def test_the_contract_imports_no_guest() -> None:
    contract = [path for path in (ROOT / "framefeed").rglob("*.py") if "cli" not in path.relative_to(ROOT).parts]
    assert len(contract) > 10
    assert [path for path in contract if re.search(r"\bframefeed\.cli\b", path.read_text())] == []


def test_there_are_files_to_look_at() -> None:
    assert len(_files()) > 40


@pytest.mark.parametrize("library", ONE_FILE)
def test_an_outside_library_stays_in_its_files(library: str) -> None:
    users = {path.relative_to(ROOT).as_posix() for path in _files() for name, _ in _imports(path) if name == library}
    users -= {"framefeed/v1/decode_pb2_grpc.py"}  # generated
    assert users == ONE_FILE[library]


def test_no_file_has_a_name_that_says_nothing() -> None:
    assert [path for path in _files() if path.name in SAYS_NOTHING] == []


def test_every_dependency_has_its_sentence() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    block = text[text.index("dependencies = [") : text.index("[project.scripts]")]
    lines = [line for line in block.splitlines() if re.match(r'\s+"[a-z]', line)]
    assert len(lines) > 10
    assert [line for line in lines if "# " not in line] == []


def test_decode_server_imports_where_torch_cannot_be_imported() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import decode_server.service.serve, decode_server.service.workers.worker\n"
        "import decode_server.chunking.chunk, decode_server.indexing.index\n"
        "assert not any(name.split('.')[0] in ('framefeed_models', 'trainer_client') for name in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("module", "without"),
    [
        ("decode_server.service.serve", ("av", "grpc", "google", "uvloop", "zmq", "torch")),
        ("decode_server.service.listeners.gateway.zmq_gateway", ("av", "grpc", "google", "uvloop", "torch")),
        ("decode_server.service.listeners.gateway.grpc_gateway", ("av", "zmq", "torch")),
        ("decode_server.service.workers.worker", ("grpc", "google", "uvloop", "zmq", "torch")),
    ],
)
def test_a_process_of_a_server_loads_no_library_that_only_others_need(module: str, without: tuple[str, ...]) -> None:
    """Each is attack surface, memory and time to start: FFmpeg is the workers', ZeroMQ and gRPC the gateways'."""
    code = f"import sys, {module}\nassert not set(sys.modules) & set({without}), sorted(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_client_s_core_is_numpy_only() -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'jax', 'tensorflow'): sys.modules[name] = None\n"
        "import trainer_client.loader, trainer_client.views"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
