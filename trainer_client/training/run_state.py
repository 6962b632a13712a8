"""The state of a run as plain tensors, whatever it is spread over; knows no files.

With several ranks making and loading one are collectives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.utils._pytree import tree_map_only

from trainer_client.training.step import Run
from trainer_client.training.tasks.task import InputsT


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainState:
    """All that the next step depends on, whole, on the CPU or the model's device: what is random follows from the step.

    `precision` is float16's scale, `average` the moving average's weights; both may be empty.
    """

    step: int
    model: dict[str, Tensor]
    optimizer: dict[str, object]
    data: dict[str, int | str | None]
    precision: dict[str, Tensor]
    average: dict[str, Tensor]


def state_of(run: Run[InputsT], *, data: Mapping[str, int | str | None]) -> TrainState:
    """Where a run stands. On one rank the tensors are the live ones: save before stepping."""
    options = _options(run)
    return TrainState(
        step=run.step,
        model=get_model_state_dict(run.task.model, options=options),  # type: ignore[arg-type]
        optimizer=get_optimizer_state_dict(run.task.model, run.learning.optimizer, options=options),  # type: ignore[arg-type]
        data=dict(data),
        precision=run.passes.precision.state_dict(),
        average=run.average.state_dict(),
    )


def load_run(run: Run[InputsT], state: TrainState) -> None:
    """Go on where that run stood, in place. Raises BadInput for an average of other parameters."""
    options, model = _options(run), run.task.model
    # torch keeps tensors that it is given as the optimizer's own, and each rank's parts in the dictionaries.
    weights, moments = dict(state.model), tree_map_only(Tensor, torch.clone, state.optimizer)
    set_model_state_dict(model, weights, options=options)  # type: ignore[arg-type]
    set_optimizer_state_dict(model, run.learning.optimizer, moments, options=options)
    run.passes.precision.load_state_dict(state.precision)
    run.average.load(state.average)
    run.step = state.step


def _options(run: Run[InputsT]) -> StateDictOptions:
    spread = run.passes.parallel.ranks.world > 1
    return StateDictOptions(full_state_dict=spread, cpu_offload=spread)
