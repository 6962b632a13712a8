"""The committed stubs are what proto/ generates, and the proto says what the contract says."""

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from framefeed.clip import ClipInfo
from framefeed.request import ClipRequest
from framefeed.v1 import decode_pb2

ROOT = Path(__file__).parents[2]
STUBS = ["decode_pb2.py", "decode_pb2.pyi", "decode_pb2_grpc.py"]


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stubs")
    environment = {"PYTHON": sys.executable, "PATH": "/usr/bin:/bin"}
    subprocess.run([str(ROOT / "proto/generate.sh"), str(out)], check=True, env=environment)
    return out / "framefeed/v1"


@pytest.mark.parametrize("name", STUBS)
def test_stub_is_up_to_date(generated: Path, name: str) -> None:
    assert (ROOT / "framefeed/v1" / name).read_text() == (generated / name).read_text(), "run proto/generate.sh"


def test_proto_request_has_the_fields_of_the_contract() -> None:
    proto = {f.name for f in decode_pb2.ClipRequest.DESCRIPTOR.fields}
    policies = {"segments", "dense", "random_resized", "resized_centre", "explicit_box"}
    assert proto - policies == {f.name for f in fields(ClipRequest)} - {"sampling", "crop"}
    assert proto >= policies


def test_proto_clip_has_the_fields_of_the_contract() -> None:
    proto = {f.name for f in decode_pb2.Clip.DESCRIPTOR.fields}
    assert proto - {"pixels", "matrix", "full_range"} == {f.name for f in fields(ClipInfo)} - {"colour"}
