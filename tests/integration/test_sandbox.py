"""A decoder that was taken over gets nothing and costs one worker: shown as an ordinary user and as root."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from framefeed.wire import ClipReply, ErrorReply
from tests.integration.hostile_worker import allowed, attacks
from tests.integration.serving import Client, Server, request

HOSTILE_SERVE = ("-m", "tests.integration.fake_server", "tests.integration.hostile_worker")
NOBODY = 65534
pytestmark = pytest.mark.slow
ATTACKS = [name for name in attacks(Path(), Path()) if name != "fill"]


@pytest.fixture(scope="module", params=["root", "ordinary user"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server of hostile workers over a root with one file, beside a file that is not its business."""
    ordinary = request.param == "ordinary user"
    if ordinary and (os.geteuid() != 0 or not shutil.which("setpriv")):
        pytest.skip("becoming another user needs root and setpriv")
    folder = Path("/tmp") / f"framefeed-sandbox-{os.getpid()}-{request.param[:4]}"
    root = folder / "root"
    root.mkdir(parents=True)
    (root / "clip").write_bytes(b"frames")
    (folder / "outside").write_bytes(b"a secret")
    (root / "link").symlink_to(folder / "outside")
    under: tuple[str, ...] = ()
    if ordinary:
        os.chmod(folder, 0o777)
        for path in (root, root / "clip"):
            os.chown(path, NOBODY, NOBODY)
        finds_python = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")  # in the home of root, say
        under = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *finds_python)
    try:
        with Server(folder, str(root), "--workers", "1", program=HOSTILE_SERVE, under=under) as server:
            yield server
    finally:
        shutil.rmtree(folder)


def tried(server: Server, what: str) -> int:
    """The pixel that says how a try went."""
    with Client(server.endpoint) as client:
        reply, pixels = client.decode(request(what))
    assert isinstance(reply, ClipReply), reply
    assert len(set(pixels)) == 1
    return pixels[0]


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_a_decoder_has_no_business_to_do_is_refused(server: Server, attack: str) -> None:
    assert tried(server, attack) == 1
    assert server.process.poll() is None


@pytest.mark.parametrize("need", list(allowed(Path())))
def test_what_decoding_needs_is_there(server: Server, need: str) -> None:
    assert tried(server, need) == 255


def test_a_decoder_that_takes_memory_without_end_gets_an_error(server: Server) -> None:
    """Its bound ends it, long before the machine has no memory left; the worker goes on or is replaced."""
    with Client(server.endpoint) as client:
        reply, _ = client.decode(request("fill"))
    assert isinstance(reply, ErrorReply)
    assert tried(server, "read_root") == 255


def test_the_log_says_what_is_in_force(server: Server) -> None:
    line = next(line for line in server.log().splitlines() if "sandbox: " in line)
    for part in ("no_new_privs", "Landlock", "seccomp", "MiB of memory"):
        assert part in line
    assert "not in force" not in line
