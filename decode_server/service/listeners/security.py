"""Who may talk to a server and under which encryption: the options, and what each address needs of them.

It reads the files and knows no transport: gRPC's and ZeroMQ's listeners take what it has read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from decode_server.service.listeners.endpoint import Endpoint
from framefeed.errors import BadInput
from framefeed.key_files import (
    check_authorities,
    check_pair,
    read_curve_list,
    read_curve_secret,
    read_public,
    read_secret,
    read_token,
)
from framefeed.reread import Reread

_log = logging.getLogger("framefeed.serve")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Tls:
    """PEM texts: the certificate that a server shows, its key, and whose clients' certificates it wants (None: any)."""

    certificate: bytes
    key: bytes
    client_ca: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Curve:
    """A server's secret key and, as its file has it now, the public keys of the clients that may connect; all Z85."""

    secret: bytes
    allowed: Callable[[], frozenset[bytes]]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ServerCredentials:
    """What was read, and for all but CURVE's secret key is read again when its file changes; None: not given."""

    tls: Callable[[], Tls] | None = None
    token: Callable[[], bytes] | None = None
    curve: Curve | None = None

    def authenticate(self, endpoint: Endpoint) -> bool:
        """Whether only clients that were let in can ask at this address; local sockets are the system's to guard."""
        match endpoint.scheme:
            case "grpcs":
                return self.token is not None or (self.tls is not None and self.tls().client_ca is not None)
            case "grpc":
                return self.token is not None
            case "tcp":
                return self.curve is not None
        return True


@dataclass(frozen=True, kw_only=True)
class SecurityOptions:
    """Who may talk to the server. Secrets are in files that only their owner may read."""

    tls_cert: Path | None = None
    """PEM certificate (with its chain) that grpcs:// addresses show."""
    tls_key: Path | None = None
    """Its PEM private key."""
    tls_client_ca: Path | None = None
    """PEM certificates of authorities: clients of grpcs:// must show a certificate that one of them signed."""
    token_file: Path | None = None
    """Clients of grpc:// and grpcs:// must send the token in this file."""
    curve_key: Path | None = None
    """Secret key, made by 'framefeed keys': tcp:// addresses then speak CURVE only."""
    curve_allow: Path | None = None
    """Public keys of the clients that may connect to tcp://, one a line."""
    insecure: bool = False
    """Let anyone who can reach a public address in, without authentication."""

    def __post_init__(self) -> None:
        for one, other in (("tls_cert", "tls_key"), ("curve_key", "curve_allow")):
            given = [name for name in (one, other) if getattr(self, name) is not None]
            if len(given) == 1:
                missing = other if given[0] == one else one
                raise BadInput(f"{_flag(given[0])} is given without {_flag(missing)}, wanted both or neither")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise BadInput("--tls-client-ca is given without --tls-cert, wanted both")

    @property
    def secrets_given(self) -> bool:
        """Whether the server will hold a secret."""
        return any(path is not None for path in (self.tls_key, self.token_file, self.curve_key))

    def read(self, endpoints: Sequence[Endpoint]) -> ServerCredentials:
        """Read the files. Raises BadInput for one that cannot be used, for an option that no address needs, and for a
        public address without authentication unless `insecure`.
        """
        schemes = {endpoint.scheme for endpoint in endpoints}
        if "grpcs" in schemes and self.tls_cert is None:
            raise BadInput("--bind: grpcs:// needs --tls-cert and --tls-key")
        wants = (("tls_cert", {"grpcs"}), ("token_file", {"grpc", "grpcs"}), ("curve_key", {"tcp"}))
        for name, for_schemes in wants:
            if getattr(self, name) is not None and not schemes & for_schemes:
                raise BadInput(f"{_flag(name)} is for {' and '.join(sorted(for_schemes))}://, and no --bind is one")
        for endpoint in endpoints:
            if self.token_file is not None and endpoint.scheme == "grpc" and endpoint.public:
                raise BadInput(f"--token-file: tokens would come in the clear to {endpoint.url}; wanted grpcs://")
        token, allow = self.token_file, self.curve_allow
        tls_files = [path for path in (self.tls_cert, self.tls_key, self.tls_client_ca) if path is not None]
        credentials = ServerCredentials(
            tls=Reread(self._tls, tls_files) if tls_files else None,
            token=None if token is None else Reread(lambda: read_token(token, option="--token-file"), [token]),
            curve=None if self.curve_key is None or allow is None else _curve(self.curve_key, allow),
        )
        for endpoint in endpoints:
            if endpoint.public and not credentials.authenticate(endpoint):
                self._meet_open(endpoint.url)
        return credentials

    def _meet_open(self, url: str) -> None:
        """Say that an address lets anyone in. Raises BadInput unless that is meant."""
        ways = "--curve-key for tcp://, --tls-client-ca or --token-file for grpcs://"
        if not self.insecure:
            raise BadInput(f"--bind: {url} lets anyone who can reach it in; give credentials ({ways}), or --insecure")
        _log.warning("%s is open to other machines and lets anyone in; authentication would be %s", url, ways)

    def _tls(self) -> Tls:
        """Raises BadInput too if the certificate and the key do not belong together."""
        assert self.tls_cert is not None
        assert self.tls_key is not None
        ca = self.tls_client_ca
        tls = Tls(
            certificate=read_public(self.tls_cert, option="--tls-cert"),
            key=read_secret(self.tls_key, option="--tls-key"),
            client_ca=None if ca is None else read_public(ca, option="--tls-client-ca"),
        )
        check_pair(tls.certificate, tls.key, what=f"--tls-cert {self.tls_cert} and --tls-key {self.tls_key}")
        if tls.client_ca is not None:
            check_authorities(tls.client_ca, what=f"--tls-client-ca {ca}")
        return tls


def _curve(key: Path, allow: Path) -> Curve:
    return Curve(
        secret=read_curve_secret(key, option="--curve-key"),
        allowed=Reread(lambda: read_curve_list(allow, option="--curve-allow"), [allow]),
    )


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
