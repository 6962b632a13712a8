"""What gRPC's gateway has of a server's secrets, from the front, which alone reads files; and how they travel there.

It knows no gRPC. Certificates of many authorities are larger than a datagram, so they come in parts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import msgspec
from msgspec import Struct

from decode_server.service.listeners.gateway.gateway_messages import SecretsPart

PART_BYTES = 1 << 16


class GrpcSecrets(Struct, frozen=True, array_like=True):
    """PEM texts, b"" without TLS; None where clients need no certificate, or no token."""

    certificate: bytes = b""
    key: bytes = b""
    client_ca: bytes | None = None
    token: bytes | None = None


def parts_of(secrets: GrpcSecrets) -> Iterator[SecretsPart]:
    """The messages that carry them, in order."""
    packed = msgspec.msgpack.encode(secrets)
    for at in range(0, len(packed), PART_BYTES):
        yield SecretsPart(packed[at : at + PART_BYTES], more=at + PART_BYTES < len(packed))


class HeldSecrets:
    """The newest ones that came whole. `now` may be read by any thread; all else is the loop's."""

    def __init__(self) -> None:
        self.now: GrpcSecrets | None = None
        self._parts: list[bytes] = []
        self._changed = asyncio.Event()

    def take(self, message: SecretsPart) -> bool:
        """Take in the next part; whether it was the last. Raises ValueError if together they are no secrets."""
        self._parts.append(message.part)
        if message.more:
            return False
        packed, self._parts = b"".join(self._parts), []
        self.now = msgspec.msgpack.decode(packed, type=GrpcSecrets)
        self._changed.set()
        self._changed = asyncio.Event()
        return True

    async def change(self) -> None:
        """Wait until others come."""
        await self._changed.wait()
