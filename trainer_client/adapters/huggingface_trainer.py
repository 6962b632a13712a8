"""Batches from decode servers for the Trainer of transformers. The one file that knows it; it knows no model.

    trainer = ClipTrainer(model, args, clips=Clips(dataset, policy, options), make=inputs)   # args: TrainingArguments
    trainer.train()                                       # model(**make(batch)) is each step's loss
    trainer.train(resume_from_checkpoint=True)            # goes on in the middle of an epoch

The loader's state lies beside each checkpoint's trainer_state.json, one file a rank.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, get_last_checkpoint

from framefeed.errors import BadInput
from framefeed.new_file import write_whole
from trainer_client.adapters.epoch_batches import EpochBatches, MakeInputs, check_endless, clip_tensors
from trainer_client.clip_policy import ClipPolicy
from trainer_client.loader import ClipLoader, LoaderOptions
from trainer_client.samples import Dataset


@dataclass(frozen=True, slots=True)
class Clips:
    """What is trained on: rank, world size and the run's end are the Trainer's to say."""

    dataset: Dataset
    policy: ClipPolicy
    options: LoaderOptions


class ClipTrainer(Trainer):
    """A Trainer whose training batches come from decode servers; all else is its own.

    `per_device_train_batch_size` is not used: a batch has the options' `batch_clips`. What is skipped over when a run
    resumes is skipped without being decoded.
    """

    def __init__(
        self,
        model: Any = None,
        args: TrainingArguments | None = None,
        *,
        clips: Clips,
        make: MakeInputs = clip_tensors,
        **more: Any,
    ) -> None:
        """`make` says what the model is called with, and Trainer takes the other arguments.

        Raises BadInput for options that end the run.
        """
        check_endless(clips.options.steps, clips.options.epochs, whose="TrainingArguments")
        super().__init__(model, args, **more)
        self.args.ignore_data_skip = True  # the loader goes on by its state
        self._clips, self._make = clips, make
        self._state: dict[str, object] | None = None
        self._batches: EpochBatches | None = None
        self.add_callback(_SavesData(self))

    def train(  # type: ignore[override]  # its other arguments go on to it as they are
        self, resume_from_checkpoint: str | bool | None = None, **more: Any
    ) -> Any:
        """As Trainer's. Raises BadInput for a checkpoint without this rank's data state, or of another plan."""
        found = resume_from_checkpoint
        if resume_from_checkpoint is True:
            assert self.args.output_dir is not None
            found = get_last_checkpoint(self.args.output_dir)  # type: ignore[no-untyped-call]
            if found is None:
                raise BadInput(f"resume: {self.args.output_dir} has no checkpoint, wanted {PREFIX_CHECKPOINT_DIR}-*")
        self._state = self._read(Path(found)) if isinstance(found, str) else None
        try:
            return super().train(resume_from_checkpoint=found, **more)
        finally:
            batches, self._batches = self._batches, None
            if batches is not None:
                batches.loader.close()

    def get_train_dataloader(self) -> Any:
        """One epoch an iteration, from where the run stands. Raises as ClipLoader does."""
        if self._batches is None:
            options = replace(self._clips.options, rank=self.args.process_index, world_size=self.args.world_size)
            loader = ClipLoader(self._clips.dataset, self._clips.policy, options)
            self._batches = EpochBatches(loader, self._make)
            if self._state is not None:
                self._batches.load_state_dict(self._state)
        return self._batches

    def save_data(self, folder: Path) -> None:
        """Write where this rank's data stands into a checkpoint's folder. Raises OSError."""
        assert self._batches is not None, "within train()"
        write_whole(folder / self._name, json.dumps(self._batches.state_dict()).encode() + b"\n")

    @property
    def _name(self) -> str:
        return f"framefeed_data.rank{self.args.process_index}.json"

    def _read(self, folder: Path) -> dict[str, object]:
        path = folder / self._name
        try:
            state = json.loads(path.read_bytes())
        except OSError as error:
            why = f"{path} cannot be read: {error.strerror}"
            raise BadInput(f"resume: {why}; wanted a checkpoint of ClipTrainer and of as many processes") from None
        except ValueError as error:
            raise BadInput(f"resume: {path} is no JSON: {str(error)[:200]}") from None
        if not isinstance(state, dict):
            raise BadInput(f"resume: {path} is no JSON object")
        return state


class _SavesData(TrainerCallback):
    """Keeps the loader's state with each checkpoint."""

    def __init__(self, trainer: ClipTrainer) -> None:
        self._trainer = trainer

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any) -> None:
        """Called on every rank once the checkpoint's folder is there."""
        del control, more
        assert args.output_dir is not None
        self._trainer.save_data(Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}")
