"""The tensors that a run goes on from, by name, whatever they are spread over; knows no files.

Names are `model.…`, `optimizer.PARAMETER.…`, `average.…` and, for float16, `precision.…`. What is random follows from
the step, rates and decay from the recipe: neither is in it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

from trainer_client.training.step import Run
from trainer_client.training.tasks.task import InputsT

MODEL, OPTIMIZER, AVERAGE, PRECISION = "model.", "optimizer.", "average.", "precision."
DataState = Mapping[str, int | str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainState:
    """All that the next step depends on: `tensors` are the live ones, this rank's parts where they are divided; `data`
    is the state of this rank's loader.
    """

    step: int
    tensors: Mapping[str, Tensor]
    data: DataState


class Stored(Protocol):
    """A state that a run can go on from, as somebody has kept it."""

    @property
    def step(self) -> int: ...

    @property
    def data(self) -> DataState: ...

    @property
    def names(self) -> Collection[str]: ...

    def fill(self, tensors: Mapping[str, Tensor]) -> None:
        """Read all of it into tensors, in place. Raises BadInput if they are not those that were kept."""
        ...


def state_of(run: Run[InputsT], *, data: DataState) -> TrainState:
    """Where a run stands."""
    return TrainState(step=run.step, tensors=tensors_of(run), data=dict(data))


def tensors_of(run: Run[InputsT]) -> dict[str, Tensor]:
    """The live tensors of a run, by name, the same names on every rank. No collective; does not wait for the device."""
    model, optimizer = run.task.model, run.learning.optimizer
    weights: dict[str, Tensor] = model.state_dict()
    moments = {
        f"{OPTIMIZER}{name}.{key}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }
    return {
        **{f"{MODEL}{name}": tensor.detach() for name, tensor in weights.items()},
        **moments,
        **{f"{AVERAGE}{name}": tensor for name, tensor in run.average.averages.items()},
        **{f"{PRECISION}{name}": tensor for name, tensor in run.passes.precision.tensors().items()},
    }


def load_run(run: Run[InputsT], stored: Stored) -> None:
    """Go on where that run stood, in place. Blocks for as long as the files take; no collective. Raises as `fill`."""
    tensors = _prepared(run, stored.names)
    stored.fill(tensors)
    run.step = stored.step


def _prepared(run: Run[InputsT], names: Collection[str]) -> dict[str, Tensor]:
    """A run's tensors to be filled with those of these names, the optimizer's made before its first step."""
    model, optimizer = run.task.model, run.learning.optimizer
    if not optimizer.state:
        get_optimizer_state_dict(model, optimizer)  # takes a step of rate 0, with gradients of zeros
        optimizer.zero_grad(set_to_none=True)
    stepped = {name.rpartition(".")[0] for name in names}
    for name, parameter in model.named_parameters():
        if f"{OPTIMIZER}{name}" not in stepped:  # it never had a gradient, and has no state before it has one
            optimizer.state.pop(parameter, None)
    tensors = tensors_of(run)
    return {n: t for n, t in tensors.items() if n in names or not n.startswith(PRECISION)}  # another had no scale
