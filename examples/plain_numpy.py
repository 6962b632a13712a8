"""Batches as NumPy arrays, without torch: `python plain_numpy.py /nfs/chunks`."""

import sys
from itertools import islice
from pathlib import Path

from trainer_client.script import (
    ClipLoader,
    ClipPolicy,
    LoaderOptions,
    RandomResizedCrop,
    Segments,
    VideoWindows,
    read_manifest,
)


def main(root: Path) -> None:
    dataset = VideoWindows(read_manifest(root), window_s=1.0)
    policy = ClipPolicy(sampling=Segments(frames=4, jitter=True), crop=RandomResizedCrop(), width_px=64, height_px=64)
    with ClipLoader(dataset, policy, LoaderOptions(servers="local", root=root, batch_clips=2)) as loader:
        for batch in islice(loader, 3):
            print(batch.step, batch.pixels.shape, batch.pixels.mean(), [sample.video for sample in batch.samples])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
