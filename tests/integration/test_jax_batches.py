"""Batches as JAX arrays on JAX's CPU build, which has as many devices as it is told, fed by a real server."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

jax = pytest.importorskip("jax")
jax.config.update("jax_num_cpu_devices", 4)

from tests.integration.forking_trainer import is_right, open_loader  # noqa: E402 - jax may not be there
from tests.integration.serving import Server  # noqa: E402
from tests.integration.ways import start  # noqa: E402
from trainer_client.adapters.jax_batches import JaxBatch, jax_batches  # noqa: E402


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with start(tmp_path_factory.mktemp("jax"), "shm") as server:
        yield server


def held(batches: Iterator[JaxBatch]) -> list[jax.Array]:
    """All arrays of a run, and nothing else of it: memory that is used again too early would show."""
    arrays = []
    for batch in batches:
        assert is_right(batch.batch)
        arrays.append((batch.pixels, batch.batch.pixels.copy()))
    for pixels, wanted in arrays:
        assert np.array_equal(np.asarray(pixels), wanted)
    return [pixels for pixels, _ in arrays]


def test_batches_lie_on_the_device(server: Server) -> None:
    with open_loader([server.endpoint]) as run:
        arrays = held(jax_batches(run, onto=jax.devices()[2]))
    assert len(arrays) == 24
    assert all(pixels.devices() == {jax.devices()[2]} for pixels in arrays)
    assert all((pixels.shape, pixels.dtype) == ((4, 4, 224, 224, 3), np.uint8) for pixels in arrays)


def test_the_default_device_is_jaxs(server: Server) -> None:
    with open_loader([server.endpoint]) as run:
        batch = next(jax_batches(run))
        assert batch.pixels.devices() == {jax.devices()[0]}
        total = jax.jit(lambda clips: clips.astype("uint32").sum())(batch.pixels)
        assert int(total) == int(batch.batch.pixels.sum(dtype=np.uint32))


def test_batches_are_sharded_over_devices(server: Server) -> None:
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("clips",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("clips"))
    with open_loader([server.endpoint]) as run:
        arrays = held(jax_batches(run, onto=sharding))
    for pixels in arrays:
        assert pixels.shape == (4, 4, 224, 224, 3)
        assert [shard.data.shape[0] for shard in pixels.addressable_shards] == [1] * 4
        assert {shard.device for shard in pixels.addressable_shards} == set(jax.devices())


def test_a_batch_that_the_devices_do_not_divide_is_refused(server: Server) -> None:
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:3]), ("clips",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("clips"))
    with open_loader([server.endpoint]) as run, pytest.raises(ValueError, match="evenly divide"):
        next(jax_batches(run, onto=sharding))
