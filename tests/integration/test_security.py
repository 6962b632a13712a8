"""Who may not is refused, with a counter and a line in the log, and who may is served beside them."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import numpy as np
import pytest
import trustme
import zmq
from grpc_health.v1 import health_pb2, health_pb2_grpc
from msgspec import structs

from decode_server.indexing.index import build_index
from decode_server.service.listeners.churn import CUTS
from decode_server.service.listeners.curve import Keys
from framefeed.crops import RandomResizedCrop
from framefeed.errors import BadInput
from framefeed.request import ClipRequest
from framefeed.sampling import Segments
from framefeed.wire import ClipReply, DescribeCall, ErrorReply, pack_call
from tests.integration.fake_worker import pattern_of
from tests.integration.serving import PATIENCE_S, SERVE, Server, request, wait_until
from tests.integration.talker import Talker
from tests.videos import make_numbered_video
from trainer_client.clip_policy import ClipPolicy
from trainer_client.fleet.discovery import DnsServers
from trainer_client.loader import ClipLoader, LoaderOptions
from trainer_client.samples import Sample
from trainer_client.transports.credentials import Credentials, Secrets
from trainer_client.transports.grpc_transport import GrpcTransport
from trainer_client.transports.transport import Kind, TransportLimits

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


def test_who_is_refused_learns_why(curve_server: Server, pairs: Pairs, caplog: pytest.LogCaptureFixture) -> None:
    url = curve_server.endpoint
    stranger = (pairs.folder / "stranger.public").read_text().strip()
    for secrets, says in (
        (pairs.secrets("stranger"), f"refuses this client: its key {stranger} is not on the server's list"),
        (pairs.secrets("trainer", server="stranger"), f"is its key the one of --curve-server, {stranger}?"),
        (Secrets(), "refuses this client: it wants CURVE (--curve-key and --curve-server) or is no decode server"),
    ):
        caplog.clear()
        is_not_served(url, secrets)
        lines = [record.getMessage() for record in caplog.records if url in record.getMessage()]
        assert len(lines) == 1, lines
        assert says in lines[0]
    server = (pairs.folder / "server.public").read_text().strip()
    assert f"wanted CURVE with this server's public key {server}: the keys do not fit" in curve_server.log()


@pytest.mark.parametrize("encrypted", [True, False], ids=["curve", "clear"])
def test_one_byte_more_than_a_clip_cuts_the_connection_says_why_and_it_is_made_again(
    curve_server: Server,
    tmp_path: Path,
    pairs: Pairs,
    caplog: pytest.LogCaptureFixture,
    encrypted: bool,
) -> None:
    """The largest that a client wants is 2 x 256² here; of one byte less it accepts no such clip, ever."""
    large, small = request("pattern", side_px=256), request("pattern", side_px=16)
    with contextlib.ExitStack() as stack:
        secrets = pairs.secrets("trainer") if encrypted else Secrets()
        server = curve_server if encrypted else stack.enter_context(Server(tmp_path, "/videos", "--workers", "1"))
        exact = stack.enter_context(Talker(server.endpoint, secrets=secrets, clip_bytes=large.clip_bytes))
        short = stack.enter_context(Talker(server.endpoint, secrets=secrets, clip_bytes=large.clip_bytes - 1))
        assert exact.decode(large)[1] == pattern_of(large).tobytes()
        for _ in range(2):
            short.ask(large)
            short.await_kind(Kind.LOST)
            short.await_kind(Kind.CONNECTED)
            assert short.decode(small)[1] == pattern_of(small).tobytes()
        assert exact.decode(large)[1] == pattern_of(large).tobytes()
    says = f"{server.endpoint} the connection was cut on this side: it sent a frame of more than {large.clip_bytes - 1}"
    assert caplog.text.count(says) == 1


def test_connections_that_do_not_last_are_told_of(tmp_path: Path) -> None:
    with Server(tmp_path, "/videos", "--workers", "1") as server:
        for _ in range(CUTS + 1):
            with Talker(server.endpoint) as talker:
                talker.wire.disconnect(talker.url)
        wait_until("it is told", lambda: f"{CUTS} connections were made and {CUTS} cut" in server.log())


def poke(talker: Talker) -> None:
    """Ask who the server is, if there is a connection, and read what came."""
    talker.wire.send(talker.url, pack_call(DescribeCall(attempt=1)))
    talker.turn(0.02)
    while talker.wire.header(talker.url):
        pass


@pytest.mark.slow
def test_the_list_of_keys_is_read_again(tmp_path: Path, pairs: Pairs, caplog: pytest.LogCaptureFixture) -> None:
    """A key that is added is let in; one that is taken away is not, and its next call cuts the connection that it has;
    a list that cannot be used changes nothing."""
    allowed = tmp_path / "allowed"
    keys = {name: (pairs.folder / f"{name}.public").read_text() for name in ("trainer", "stranger")}
    allowed.write_text(keys["trainer"])
    options = ("--curve-key", str(pairs.folder / "server.secret"), "--curve-allow", str(allowed))
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Server(tmp_path, "/videos", "--workers", "1", *options))
        trainer = stack.enter_context(Talker(server.endpoint, secrets=pairs.secrets("trainer")))
        stranger = Talker(server.endpoint, secrets=pairs.secrets("stranger"))
        stack.push(stranger)
        stranger.wire.connect(stranger.url)
        wait_until("it is refused", lambda: poke(stranger) or refused(server, "key") > 0)
        allowed.write_text(keys["trainer"] + keys["stranger"])
        stranger.await_kind(Kind.CONNECTED)  # which it tries by itself, though ZeroMQ would not
        assert isinstance(stranger.decode(request())[0], ClipReply)
        allowed.write_text("nonsense\n")
        wait_until("it is read", lambda: poke(trainer) or "stays in use" in server.log())
        for talker in (trainer, stranger):
            poke(talker)
            assert Kind.LOST not in talker.seen
        allowed.write_text(keys["stranger"])
        wait_until("its connection is cut", lambda: poke(trainer) or Kind.LOST in trainer.seen)
        wait_until("it learns why", lambda: poke(trainer) or "is not on the server's list" in caplog.text)
        assert Kind.CONNECTED not in trainer.seen
        assert isinstance(stranger.decode(request())[0], ClipReply)
        assert server.log().count("holds no key of 40 characters") == 1
        assert f"client key {keys['trainer'].strip()} (key): it is no longer on the list" in server.log()


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
    before = refused(token_server, "token")
    is_served(url, Secrets(token=TOKEN))
    assert refused(token_server, "token") == before
    _is_refused_token(token_server, None, "no tokens came with it, wanted one", caplog)
    for wrong in (TOKEN + b"x", TOKEN[:-1], TOKEN.upper()):
        _is_refused_token(token_server, wrong, "its token is not the one wanted", caplog)
    is_served(url, Secrets(token=TOKEN))


def _is_refused_token(server: Server, token: bytes | None, says: str, caplog: pytest.LogCaptureFixture) -> None:
    """Counted, and told by the server and by the client, in whatever order these three come."""
    before = refused(server, "token")
    told = f"{server.endpoint} refuses this client (UNAUTHENTICATED: {says})"
    caplog.clear()
    is_not_served(
        server.endpoint,
        Secrets() if token is None else Secrets(token=token),
        until=lambda: refused(server, "token") > before and f"(token): {says}" in server.log() and told in caplog.text,
    )
    assert TOKEN.decode() not in server.log() + caplog.text


def test_a_token_does_not_travel_in_the_clear(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="a token would travel in the clear, wanted grpcs://"):
        Talker("grpc://10.0.0.1:5555", secrets=Secrets(token=TOKEN)).__enter__()


def test_a_token_goes_to_a_pinned_authority_or_to_this_host_only() -> None:
    with pytest.raises(BadInput, match=r"a token goes to servers of one's own authority, wanted --tls-ca"):
        Talker("grpcs://10.0.0.1:5555", secrets=Secrets(token=TOKEN)).__enter__()
    for url in ("grpc://127.0.0.1:1", "grpcs://localhost:1", "grpc://[::1]:1"):
        transport = GrpcTransport(TransportLimits(clip_bytes=1, secrets=lambda: Secrets(token=TOKEN)))
        transport.connect(url)
        transport.close()


def test_only_the_one_health_check_is_open_without_a_token(token_server: Server) -> None:
    """Watch is a stream for each caller: nine of them once used a server up."""
    asked = health_pb2.HealthCheckRequest()
    with grpc.insecure_channel(token_server.endpoint.removeprefix("grpc://")) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        assert health.Check(asked, timeout=PATIENCE_S).status == health_pb2.HealthCheckResponse.SERVING
        before = refused(token_server, "token")
        with pytest.raises(grpc.RpcError) as caught:
            next(health.Watch(asked, timeout=PATIENCE_S))
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        wait_until("it is counted", lambda: refused(token_server, "token") == before + 1)
        shown = [("authorization", f"Bearer {TOKEN.decode()}")]
        seen = next(health.Watch(asked, timeout=PATIENCE_S, metadata=shown))
        assert seen.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.slow
def test_the_token_is_read_again_on_both_sides(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A stream that came with the old one is cut; it comes back as soon as its own file has the new one."""
    ours, theirs = (secret_file(tmp_path / name, TOKEN) for name in ("ours", "theirs"))
    options = ("--bind", "grpc://127.0.0.1:0", "--token-file", str(ours))
    with (
        Server(tmp_path, "/videos", "--workers", "1", *options) as server,
        Talker(server.endpoint, secrets=Credentials(token_file=theirs).watch()) as talker,
    ):
        ours.write_bytes(b"short")
        wait_until("it is read", lambda: poke(talker) or "what was read before stays in use" in server.log())
        poke(talker)
        assert Kind.LOST not in talker.seen
        ours.write_bytes(TOKEN + b"-2")
        talker.await_kind(Kind.LOST)
        assert "another token is wanted than it came with" in server.log()
        wait_until("it learns why", lambda: poke(talker) or "its token is not the one wanted" in caplog.text)
        assert Kind.CONNECTED not in talker.seen
        theirs.write_bytes(TOKEN + b"-2")
        talker.await_kind(Kind.CONNECTED)
        assert isinstance(talker.decode(request())[0], ClipReply)
        assert "another token is wanted" in caplog.text
        assert TOKEN.decode() not in server.log() + caplog.text


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


def tls_options(authority: Authority, name: str = "127.0.0.1") -> tuple[str, ...]:
    certificate, key = authority.issue(name)
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


def found(url: str, *addresses: str) -> list[str]:
    """Where a dns+ URL leads, if its name has these addresses."""
    return [candidate.urls[0] for candidate in DnsServers(url, lambda host, port: list(addresses)).look()]


def test_a_certificate_is_for_the_name_that_led_to_the_server(
    tmp_path: Path, ours: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    with Server(tmp_path, "/videos", "--workers", "1", *tls_options(ours, "decode.example")) as server:
        trusted = Secrets(tls_ca=ours.file.read_bytes())
        port = server.endpoint.rpartition(":")[2]
        (right,) = found(f"dns+grpcs://decode.example:{port}", "127.0.0.1")
        (wrong,) = found(f"dns+grpcs://other.example:{port}", "127.0.0.1")
        assert right == f"grpcs://decode.example@127.0.0.1:{port}"
        is_served(right, trusted)
        assert caplog.text == ""
        for url, name in ((wrong, "other.example"), (server.endpoint, "127.0.0.1")):
            is_not_served(url, trusted, until=lambda: url in caplog.text)  # noqa: B023
            lines = [record.getMessage() for record in caplog.records if url in record.getMessage()]
            assert len(lines) == 1
            assert lines[0].startswith(f"{url} shows a certificate that is not for {name} (UNAVAILABLE: ")
            assert "\n" not in lines[0]


def test_a_certificate_may_be_for_an_ipv6_address(tmp_path: Path, ours: Authority) -> None:
    certificate, key = ours.issue("::1")
    options = ("--bind", "grpcs://[::1]:0", "--tls-cert", str(certificate), "--tls-key", str(key))
    with Server(tmp_path, "/videos", "--workers", "1", *options) as server:
        trusted = Secrets(tls_ca=ours.file.read_bytes())
        port = server.endpoint.rpartition(":")[2]
        is_served(server.endpoint, trusted)
        is_served(found(f"dns+grpcs://[::1]:{port}", "[::1]")[0], trusted)
        is_not_served(found(f"dns+grpcs://decode.example:{port}", "[::1]")[0], trusted)


def test_a_loader_verifies_the_name_that_it_looks_up(tmp_path: Path, ours: Authority) -> None:
    credentials = Credentials(tls_ca=ours.file)
    policy = ClipPolicy(sampling=Segments(frames=2), crop=RandomResizedCrop(), width_px=32, height_px=32)
    dataset = [Sample(video="pattern", start_s=i, end_s=i + 1) for i in range(8)]
    with Server(tmp_path, "/videos", "--workers", "1", *tls_options(ours, "localhost")) as server:
        url = f"dns+grpcs://localhost:{server.endpoint.rpartition(':')[2]}"
        options = LoaderOptions(servers=[url], batch_clips=4, steps=2, credentials=credentials)
        with ClipLoader(dataset, policy, options) as run:
            assert len(list(run)) == 2


@pytest.mark.slow
def test_certificates_are_read_again(tmp_path: Path, ours: Authority, foreign: Authority) -> None:
    """Those the server shows, and those of the authority whose clients it lets in; broken ones change nothing."""
    (certificate, key), (theirs, their_key) = ours.issue("127.0.0.1"), foreign.issue("127.0.0.1")
    ca = secret_file(tmp_path / "client-ca.pem", ours.file.read_bytes())
    files = ("--tls-cert", str(certificate), "--tls-key", str(key), "--tls-client-ca", str(ca))
    mine, other = ours.client(), foreign.client()
    server = Server(tmp_path, "/videos", "--workers", "1", "--bind", "grpcs://127.0.0.1:0", *files)
    with server, Talker(server.endpoint, secrets=mine) as early:
        certificate.write_bytes(theirs.read_bytes())  # and not yet its key
        wait_until("it is read", lambda: is_served(server.endpoint, mine) or "stays in use" in server.log())
        assert "are not a certificate and its key" in server.log()
        key.write_bytes(their_key.read_bytes())
        mixed = replace(mine, tls_ca=other.tls_ca)
        with Talker(server.endpoint, secrets=mixed) as talker:  # as soon as the server has it
            assert isinstance(talker.decode(request())[0], ClipReply)
        is_not_served(server.endpoint, mine)
        ca.write_bytes(foreign.file.read_bytes())
        with Talker(server.endpoint, secrets=other):
            pass
        is_not_served(server.endpoint, mixed)
        assert isinstance(early.decode(request())[0], ClipReply)  # handshakes only


@pytest.mark.slow
def test_a_client_s_certificate_is_read_again(tmp_path: Path, ours: Authority, foreign: Authority) -> None:
    certificate, key = foreign.issue("trainer.example")
    wants = (*tls_options(ours), "--tls-client-ca", str(ours.file))
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Server(tmp_path, "/videos", "--workers", "1", *wants))
        secrets = Credentials(tls_ca=ours.file, tls_cert=certificate, tls_key=key).watch()
        talker = Talker(server.endpoint, secrets=secrets)
        stack.push(talker)
        talker.wire.connect(talker.url)
        until_s = time.monotonic() + 0.5
        while time.monotonic() < until_s:
            talker.turn(0.1)
        assert Kind.CONNECTED not in talker.seen
        for path, good in zip((certificate, key), ours.issue("trainer.example"), strict=True):
            path.write_bytes(good.read_bytes())
        talker.await_kind(Kind.CONNECTED)


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
    }
    for says, one in wanted.items():
        reply = ask(server.endpoints[transport], one)
        assert reply.code == "bad_request"
        assert says in reply.message
        assert says in server.log()
    assert refused(server, "bad_request") == before + len(wanted)
    reply = ask(server.endpoints[transport], request("good", side_px=2048, frames=4))
    assert reply.code == "not_here", "a server with more memory may have it"
    assert "this server's buffer pool has" in reply.message
    assert server.metrics()["process_resident_memory_bytes"] < rss_bytes + (16 << 20)


def test_garbage_at_the_zmq_port_is_counted(real_server: tuple[Server, Path]) -> None:
    server, _ = real_server
    before = refused(server, "handshake")
    host, port = server.endpoints[0].removeprefix("tcp://").split(":")
    with socket.create_connection((host, int(port)), PATIENCE_S) as peer:
        peer.sendall(b"\xff\0\0\0\0\0\0\0\1\x7f\3\0NULL" + bytes(48) + b"\4\6\5HELLO")
        wait_until("it is counted", lambda: refused(server, "handshake") > before)
    assert "its handshake failed, wanted ZMTP without encryption" in server.log()
