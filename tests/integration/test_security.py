"""Who may not is refused, with a counter and a line in the log, and who may is served beside them."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import trustme
import zmq
from msgspec import structs

from decode_server.indexing.index import build_index
from decode_server.service.listeners.curve import Keys
from framefeed.crops import RandomResizedCrop
from framefeed.errors import BadInput
from framefeed.request import ClipRequest
from framefeed.sampling import Segments
from framefeed.wire import ClipReply, ErrorReply
from tests.integration.fake_worker import pattern_of
from tests.integration.serving import PATIENCE_S, SERVE, Server, request, wait_until
from tests.integration.talker import Talker
from tests.videos import make_numbered_video
from trainer_client.clip_policy import ClipPolicy
from trainer_client.loader import ClipLoader, LoaderOptions
from trainer_client.samples import Sample
from trainer_client.transports.credentials import Credentials, Secrets
from trainer_client.transports.transport import Kind

TOKEN = b"a-token-of-some-length"


def secret_file(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    path.chmod(0o600)
    return path


def refused(server: Server, reason: str) -> float:
    return server.metrics()[f'framefeed_server_refused_total{{reason="{reason}"}}']


def is_served(url: str, secrets: Secrets) -> None:
    with Talker(url, secrets=secrets) as talker:
        assert isinstance(talker.decode(request())[0], ClipReply)


def is_not_served(url: str, secrets: Secrets, *, until: Callable[[], bool] = lambda: True) -> None:
    """Not even connected, in half a second of trying and until something was seen."""
    talker = Talker(url, secrets=secrets)
    try:
        talker.wire.connect(url)
        until_s = time.monotonic() + 0.5
        while time.monotonic() < until_s or not until():
            assert time.monotonic() < until_s + PATIENCE_S, "it is not counted"
            assert {signal.kind for signal in talker.wire.wait(0.1)} <= {Kind.LOST}
        assert not talker.wire.send(url, b"x")
    finally:
        talker.__exit__(None, None, None)


# CURVE


@dataclass(frozen=True)
class Pairs:
    """Key files of a server, of a trainer that is on its list, and of one that is not."""

    folder: Path

    def secrets(self, name: str, *, server: str = "server") -> Secrets:
        files = Credentials(curve_key=self.folder / f"{name}.secret", curve_server=self.folder / f"{server}.public")
        return files.read()


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    folder = tmp_path_factory.mktemp("keys")
    for name in ("server", "trainer", "stranger"):
        Keys(folder=folder, name=name).run()
    allowed = b"# who may connect\n\n" + (folder / "trainer.public").read_bytes().strip() + b" # the trainer\n"
    (folder / "allowed").write_bytes(allowed)
    (folder / "allowed").chmod(0o644)
    return Pairs(folder)


@pytest.fixture(scope="module")
def curve_server(pairs: Pairs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    options = ("--curve-key", str(pairs.folder / "server.secret"), "--curve-allow", str(pairs.folder / "allowed"))
    with Server(tmp_path_factory.mktemp("server"), "/videos", "--workers", "1", *options) as server:
        yield server


def test_a_key_on_the_list_is_served(curve_server: Server, pairs: Pairs) -> None:
    before = refused(curve_server, "handshake"), refused(curve_server, "key")
    is_served(curve_server.endpoint, pairs.secrets("trainer"))
    assert (refused(curve_server, "handshake"), refused(curve_server, "key")) == before


def test_a_key_that_is_not_on_the_list_is_refused_by_name(curve_server: Server, pairs: Pairs) -> None:
    is_not_served(curve_server.endpoint, pairs.secrets("stranger"))
    wait_until("it is counted", lambda: refused(curve_server, "key") > 0)
    key = (pairs.folder / "stranger.public").read_text().strip()
    assert f"refused client key {key} (key): it is not on the list" in curve_server.log()
    is_served(curve_server.endpoint, pairs.secrets("trainer"))


@pytest.mark.parametrize("how", ["another server's key", "no keys"])
def test_a_handshake_that_fails_is_refused(curve_server: Server, pairs: Pairs, how: str) -> None:
    before = refused(curve_server, "handshake")
    is_not_served(curve_server.endpoint, Secrets() if how == "no keys" else pairs.secrets("trainer", server="stranger"))
    wait_until("it is counted", lambda: refused(curve_server, "handshake") > before)
    assert "its handshake failed, wanted CURVE with this server's public key" in curve_server.log()
    is_served(curve_server.endpoint, pairs.secrets("trainer"))


def test_what_crosses_the_network_cannot_be_read(pairs: Pairs, curve_server: Server) -> None:
    """A client with keys does not speak to a server without: it would be in the clear, or to somebody else."""
    context = zmq.Context()
    with context.socket(zmq.ROUTER) as plain:
        plain.bind("tcp://127.0.0.1:*")
        is_not_served(plain.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0"), pairs.secrets("trainer"))
    context.term()


# Tokens


@pytest.fixture(scope="module")
def token_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    options = ("--bind", "grpc://127.0.0.1:0", "--token-file", str(secret_file(folder / "token", TOKEN + b"\n")))
    with Server(folder, "/videos", "--workers", "1", *options) as server:
        yield server


def test_the_token_is_served_and_no_other_or_none(token_server: Server, caplog: pytest.LogCaptureFixture) -> None:
    url = token_server.endpoint
    is_served(url, Secrets(token=TOKEN))
    assert refused(token_server, "token") == 0
    is_not_served(url, Secrets(), until=lambda: refused(token_server, "token") > 0)
    assert "(token): no tokens came with it, wanted one" in token_server.log()
    for wrong in (TOKEN + b"x", TOKEN[:-1], TOKEN.upper()):
        before = refused(token_server, "token")
        is_not_served(url, Secrets(token=wrong), until=lambda: refused(token_server, "token") > before)  # noqa: B023
    assert "(token): its token is not the one wanted" in token_server.log()
    assert TOKEN.decode() not in token_server.log()
    assert f"{url} refuses this client (UNAUTHENTICATED: its token is not the one wanted)" in caplog.text
    assert TOKEN.decode() not in caplog.text
    is_served(url, Secrets(token=TOKEN))


def test_a_token_does_not_travel_in_the_clear(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="a token would travel in the clear, wanted grpcs://"):
        Talker("grpc://10.0.0.1:5555", secrets=Secrets(token=TOKEN)).__enter__()


# TLS


@dataclass(frozen=True)
class Authority:
    """Certificates of one authority, as files."""

    folder: Path
    ca: trustme.CA

    def issue(self, name: str) -> tuple[Path, Path]:
        issued = self.ca.issue_cert(name)
        chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        certificate = secret_file(self.folder / f"{name}.pem", chain)
        return certificate, secret_file(self.folder / f"{name}.key", issued.private_key_pem.bytes())

    @property
    def file(self) -> Path:
        return secret_file(self.folder / "ca.pem", self.ca.cert_pem.bytes())

    def client(self) -> Secrets:
        certificate, key = self.issue("trainer.example")
        return Credentials(tls_ca=self.file, tls_cert=certificate, tls_key=key).read()


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ours"), trustme.CA())


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("foreign"), trustme.CA())


def tls_options(authority: Authority) -> tuple[str, ...]:
    certificate, key = authority.issue("127.0.0.1")
    return ("--bind", "grpcs://127.0.0.1:0", "--tls-cert", str(certificate), "--tls-key", str(key))


def test_tls_with_a_token(tmp_path: Path, ours: Authority, foreign: Authority) -> None:
    token = ("--token-file", str(secret_file(tmp_path / "token", TOKEN)))
    with Server(tmp_path, "/videos", "--workers", "1", *tls_options(ours), *token) as server:
        trusted = Secrets(tls_ca=ours.file.read_bytes(), token=TOKEN)
        assert server.endpoint.startswith("grpcs://127.0.0.1:")
        is_served(server.endpoint, trusted)
        is_not_served(server.endpoint, replace(trusted, tls_ca=foreign.file.read_bytes()))
        is_not_served(server.endpoint, replace(trusted, token=None), until=lambda: refused(server, "token") > 0)
        is_not_served(server.endpoint.replace("grpcs", "grpc"), trusted)
        is_served(server.endpoint, trusted)


def test_a_loader_shows_its_credentials_to_servers_of_both_kinds(
    tmp_path: Path, curve_server: Server, pairs: Pairs, ours: Authority
) -> None:
    token = secret_file(tmp_path / "token", TOKEN)
    certificate, key = ours.issue("trainer.example")
    credentials = Credentials(
        tls_ca=ours.file,
        tls_cert=certificate,
        tls_key=key,
        token_file=token,
        curve_key=pairs.folder / "trainer.secret",
        curve_server=pairs.folder / "server.public",
    )
    wants = (*tls_options(ours), "--tls-client-ca", str(ours.file), "--token-file", str(token))
    policy = ClipPolicy(sampling=Segments(frames=2), crop=RandomResizedCrop(), width_px=32, height_px=32)
    dataset = [Sample(video="pattern", start_s=i, end_s=i + 1) for i in range(40)]
    with Server(tmp_path, "/videos", "--workers", "1", *wants) as tls_server:
        urls = [curve_server.endpoint, tls_server.endpoint]
        options = LoaderOptions(servers=urls, batch_clips=4, steps=40, affinity_slack=None, credentials=credentials)
        with ClipLoader(dataset, policy, options) as run:
            for batch in run:
                for row, sample in enumerate(batch.samples):
                    wanted = policy.request(sample, int(batch.seeds[row]))
                    assert np.array_equal(batch.pixels[row].reshape(-1), pattern_of(wanted))
            assert all(run.stats.requests.get((url, "ok")) for url in urls)
            assert run.stats.conserved


@pytest.mark.slow  # a handshake counts as failed when no call came for ten seconds
def test_a_certificate_of_our_authority_is_served_and_no_other_or_none(
    tmp_path: Path, ours: Authority, foreign: Authority
) -> None:
    options = ("--workers", "1", *tls_options(ours), "--tls-client-ca", str(ours.file))
    with Server(tmp_path, "/videos", *options) as server:
        with Talker(server.endpoint, secrets=ours.client()) as good:
            wrong = foreign.client()
            is_not_served(server.endpoint, replace(ours.client(), tls_cert=wrong.tls_cert, tls_key=wrong.tls_key))
            is_not_served(server.endpoint, replace(ours.client(), tls_cert=None, tls_key=None))
            is_not_served(server.endpoint, wrong)
            assert refused(server, "handshake") == 0
            wait_until("all three are counted", lambda: refused(server, "handshake") >= 3)
            assert "refused a TLS client (handshake): no call 10 s after it connected" in server.log()
            assert isinstance(good.decode(request())[0], ClipReply)
        counted = refused(server, "handshake")
        is_served(server.endpoint, ours.client())
        assert refused(server, "handshake") == counted


# What is asked for


def ask(url: str, wanted: ClipRequest) -> ErrorReply:
    with Talker(url) as talker:
        reply, pixels = talker.decode(wanted)
        assert isinstance(reply, ErrorReply)
        assert not pixels
        return reply


@pytest.fixture(scope="module")
def real_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    """A root with a good video, one that has since become a link out of it, and a secret beside the root."""
    root = tmp_path_factory.mktemp("outer") / "root"
    root.mkdir()
    make_numbered_video(root / "good.mp4", frames=60, width_px=128, height_px=96)
    make_numbered_video(root / "link.mp4", frames=60, width_px=128, height_px=96)
    build_index(root)
    (root / "link.mp4").rename(root.parent / "secret.mp4")
    (root / "link.mp4").symlink_to(root.parent / "secret.mp4")
    options = (str(root), "--workers", "1", "--buffer-pool-mib", "16", "--bind", "tcp://127.0.0.1:0")
    with Server(tmp_path_factory.mktemp("server"), *options, "--bind", "grpc://127.0.0.1:0", program=SERVE) as server:
        yield server, root


PATHS = ["../secret.mp4", "/etc/passwd", "good.mp4/../../secret.mp4", "..", "good\0.mp4", "%2e%2e/secret.mp4"]


@pytest.mark.parametrize("transport", [0, 1], ids=["tcp", "grpc"])
def test_paths_out_of_the_root_are_unknown_videos(real_server: tuple[Server, Path], transport: int) -> None:
    server, _ = real_server
    before = refused(server, "unknown_video")
    for path in PATHS:
        assert ask(server.endpoints[transport], request(path)).code == "unknown_video"
    assert refused(server, "unknown_video") == before + len(PATHS)
    assert "(unknown_video): video '../secret.mp4' is not in the manifest" in server.log()


@pytest.mark.parametrize("transport", [0, 1], ids=["tcp", "grpc"])
def test_a_link_out_of_the_root_is_not_followed(real_server: tuple[Server, Path], transport: int) -> None:
    server, _ = real_server
    before = refused(server, "corrupt_media")
    reply = ask(server.endpoints[transport], request("link"))
    assert (reply.code, "leads out of the root" in reply.message) == ("corrupt_media", True)
    assert refused(server, "corrupt_media") == before + 1
    assert "leads out of the root" in server.log()
    with Talker(server.endpoints[transport]) as talker:
        assert isinstance(talker.decode(request("good"))[0], ClipReply)


def oversize(**changes: object) -> ClipRequest:
    """A request that our own types would refuse to build."""
    wanted = request("good")
    policy = structs.replace(wanted.sampling)
    for name, value in changes.items():
        structs.force_setattr(policy if name == "frames" else wanted, name, value)
    structs.force_setattr(wanted, "sampling", policy)
    return wanted


@pytest.mark.parametrize("transport", [0, 1], ids=["tcp", "grpc"])
def test_sizes_beyond_the_limits_are_refused_before_anything_is_allocated(
    real_server: tuple[Server, Path], transport: int
) -> None:
    server, _ = real_server
    before = refused(server, "bad_request")
    rss_bytes = server.metrics()["process_resident_memory_bytes"]
    wanted = {
        "width_px is 4000000000": oversize(width_px=4_000_000_000),
        "frames is 4000000000": oversize(frames=4_000_000_000),
        "the clip would be 1207959552 bytes": oversize(frames=24, width_px=4096, height_px=4096),
        "the server's buffer pool has": request("good", side_px=2048, frames=4),
    }
    for says, one in wanted.items():
        reply = ask(server.endpoints[transport], one)
        assert reply.code == "bad_request"
        assert says in reply.message
        assert says in server.log()
    assert refused(server, "bad_request") == before + len(wanted)
    assert server.metrics()["process_resident_memory_bytes"] < rss_bytes + (16 << 20)


def test_garbage_at_the_zmq_port_is_counted(real_server: tuple[Server, Path]) -> None:
    server, _ = real_server
    before = refused(server, "handshake")
    host, port = server.endpoints[0].removeprefix("tcp://").split(":")
    with socket.create_connection((host, int(port)), PATIENCE_S) as peer:
        peer.sendall(b"\xff\0\0\0\0\0\0\0\1\x7f\3\0NULL" + bytes(48) + b"\4\6\5HELLO")
        wait_until("it is counted", lambda: refused(server, "handshake") > before)
    assert "its handshake failed, wanted ZMTP without encryption" in server.log()
