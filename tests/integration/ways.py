"""Every transport with every kind of security, each as a server's options and a client's credentials."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path

import trustme

from decode_server.service.listeners.curve import Keys
from tests.integration.serving import FAKE_SERVE, Server
from tests.integration.talker import MAX_CLIP_BYTES, Talker
from trainer_client.transports.credentials import Credentials

OPEN = ("tcp", "shm", "grpc")
SECURED = ("tcp+curve", "grpc+token", "grpcs", "grpcs+mtls")


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to speak to a server."""

    name: str
    options: tuple[str, ...]
    """Of a server, beside --bind."""
    credentials: Credentials

    @property
    def transport(self) -> str:
        return self.name.partition("+")[0]

    def start(self, folder: Path, *, pool_mib: int = 16, program: tuple[str, ...] = FAKE_SERVE) -> Server:
        """A server at a new address."""
        options = ("--workers", "1", "--buffer-pool-mib", str(pool_mib), *self.options)
        return Server(folder, "/videos", *options, "--bind", new_bind(self.transport), program=program)

    def talker(self, url: str, *, clip_bytes: int = MAX_CLIP_BYTES) -> Talker:
        """A client that may ask there."""
        return Talker(url, secrets=self.credentials.read(), clip_bytes=clip_bytes)


def new_bind(transport: str) -> str:
    """An address of the transport that nobody uses."""
    name = uuid.uuid4().hex[:12]
    return {
        "tcp": "tcp://127.0.0.1:0",
        "shm": f"shm://@{name}",
        "grpc": "grpc://127.0.0.1:0",
        "grpcs": "grpcs://127.0.0.1:0",
    }[transport]


def start(folder: Path, name: str) -> Server:
    """A server of one of the ways."""
    return way(name, folder).start(folder)


def way(name: str, folder: Path) -> Way:
    """One of OPEN or SECURED; its keys and certificates are files in the folder."""
    make = {"tcp+curve": _curve, "grpc+token": _token, "grpcs": _tls, "grpcs+mtls": _mutual_tls}.get(name)
    options, credentials = ((), Credentials()) if make is None else make(folder)
    return Way(name=name, options=options, credentials=credentials)


def _curve(folder: Path) -> tuple[tuple[str, ...], Credentials]:
    for name in ("server", "trainer"):
        Keys(folder=folder, name=name).run()
    options = ("--curve-key", str(folder / "server.secret"), "--curve-allow", str(folder / "trainer.public"))
    return options, Credentials(curve_key=folder / "trainer.secret", curve_server=folder / "server.public")


def _token(folder: Path) -> tuple[tuple[str, ...], Credentials]:
    token = _secret(folder / "token", b"a-token-of-some-length")
    return ("--token-file", str(token)), Credentials(token_file=token)


def _tls(folder: Path) -> tuple[tuple[str, ...], Credentials]:
    (ca, _), (certificate, key) = _certificates(folder)[:2]
    return ("--tls-cert", str(certificate), "--tls-key", str(key)), Credentials(tls_ca=ca)


def _mutual_tls(folder: Path) -> tuple[tuple[str, ...], Credentials]:
    (ca, _), (certificate, key), (ours, our_key) = _certificates(folder)
    options = ("--tls-cert", str(certificate), "--tls-key", str(key), "--tls-client-ca", str(ca))
    return options, Credentials(tls_ca=ca, tls_cert=ours, tls_key=our_key)


def _certificates(folder: Path) -> list[tuple[Path, Path]]:
    """The authority's (twice), then certificate and key of a server and of a trainer."""
    authority = trustme.CA()
    ca = _secret(folder / "ca.pem", authority.cert_pem.bytes())
    pairs = [(ca, ca)]
    for name in ("127.0.0.1", "trainer.example"):
        issued = authority.issue_cert(name)
        certificate = _secret(folder / f"{name}.pem", b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        pairs.append((certificate, _secret(folder / f"{name}.key", issued.private_key_pem.bytes())))
    return pairs


def _secret(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    path.chmod(0o600)
    return path
