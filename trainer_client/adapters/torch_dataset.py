"""A run of batches as PyTorch's DataLoader wants it: `DataLoader(dataset, batch_size=None, num_workers=0)`.

Prefetching is the servers' and the feed's already, so worker processes are refused. Knows neither servers nor order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from prometheus_client import CollectorRegistry
from torch.utils.data import IterableDataset, get_worker_info

from framefeed.errors import BadInput
from trainer_client.clip_policy import ClipPolicy
from trainer_client.feed.slots import ordinary_memory
from trainer_client.home_process import HomeProcess
from trainer_client.loader import ClipLoader, LoaderOptions
from trainer_client.samples import Dataset
from trainer_client.training.torch_batches import TorchBatch, pinned_memory, to_torch


class TorchDataset(HomeProcess, IterableDataset[TorchBatch]):
    """One run of batches, whose tensors are over the memory that clips were received into.

    Every iter() goes on where the run stands, so a loop that is left half-way loses nothing. The run is the whole
    training, `epochs=10` in the options, say, and needs no set_epoch(): an epoch of it is
    islice(data_loader, dataset.loader.steps_per_epoch). One that is over gives nothing more, and says so once. Use it
    in a `with`, or close() it. It has a ClipLoader's state, so torchdata's StatefulDataLoader saves and resumes it.
    """

    def __init__(
        self,
        dataset: Dataset,
        policy: ClipPolicy,
        options: LoaderOptions,
        *,
        pin: bool = False,
        registry: CollectorRegistry | None = None,
    ) -> None:
        """With `pin` clips are received into page-locked memory: DataLoader(pin_memory=True) then copies nothing more.

        Raises as ClipLoader does, and BadInput for `pin` where there is no GPU.
        """
        super().__init__()
        if pin and not torch.cuda.is_available():
            raise BadInput("TorchDataset: pin is True and torch sees no GPU to pin memory for, wanted pin=False")
        allocate = pinned_memory if pin else ordinary_memory
        self._loader = ClipLoader(dataset, policy, options, registry=registry, allocate=allocate)

    @property
    def loader(self) -> ClipLoader:
        """The loader below: its stats, steps and replay()."""
        return self._loader

    def __iter__(self) -> Iterator[TorchBatch]:
        """Batches from where the run stands to its end. Blocks and raises as next(ClipLoader) does.

        Raises BadInput in a DataLoader's worker.
        """
        worker = get_worker_info()
        if worker is not None:
            raise BadInput(
                f"TorchDataset: DataLoader has num_workers={worker.num_workers}, wanted num_workers=0: the decode "
                "servers are the workers"
            )
        self._check_home()
        return self._loader.made_by(to_torch)

    def __len__(self) -> int:
        """Steps of the whole run, those that are done included. Raises TypeError for a run without an end."""
        if self._loader.steps is None:
            raise TypeError("TorchDataset: the run has no end, wanted steps or epochs in its options")
        return self._loader.steps

    def state_dict(self) -> dict[str, int | str | None]:
        """See ClipLoader."""
        return self._loader.state_dict()

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """See ClipLoader."""
        self._loader.load_state_dict(state)

    def close(self) -> None:
        """See ClipLoader."""
        self._loader.close()

    def __enter__(self) -> TorchDataset:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
