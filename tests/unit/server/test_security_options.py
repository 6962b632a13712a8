"""Which options go together, what each address needs, and which addresses let only some in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import trustme
import zmq

from decode_server.service.listeners.curve import Keys
from decode_server.service.listeners.endpoint import Endpoint, parse_bind
from decode_server.service.listeners.security import Curve, SecurityOptions, ServerCredentials, Tls
from framefeed.errors import BadInput
from trainer_client.transports.credentials import Credentials

SOME = Path("/nowhere")


def at(*binds: str) -> list[Endpoint]:
    return [parse_bind(bind, public_allowed=True) for bind in binds]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"tls_cert": SOME}, "--tls-cert is given without --tls-key"),
        ({"tls_key": SOME}, "--tls-key is given without --tls-cert"),
        ({"curve_key": SOME}, "--curve-key is given without --curve-allow"),
        ({"curve_allow": SOME}, "--curve-allow is given without --curve-key"),
        ({"tls_client_ca": SOME}, "--tls-client-ca is given without --tls-cert"),
    ],
)
def test_options_that_need_each_other(options: dict[str, Path], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        SecurityOptions(**options)


@pytest.mark.parametrize(
    ("options", "binds", "says"),
    [
        ({}, ["grpcs://127.0.0.1:1"], "grpcs:// needs --tls-cert"),
        ({"tls_cert": SOME, "tls_key": SOME}, ["grpc://127.0.0.1:1"], "--tls-cert is for grpcs://, and no --bind is"),
        ({"token_file": SOME}, ["tcp://127.0.0.1:1"], "--token-file is for grpc and grpcs://, and no --bind is one"),
        ({"curve_key": SOME, "curve_allow": SOME}, ["shm://@x"], "--curve-key is for tcp://, and no --bind is one"),
        ({"token_file": SOME}, ["grpc://10.0.0.1:1"], "tokens would come in the clear to grpc://10.0.0.1:1"),
        ({"token_file": SOME}, ["grpc://127.0.0.1:1"], "--token-file: /nowhere cannot be read"),
    ],
)
def test_options_that_no_address_can_use(options: dict[str, Path], binds: list[str], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        SecurityOptions(**options).read(at(*binds))


def test_nothing_chosen_is_nothing_read() -> None:
    credentials = SecurityOptions().read(at("tcp://127.0.0.1:1", "grpc://[::1]:2", "shm://@y"))
    assert (credentials.tls, credentials.token, credentials.curve) == (None, None, None)


@pytest.mark.parametrize("bind", ["tcp://*:1", "grpc://10.0.0.1:2", "tcp://[::]:3"])
def test_a_public_address_that_lets_anyone_in_is_refused_unless_it_is_meant(
    bind: str, caplog: pytest.LogCaptureFixture
) -> None:
    (endpoint,) = at(bind)
    with pytest.raises(BadInput, match=r"lets anyone .* give credentials \(--curve-key .*\), or --insecure") as caught:
        SecurityOptions().read([endpoint])
    assert endpoint.url in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not caplog.records
    SecurityOptions(insecure=True).read([endpoint])
    assert f"{endpoint.url} is open to other machines" in caplog.text


def test_one_open_address_beside_a_guarded_one_is_enough_to_be_refused(tmp_path: Path) -> None:
    Keys(folder=tmp_path, name="server").run()
    Keys(folder=tmp_path, name="trainer").run()
    (tmp_path / "trainer.public").chmod(0o644)
    options = {"curve_key": tmp_path / "server.secret", "curve_allow": tmp_path / "trainer.public"}
    assert SecurityOptions(**options).read(at("tcp://*:1")).curve is not None
    with pytest.raises(BadInput, match=r"grpc://0\.0\.0\.0:2 lets anyone"):
        SecurityOptions(**options).read(at("tcp://*:1", "grpc://*:2"))


def test_which_addresses_let_only_some_in() -> None:
    tls = Tls(certificate=b"", key=b"", client_ca=None)
    mutual = Tls(certificate=b"", key=b"", client_ca=b"ca")
    curve = Curve(secret=b"", allowed=frozenset)
    tcp, grpc, grpcs, shm = at("tcp://*:1", "grpc://*:1", "grpcs://*:1", "shm://@x")
    for endpoint, weak, strong in (
        (tcp, ServerCredentials(token=lambda: b"t", tls=lambda: mutual), ServerCredentials(curve=curve)),
        (grpc, ServerCredentials(tls=lambda: mutual, curve=curve), ServerCredentials(token=lambda: b"t")),
        (grpcs, ServerCredentials(tls=lambda: tls, curve=curve), ServerCredentials(tls=lambda: mutual)),
        (grpcs, ServerCredentials(tls=lambda: tls), ServerCredentials(tls=lambda: tls, token=lambda: b"t")),
    ):
        assert not weak.authenticate(endpoint)
        assert strong.authenticate(endpoint)
    assert ServerCredentials().authenticate(shm)


def test_secrets_do_not_show_themselves() -> None:
    shown = [repr(ServerCredentials(token=lambda: b"hush")), repr(Tls(certificate=b"", key=b"hush", client_ca=None))]
    shown += [repr(Curve(secret=b"hush", allowed=frozenset))]
    assert "hush" not in "".join(shown)


def test_keys_makes_a_pair_that_both_sides_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("server", "trainer"):
        Keys(folder=tmp_path, name=name).run()
    assert "wrote" in capsys.readouterr().out
    (tmp_path / "allowed").write_bytes((tmp_path / "trainer.public").read_bytes())
    (tmp_path / "allowed").chmod(0o644)
    options = SecurityOptions(curve_key=tmp_path / "server.secret", curve_allow=tmp_path / "allowed")
    curve = options.read(at("tcp://*:1")).curve
    ours = Credentials(curve_key=tmp_path / "trainer.secret", curve_server=tmp_path / "server.public").read()
    assert curve is not None
    assert ours.curve_key is not None
    assert curve.allowed() == {zmq.curve_public(ours.curve_key)}
    assert zmq.curve_public(curve.secret) == ours.curve_server
    with pytest.raises(BadInput, match="File exists"):
        Keys(folder=tmp_path, name="server").run()
    with pytest.raises(BadInput, match="wanted a file's name"):
        Keys(folder=tmp_path, name="../x").run()


def test_credentials_that_need_each_other() -> None:
    with pytest.raises(BadInput, match="tls_cert is given without tls_key"):
        Credentials(tls_cert=SOME)
    with pytest.raises(BadInput, match="curve_server is given without curve_key"):
        Credentials(curve_server=SOME)
    with pytest.raises(BadInput, match="--tls-ca: /nowhere cannot be read"):
        Credentials(tls_ca=SOME).read()


def test_a_certificate_and_the_key_of_another_are_refused(tmp_path: Path) -> None:
    one, other = trustme.CA().issue_cert("a.example"), trustme.CA().issue_cert("a.example")
    certificate, key = tmp_path / "server.pem", tmp_path / "server.key"
    certificate.write_bytes(one.cert_chain_pems[0].bytes())
    key.write_bytes(other.private_key_pem.bytes())
    key.chmod(0o600)
    options = SecurityOptions(tls_cert=certificate, tls_key=key)
    with pytest.raises(BadInput, match=r"server.pem and --tls-key .*server.key are not a certificate and its key"):
        options.read(at("grpcs://127.0.0.1:1"))
    key.write_bytes(one.private_key_pem.bytes())
    assert options.read(at("grpcs://127.0.0.1:1")).tls is not None
    (tmp_path / "ca.pem").write_bytes(b"no certificates")
    wrong = replace(options, tls_client_ca=tmp_path / "ca.pem")
    with pytest.raises(BadInput, match=r"--tls-client-ca .*ca.pem holds no PEM certificates"):
        wrong.read(at("grpcs://127.0.0.1:1"))
