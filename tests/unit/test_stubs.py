"""The committed stubs are what proto/ generates, and the proto says what the contract says."""

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest

from framefeed.clip import ClipInfo, Matrix
from framefeed.crops import Box, ExplicitBox, RandomResizedCrop
from framefeed.request import ClipRequest, Interpolation, PixelFormat
from framefeed.spans import Short
from framefeed.v1 import decode_pb2
from framefeed.wire import CROP_POLICIES, SAMPLING_POLICIES, ServerReply

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


def _names(message: str) -> set[str]:
    return {f.name for f in decode_pb2.DESCRIPTOR.message_types_by_name[message].fields}


def test_proto_request_has_the_fields_of_the_contract() -> None:
    explicit = {"explicit" if name == "explicit_box" else name for name in _names("ClipRequest")}
    policies = {*SAMPLING_POLICIES, *CROP_POLICIES}
    assert explicit - policies == {f.name for f in fields(ClipRequest)} - {"sampling", "crop"}
    assert explicit >= policies


@pytest.mark.parametrize("policy", [*SAMPLING_POLICIES.values(), *CROP_POLICIES.values()], ids=lambda p: p.__name__)
def test_proto_policies_have_the_fields_of_the_contract(policy: type) -> None:
    ours = {f.name for f in fields(policy)}
    if policy is ExplicitBox:
        assert _names("Box") == {f.name for f in fields(Box)}
    elif policy is RandomResizedCrop:
        assert _names("RandomResizedCrop") == {f"{name}_{end}" for name in ours for end in ("low", "high")}
    else:
        assert _names(policy.__name__) == ours


@pytest.mark.parametrize(
    ("enum", "words"),
    [("PixelFormat", PixelFormat), ("Interpolation", Interpolation), ("Short", Short), ("Matrix", Matrix)],
)
def test_proto_enums_have_the_words_of_the_contract(enum: str, words: object) -> None:
    values = {value.name for value in decode_pb2.DESCRIPTOR.enum_types_by_name[enum].values}
    prefix = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", enum).upper()
    assert values == {f"{prefix}_{word.upper()}" for word in ("unspecified", *get_args(words))}


def test_proto_clip_has_the_fields_of_the_contract() -> None:
    assert _names("Clip") - {"pixels", "matrix", "full_range"} == {f.name for f in fields(ClipInfo)} - {"colour"}


def test_proto_description_has_the_fields_of_the_contract() -> None:
    assert _names("DescribeReply") == {f.name for f in fields(ServerReply)} - {"attempt"}
