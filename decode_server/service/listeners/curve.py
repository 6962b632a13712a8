"""The verb `keys`, which makes key pairs for CURVE. It knows no sockets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
import zmq

from framefeed.errors import BadInput
from framefeed.key_files import write_public, write_secret
from framefeed.show_value import show_value


@dataclass(frozen=True, kw_only=True)
class Keys:
    """Make a CURVE key pair for a server or a trainer.

    They are FOLDER/NAME.secret and FOLDER/NAME.public; the secret one stays where it is made. A server takes its own
    with --curve-key and the public keys of its trainers, one a line in a file, with --curve-allow; a trainer takes its
    own with --curve-key and the servers' public one with --curve-server.
    """

    folder: Annotated[Path, tyro.conf.Positional]
    """Where the two files go; made, for its owner alone, if it is not there."""
    name: Annotated[str, tyro.conf.Positional]
    """Whose they are, e.g. server or trainer-0."""

    def run(self) -> None:
        """Write both files and say where. Raises BadInput if one is there already, or there can be no folder."""
        if not self.name or "/" in self.name:
            raise BadInput(f"is {show_value(self.name)}, wanted a file's name", of="keys", field="name")
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(f"{self.folder} cannot be made: {error.strerror}", of="keys", field="folder") from None
        public, secret = zmq.curve_keypair()
        paths = [self.folder / f"{self.name}.{kind}" for kind in ("secret", "public")]
        write_secret(paths[0], secret + b"\n")
        write_public(paths[1], public + b"\n")
        print(f"wrote {paths[0]} and {paths[1]}")
