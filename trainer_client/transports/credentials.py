"""Who a client is to its servers, and which servers it trusts: the options, and what their files say.

It knows no transport: gRPC's and ZeroMQ's connections take what it has read.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from framefeed.client_files import ClientFiles
from framefeed.errors import BadInput
from framefeed.key_files import read_curve_public, read_curve_secret, read_public, read_secret, read_token
from framefeed.option_types import settle_types
from framefeed.reread import Reread
from trainer_client.fleet.protection import Protection


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Secrets:
    """What was read; None where the option is not given. `tls_*` are PEM texts, `curve_*` Z85."""

    tls_ca: bytes | None = None
    tls_cert: bytes | None = None
    tls_key: bytes | None = None
    token: bytes | None = None
    curve_key: bytes | None = None
    curve_server: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class Credentials(ClientFiles):
    """How a trainer shows who it is. Secrets are in files that only their owner may read; a connection that is made
    anew takes what lies there then."""

    def __post_init__(self) -> None:
        settle_types(self, what="credentials")
        for one, other in (("tls_cert", "tls_key"), ("curve_key", "curve_server")):
            given = [name for name in (one, other) if getattr(self, name) is not None]
            if len(given) == 1:
                missing = other if given[0] == one else one
                said = f"is given without {missing}, wanted both or neither"
                raise BadInput(said, of="credentials", field=given[0])

    @property
    def protection(self) -> Protection:
        """Which servers a registry or a name may lead to."""
        return Protection(
            curve=self.curve_key is not None,
            tls=self.tls_ca is not None or self.tls_cert is not None,
            token=self.token_file is not None,
        )

    def read(self) -> Secrets:
        """Read the files. Raises BadInput for one that cannot be used or is not kept secret."""
        readers = {
            "tls_ca": read_public,
            "tls_cert": read_public,
            "tls_key": read_secret,
            "token_file": read_token,
            "curve_key": read_curve_secret,
            "curve_server": read_curve_public,
        }
        found = {
            name.removesuffix("_file"): read(path, option="--" + name.replace("_", "-"))
            for name, read in readers.items()
            if (path := getattr(self, name)) is not None
        }
        return Secrets(**found)

    def watch(self) -> Reread[Secrets]:
        """What the files say now, each time it is called. Raises BadInput as read does, at once and never later."""
        files = [path for value in fields(self) if (path := getattr(self, value.name)) is not None]
        return Reread(self.read, files)
