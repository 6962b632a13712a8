"""The committed stubs are what proto/ generates, and the proto says what the contract says."""

import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from msgspec.structs import fields

from framefeed import wire
from framefeed.clip import ClipInfo, Colour
from framefeed.crops import Box, Crop
from framefeed.request import ClipRequest
from framefeed.sampling import Sampling
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


MESSAGES = decode_pb2.DESCRIPTOR.message_types_by_name
POLICIES = {"sampling": get_args(Sampling), "crop": get_args(Crop)}


def _names(message: str) -> set[str]:
    return {f.name for f in MESSAGES[message].fields}


def _ours(kind: type) -> set[str]:
    return {f.name for f in fields(kind)}


def _tag(kind: type) -> str:
    return str(kind.__struct_config__.tag)  # type: ignore[attr-defined]


def test_proto_request_has_the_fields_of_the_contract() -> None:
    oneofs = {oneof.name: {f.name for f in oneof.fields} for oneof in MESSAGES["ClipRequest"].oneofs}
    assert oneofs == {name: {_tag(kind) for kind in kinds} for name, kinds in POLICIES.items()}
    assert _names("ClipRequest") - set().union(*oneofs.values()) == _ours(ClipRequest) - set(POLICIES)


@pytest.mark.parametrize("policy", [kind for kinds in POLICIES.values() for kind in kinds], ids=lambda p: p.__name__)
def test_proto_policies_have_the_fields_of_the_contract(policy: type) -> None:
    assert MESSAGES["ClipRequest"].fields_by_name[_tag(policy)].message_type.name == policy.__name__
    assert _names(policy.__name__) == _ours(policy)


@pytest.mark.parametrize(
    ("message", "kind", "beside"),
    [
        ("Box", Box, set()),
        ("Colour", Colour, set()),
        ("Clip", ClipInfo, set()),
        ("Load", wire.Load, set()),
        ("Decode", wire.DecodeCall, {"attempt"}),
        ("Describe", wire.DescribeCall, {"attempt"}),
        ("Cancel", wire.CancelCall, {"attempt"}),
        ("Error", wire.ErrorReply, {"attempt", "server", "load"}),
        ("Description", wire.ServerReply, {"attempt", "server", "load"}),
    ],
)
def test_proto_messages_have_the_fields_of_the_contract(message: str, kind: type, beside: set[str]) -> None:
    assert _names(message) == _ours(kind) - beside


def test_proto_calls_and_replies_are_those_of_the_contract() -> None:
    asks = {f.name for f in MESSAGES["Call"].oneofs_by_name["ask"].fields}
    assert asks == {_tag(kind) for kind in get_args(wire.Call)}
    assert _names("Call") == {"version", "attempt", *asks}
    outcomes = [f.name for f in MESSAGES["Reply"].oneofs_by_name["outcome"].fields]
    assert outcomes == ["clip", "error", "description"]
    assert _names("Reply") == {"version", "attempt", "server", "load", "pixels", *outcomes}
    assert set(MESSAGES) == {
        "Call", "Reply", "Box", "Colour", "Clip", "Load", "Decode", "Describe", "Cancel", "Error", "Description",
        "ClipRequest", *(kind.__name__ for kinds in POLICIES.values() for kind in kinds),
    }  # fmt: skip
    assert not decode_pb2.DESCRIPTOR.enum_types_by_name, "words are checked where they are unpacked"
