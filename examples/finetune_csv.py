"""Fine-tunes a small classifier on your CSV (video,label): `python finetune_csv.py /nfs/chunks clips.csv`.

Or by torchrun, on several processes.
Ctrl-C and the same command again go on after the last batch that was used.
"""

import csv
import json
import os
import sys
from pathlib import Path

import torch
from prometheus_client import CollectorRegistry, start_http_server
from torch import nn

from trainer_client.script import (
    BadInput,
    Batch,
    ClipLoader,
    ClipPolicy,
    LoaderOptions,
    Manifest,
    RandomResizedCrop,
    ResizedCentreCrop,
    Sample,
    Segments,
    check_samples,
    counted,
    read_manifest,
    read_quarantine,
)

EPOCHS, SIZE = int(os.environ.get("EPOCHS", "3")), {"width_px": 64, "height_px": 64}
STATE = Path(os.environ.get("STATE", "state.pt"))


def clips(
    batch: Batch, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:  # uint8 (B, T, Y, X, C) to float (B, C, T, Y, X)
    pixels = torch.from_numpy(batch.pixels).to(device, non_blocking=True)
    labels = torch.tensor([sample.target for sample in batch.samples], device=device)
    return pixels.permute(0, 4, 1, 2, 3).float() / 255 - 0.5, labels


def annotated(table: Path, root: Path, manifest: Manifest) -> tuple[list[Sample], int]:
    """The samples of the table, and how many classes they have; ends the script where a video is not in the root."""
    rows = list(csv.DictReader(table.open()))
    names = sorted({row["label"] for row in rows})
    ends_s = {name: video.duration_s for name, video in manifest.videos.items()}
    samples = [  # the end of an unknown video is made up: it is refused below
        Sample(video=row["video"], start_s=0.0, end_s=ends_s.get(row["video"], 1.0), target=names.index(row["label"]))
        for row in rows
    ]
    try:
        check_samples(samples, manifest, read_quarantine(root)).require_usable(str(table))
    except BadInput as error:
        sys.exit(str(error))
    return samples, len(names)


def main(root: Path, table: Path) -> None:
    manifest = read_manifest(root)
    samples, classes = annotated(table, root, manifest)
    frames = Segments(frames=4, jitter=True)
    train = ClipPolicy(sampling=frames, crop=RandomResizedCrop(), hflip_probability=0.5, **SIZE)
    val = ClipPolicy(sampling=Segments(frames=4, jitter=False), crop=ResizedCentreCrop(), **SIZE)
    # With decode servers: "servers": ["tcp://HOST:PORT"] and no "root", which is the folder that "local" serves.
    source = {"servers": "local", "root": root, "batch_clips": 4, "dataset_identity": manifest.identity}

    if "RANK" in os.environ:  # torchrun's; the loader reads rank and world size from there
        torch.distributed.init_process_group("gloo")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    model: nn.Module = nn.Sequential(nn.Conv3d(3, 16, 4, 4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(classes))
    model = model.to(device)
    model(torch.zeros(1, 3, 4, 64, 64, device=device))
    if torch.distributed.is_initialized():
        model = nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    registry = CollectorRegistry()
    if "METRICS_PORT" in os.environ:
        start_http_server(int(os.environ["METRICS_PORT"]), registry=registry)
    with ClipLoader(samples, train, LoaderOptions(**source, epochs=EPOCHS), registry=registry) as loader:
        if STATE.exists():
            saved = torch.load(STATE, weights_only=True)
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
            loader.load_state_dict(json.loads(saved["data"]))
        used = loader.state_dict()
        try:
            for batch in loader:
                inputs, labels = clips(batch, device)
                loss = nn.functional.cross_entropy(model(inputs), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                used = loader.state_dict()
                print(f"step {batch.step} loss {loss.item():.3f}", flush=True)
        finally:  # what was used, also after Ctrl-C; one rank writes for all
            if os.environ.get("RANK", "0") == "0":
                kept = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "data": json.dumps(used)}
                torch.save(kept, STATE)

    hits = seen = 0
    options = LoaderOptions(**source, epochs=1, shuffle=False, work_class="eval")
    with ClipLoader(samples, val, options) as loader, torch.no_grad():
        for batch in loader:
            inputs, labels = clips(batch, device)
            once = torch.from_numpy(counted(loader, batch))  # the last batch begins anew: each sample counts once
            hits += int((model(inputs).argmax(1) == labels).cpu()[once].sum())
            seen += int(once.sum())
    print(f"accuracy {hits / max(seen, 1):.3f} of {seen}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
