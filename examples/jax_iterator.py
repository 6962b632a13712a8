"""Batches as JAX arrays on the default device: `python jax_iterator.py /nfs/chunks`."""

import sys
from pathlib import Path

import jax

from trainer_client.adapters.jax_batches import jax_batches
from trainer_client.script import (
    ClipLoader,
    ClipPolicy,
    LoaderOptions,
    RandomResizedCrop,
    Segments,
    VideoWindows,
    read_manifest,
)


@jax.jit
def mean(pixels: jax.Array) -> jax.Array:
    return (pixels.astype("float32") / 255).mean(axis=(1, 2, 3, 4))


def main(root: Path) -> None:
    dataset = VideoWindows(read_manifest(root), window_s=1.0)
    policy = ClipPolicy(sampling=Segments(frames=4, jitter=True), crop=RandomResizedCrop(), width_px=64, height_px=64)
    with ClipLoader(dataset, policy, LoaderOptions(servers="local", root=root, batch_clips=2, steps=3)) as loader:
        for batch in jax_batches(loader):
            print(batch.batch.step, mean(batch.pixels))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
