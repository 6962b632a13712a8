"""What --bind may say."""

from __future__ import annotations

import pytest

from decode_server.service.listeners.endpoint import Endpoint, parse_bind
from framefeed.errors import BadInput


@pytest.mark.parametrize(
    ("bind", "url", "address"),
    [
        ("tcp://127.0.0.1:5555", "tcp://127.0.0.1:5555", "127.0.0.1"),
        ("tcp://localhost:0", "tcp://127.0.0.1:0", "127.0.0.1"),
        ("tcp://[::1]:7", "tcp://[::1]:7", "::1"),
        ("grpc://localhost:5555", "grpc://127.0.0.1:5555", "127.0.0.1"),
        ("shm://@framefeed-0", "shm://@framefeed-0", "127.0.0.1"),
    ],
)
def test_loopback_needs_no_leave(bind: str, url: str, address: str) -> None:
    assert parse_bind(bind, public_allowed=False) == Endpoint(url=url, address=address, public=False)


@pytest.mark.parametrize(
    "bind", ["tcp://*:5555", "tcp://0.0.0.0:5555", "tcp://10.0.0.7:5555", "grpc://*:5555", "tcp://[::]:5555"]
)
def test_a_public_address_needs_the_flag(bind: str) -> None:
    with pytest.raises(BadInput, match="--public"):
        parse_bind(bind, public_allowed=False)
    assert parse_bind(bind, public_allowed=True).public


@pytest.mark.parametrize(
    "bind",
    [
        "",
        "5555",
        "tcp://127.0.0.1",
        "tcp://127.0.0.1:x",
        "udp://127.0.0.1:5",
        "ipc://@a",
        "tcp://",
    ],
)
def test_what_is_no_endpoint_is_named_with_what_is_wanted(bind: str) -> None:
    with pytest.raises(BadInput, match=r"wanted tcp://ADDRESS:PORT"):
        parse_bind(bind, public_allowed=True)


@pytest.mark.parametrize("bind", ["tcp://127.0.0.1:65536", "grpc://[::1]:99999", "tcp://*:123456789"])
def test_a_port_beyond_all_is_told_with_the_range(bind: str) -> None:
    with pytest.raises(BadInput, match=r"has port \d+, wanted 0 to 65535"):
        parse_bind(bind, public_allowed=True)


def test_names_are_not_looked_up() -> None:
    with pytest.raises(BadInput, match="no IP address"):
        parse_bind("tcp://decode-box:5555", public_allowed=True)
