"""A LightningModule over framefeed's batches: `python lightning_module.py /nfs/chunks`.

The same command goes on after the last checkpoint, in the middle of an epoch too. It learns which half of its
video a clip is from; needs pip install 'framefeed[trainer,lightning]'.
"""

import os
import sys
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from trainer_client.adapters.lightning_data import ClipDataModule
from trainer_client.script import ClipPolicy, LoaderOptions, RandomResizedCrop, Sample, Segments, read_manifest
from trainer_client.training.torch_batches import TorchBatch

EPOCHS, OUT = int(os.environ.get("EPOCHS", "2")), Path(os.environ.get("OUT", "lightning-run"))


class Halves(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Conv3d(3, 16, 4, 4), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten())
        self.head = nn.Linear(16, 2)

    def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
        pixels = batch["pixels"].permute(0, 4, 1, 2, 3).float() / 255 - 0.5  # (B, T, Y, X, C) to (B, C, T, Y, X)
        loss = nn.functional.cross_entropy(self.head(self.model(pixels)), batch["labels"])
        print(f"epoch {self.current_epoch} step {self.global_step} loss {loss.item():.3f}", flush=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def inputs(batch: TorchBatch) -> dict[str, Tensor]:
    """What a step is given."""
    return {"pixels": batch.pixels, "labels": torch.tensor([sample.target for sample in batch.batch.samples])}


def main(root: Path) -> None:
    manifest = read_manifest(root)
    samples = [
        Sample(video=name, start_s=half * video.duration_s / 2, end_s=(half + 1) * video.duration_s / 2, target=half)
        for name, video in manifest.videos.items()
        for half in (0, 1)
    ]
    policy = ClipPolicy(sampling=Segments(frames=4, jitter=True), crop=RandomResizedCrop(), width_px=64, height_px=64)
    options = LoaderOptions(servers="local", root=root, batch_clips=4, dataset_identity=manifest.identity)
    last = OUT / "checkpoints" / "last.ckpt"
    saver = ModelCheckpoint(last.parent, save_last=True, every_n_train_steps=1)
    trainer = Trainer(max_epochs=EPOCHS, default_root_dir=OUT, callbacks=[saver], logger=False, log_every_n_steps=1)
    resumed = last if last.exists() else None
    trainer.fit(Halves(), datamodule=ClipDataModule(samples, policy, options, make=inputs), ckpt_path=resumed)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
