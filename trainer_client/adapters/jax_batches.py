"""Batches whose pixels are a JAX array, on one device or sharded over several. The one file that knows jax.

Knows neither servers nor order; what the array is made of stays the loader's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import jax

from trainer_client.feed.batch import Batch
from trainer_client.loader import ClipLoader


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JaxBatch:
    """A Batch whose clips are also `pixels`, uint8 as in Batch, of this process or, sharded, of all.

    Ids and seeds stay NumPy's, in `batch`: JAX cuts 64-bit integers to 32 unless told otherwise.
    """

    batch: Batch
    pixels: jax.Array


def jax_batches(loader: ClipLoader, *, onto: jax.Device | jax.sharding.Sharding | None = None) -> Iterator[JaxBatch]:
    """The loader's batches on a device (the default one unless told), or as this process's part of a sharded array.

    With a sharding the first axis of `pixels` is the clips of all processes: give each process a loader of its own
    rank, and a sharding that splits that axis over the processes in the order of their ranks. Copies to a device are
    asynchronous, and a slot is not used again before they are done. Blocks and raises as next(loader) does, and raises
    ValueError for a batch that the sharding does not divide; closing the loader is the caller's.
    """

    def on_device(batch: Batch) -> JaxBatch:
        if isinstance(onto, jax.sharding.Sharding):
            pixels = jax.make_array_from_process_local_data(onto, batch.pixels)
        else:
            pixels = jax.device_put(batch.pixels, onto)
        return JaxBatch(batch=batch, pixels=pixels)

    return loader.made_by(on_device)
