"""Batches from decode servers for Lightning's Trainer. The one file that knows lightning; it knows no model.

    data = ClipDataModule(dataset, policy, LoaderOptions(servers="local", root=root, batch_clips=32))
    Trainer(max_epochs=10).fit(module, datamodule=data)                       # a batch is a dictionary of tensors
    Trainer(max_epochs=10).fit(module, datamodule=data, ckpt_path="last")     # goes on in the middle of an epoch

The sampler's work is the loader's already, so it is never wrapped: each rank has its own share.
"""

from __future__ import annotations

from dataclasses import replace

from lightning.pytorch import LightningDataModule
from prometheus_client import CollectorRegistry

from framefeed.errors import BadInput
from trainer_client.adapters.epoch_batches import EpochBatches, MakeInputs, check_endless, clip_tensors
from trainer_client.clip_policy import ClipPolicy
from trainer_client.loader import ClipLoader, LoaderOptions
from trainer_client.samples import Dataset


class ClipDataModule(LightningDataModule):  # type: ignore[misc]  # lightning may not be there when types are checked
    """Training batches; a module's validation is another loader, or `framefeed eval`.

    Rank and world size are the Trainer's. Lightning saves and loads the loader's state with its checkpoints, also in
    the middle of an epoch; the batches behind it are those that an undisturbed run would have had.
    """

    def __init__(
        self,
        dataset: Dataset,
        policy: ClipPolicy,
        options: LoaderOptions,
        *,
        make: MakeInputs = clip_tensors,
        registry: CollectorRegistry | None = None,
    ) -> None:
        """`make` says what a step is given of each batch. Raises BadInput for options that end the run."""
        super().__init__()
        check_endless(options.steps, options.epochs, whose="Lightning's Trainer")
        self._dataset, self._policy, self._options = dataset, policy, options
        self._make, self._registry = make, registry
        self._batches: EpochBatches | None = None

    @property
    def loader(self) -> ClipLoader:
        """The loader below, within fit() alone: its stats. Raises BadInput outside of it."""
        if self._batches is None:
            raise BadInput("ClipDataModule: it has a loader within fit() alone")
        return self._batches.loader

    def train_dataloader(self) -> EpochBatches:
        """One epoch an iteration. Raises as ClipLoader does."""
        if self._batches is None:
            trainer = self.trainer
            options = replace(self._options, rank=trainer.global_rank, world_size=trainer.world_size)
            loader = ClipLoader(self._dataset, self._policy, options, registry=self._registry)
            self._batches = EpochBatches(loader, self._make)
        return self._batches

    def teardown(self, stage: str) -> None:
        """Close the loader; the next fit() makes another one."""
        del stage
        batches, self._batches = self._batches, None
        if batches is not None:
            batches.loader.close()
