"""Whether a stored state is of the run that is to go on by it; it knows what a state says, not who goes on."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from framefeed.errors import BadInput
from framefeed.option_types import shown
from framefeed.show_value import show_value
from trainer_client.feed.order import Order
from trainer_client.feed.sampler import Sampler

_log = logging.getLogger(__name__)

_MAX_NAME = 4096  # of what a state says


@dataclass(frozen=True, slots=True, kw_only=True)
class StateCheck:
    """The run here: its sampler, its number of ranks, the digests of its samples and its policy, and the identity of
    its data set, "" if nobody says.
    """

    sampler: Sampler
    world_size: int
    samples: str
    policy: str
    dataset: str

    def order_in(self, state: Mapping[str, object]) -> Order:
        """Which steps a state says are done. Raises BadInput, naming both values, if it is not of this run."""
        if not isinstance(state, Mapping):
            raise BadInput(f"resume: the state is {shown(state)}, wanted what state_dict() returned")
        self._check_same(state)
        order = Order.read(state.get("order"), steps=self.sampler.step_of(state))
        if self.world_size > 1 and order.has_gaps(order.steps):
            raise BadInput(
                f"resume: the state's order has batches that were overtaken and not used yet, and world_size is "
                f"{self.world_size}, wanted 1: go on with one rank until they are used"
            )
        return order

    def _check_same(self, state: Mapping[str, object]) -> None:
        """Raise BadInput for a state of other samples, another policy or another data set."""
        self.sampler.step_of(state)  # whose differences say more
        mine = {
            "samples_digest": (self.samples, "the dataset lists other samples, or in another order"),
            "policy_digest": (self.policy, "the policy makes other clips"),
            "dataset": (self.dataset, "the samples are of another data set"),
        }
        for name, (here, why) in mine.items():
            there = name_in(state, name)
            if there and here and there != here:
                raise BadInput(f"resume: {why}: {name} is {there} in the state and {here} here; wanted the same")
            if not there and name != "dataset":
                _log.info("resume: the state has no %s, as those of earlier versions: it is not compared", name)


def name_in(state: Mapping[str, object], key: str) -> str | None:
    """What a state says under a key, or None. Raises BadInput for what is no name."""
    name = state.get(key)
    if name is not None and not (isinstance(name, str) and len(name) <= _MAX_NAME):
        raise BadInput(f"resume: {key} is {show_value(name)}, wanted nothing or at most {_MAX_NAME} characters")
    return name
