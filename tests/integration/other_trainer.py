"""A small model under Lightning's Trainer or that of transformers, which writes down the samples that it was given:
`python -m tests.integration.other_trainer KIND URL OUT` under torchrun, a file a rank.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from framefeed.crops import RandomResizedCrop
from framefeed.sampling import Segments
from trainer_client.clip_policy import ClipPolicy
from trainer_client.loader import LoaderOptions
from trainer_client.samples import Sample
from trainer_client.training.torch_batches import TorchBatch

POLICY = ClipPolicy(sampling=Segments(frames=2), crop=RandomResizedCrop(), width_px=32, height_px=32)
DATASET = [Sample(video="pattern", start_s=i, end_s=i + 1, target=i % 3) for i in range(20)]


def options(url: str, **chosen: Any) -> LoaderOptions:
    return LoaderOptions(servers=[url], batch_clips=4, run_seed=3, stall_s=30.0, **chosen)


def inputs(batch: TorchBatch) -> dict[str, Tensor]:
    """Named as the model's arguments, with the samples' targets."""
    labels = torch.tensor([sample.target for sample in batch.batch.samples])
    return {"pixels": batch.pixels.float() / 255, "labels": labels, "indices": batch.indices.clone()}


class Seer(nn.Module):
    """A linear model."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(3, 3)
        self.seen: list[list[int]] = []

    def forward(self, pixels: Tensor, labels: Tensor, indices: Tensor) -> dict[str, Tensor]:
        self.seen.append(indices.tolist())
        logits = self.head(pixels.mean(dim=(1, 2, 3)))
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def by_lightning(url: str, out: Path, *, resumed: Path | None = None, **chosen: Any) -> Seer:
    """Train with a checkpoint each step."""
    from lightning import pytorch as lightning  # noqa: PLC0415 - may not be there

    from trainer_client.adapters.lightning_data import ClipDataModule  # noqa: PLC0415

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.model = Seer()

        def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
            return self.model(**batch)["loss"]

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    saver = lightning.callbacks.ModelCheckpoint(out, every_n_train_steps=1, save_top_k=-1, filename="{step}")
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = lightning.Trainer(accelerator="cpu", callbacks=[saver], default_root_dir=out, **quiet, **chosen)
    module = Module()
    data = ClipDataModule(DATASET, POLICY, options(url), make=inputs)
    trainer.fit(module, datamodule=data, ckpt_path=resumed, weights_only=False)
    return module.model


def by_transformers(url: str, out: Path, *, resumed: Path | None = None, **chosen: Any) -> Seer:
    """Train with a checkpoint each step."""
    import transformers  # noqa: PLC0415 - takes seconds

    from trainer_client.adapters.huggingface_trainer import Clips, ClipTrainer  # noqa: PLC0415

    quiet = {"report_to": [], "disable_tqdm": True}
    args = transformers.TrainingArguments(
        output_dir=str(out), use_cpu=True, save_steps=1, learning_rate=0.1, **quiet, **chosen
    )
    model = Seer()
    trainer = ClipTrainer(model, args, clips=Clips(DATASET, POLICY, options(url)), make=inputs)
    trainer.train(resume_from_checkpoint=None if resumed is None else str(resumed))
    return model


if __name__ == "__main__":
    kind, url, out = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    if kind == "lightning":
        model = by_lightning(url, out, max_epochs=2, devices=2, strategy="ddp")
    else:
        model = by_transformers(url, out, num_train_epochs=2)
    (out / f"seen.{os.environ['RANK']}.json").write_text(json.dumps(model.seen))
