"""Secrets on their way to gRPC's gateway: whole or not at all, whatever their size."""

from __future__ import annotations

import asyncio

import pytest

from decode_server.service.listeners.gateway.gateway_messages import SecretsPart
from decode_server.service.listeners.gateway.grpc_secrets import PART_BYTES, GrpcSecrets, HeldSecrets, parts_of

LARGE = GrpcSecrets(certificate=b"c" * (1 << 20), key=b"k" * 3000, client_ca=b"a" * (1 << 20), token=b"token")


@pytest.mark.parametrize("secrets", [GrpcSecrets(), GrpcSecrets(token=b"token"), LARGE], ids=["none", "small", "large"])
def test_they_come_whole(secrets: GrpcSecrets) -> None:
    held, parts = HeldSecrets(), list(parts_of(secrets))
    assert all(len(part.part) <= PART_BYTES for part in parts)
    took = [(held.take(part), held.now) for part in parts]
    assert took == [(False, None)] * (len(parts) - 1) + [(True, secrets)]


def test_who_waits_for_a_change_sees_each() -> None:
    async def run() -> None:
        held = HeldSecrets()
        for token in (b"one", b"two", b"three"):
            waits = asyncio.create_task(held.change())
            await asyncio.sleep(0)
            assert not waits.done()
            for part in parts_of(GrpcSecrets(token=token)):
                held.take(part)
            async with asyncio.timeout(20):
                await waits
            assert held.now == GrpcSecrets(token=token)

    asyncio.run(run())


def test_what_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r".+"):
        HeldSecrets().take(SecretsPart(b"\xc1", more=False))
