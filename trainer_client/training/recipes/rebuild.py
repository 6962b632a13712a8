"""A step's batch again, from what a run's folder says: recipe, annotations and the newest checkpoint's data state.

A batch follows from the plan, whoever serves it, but for what was recorded: stand-ins, and an order that is not the
plan's. So its bytes are those that were trained on. It knows no model and draws nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from prometheus_client import CollectorRegistry

from framefeed.errors import BadInput
from framefeed.manifest import check_indexed
from framefeed_models.weights.checkpoint_folder import CheckpointError, numbered, read_header, read_part
from trainer_client.feed.batch import Batch
from trainer_client.fleet.addresses import LOCAL
from trainer_client.loader import ClipLoader
from trainer_client.text.narration_bpe import TOKENIZER_NAME
from trainer_client.training.compute import ComputeOptions
from trainer_client.training.data_states import data_of_rank
from trainer_client.training.recipes.build import build
from trainer_client.training.recipes.catalogue import makers
from trainer_client.training.recipes.recipe import Recipe
from trainer_client.training.recipes.recipe_file import RECIPE_NAME, read_recipe
from trainer_client.training.recipes.run import feed_plan
from trainer_client.training.recipes.run_data import open_data
from trainer_client.training.recipes.task_spec import ContrastiveSpec, RankingSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What a run's newest readable checkpoint says of its data: after `steps` steps of `world` processes, all of them
    merged. A run that was never saved has recorded nothing."""

    steps: int = 0
    world: int = 1
    data: Mapping[str, int | str | None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RebuiltStep:
    """The global batch of a run's step, numbered from 1, and what is known of the run.

    `recorded`: whether the run's own record says which clips stood in, or else the plan alone, as it was never saved
    after this step.
    """

    step: int
    batch: Batch
    recipe: Recipe
    world: int
    recorded: bool
    dataset: str
    decoder: str


def rebuild_step(run: Path, step: int, *, root: Path | None = None, servers: tuple[str, ...] = (LOCAL,)) -> RebuiltStep:
    """Step `step`, from 1 on, of the run in the folder `run`, as it was trained on.

    `root` is where the videos are now, if not where the recipe says; `servers` are asked. Blocks until the clips are
    there; without any for the recipe's `watchdog_s` it ends. Raises BadInput for a folder that holds no run, a step
    that it has not, and data or servers that are not the run's; and what next(loader) raises.
    """
    if not (run / RECIPE_NAME).is_file():
        raise BadInput(f"--run {run} has no {RECIPE_NAME}; wanted the folder of a run, its --out")
    recipe = _aimed(read_recipe(run / RECIPE_NAME, makers()), run, root=root, servers=servers)
    if root is None:
        _check_root(recipe.how.root, run)
    recorded = read_recorded(run)
    data = open_data(recipe.what.data, recipe.how.root, recipe.what.mix)
    with tempfile.TemporaryDirectory(prefix="framefeed-show-") as logs:
        plan = replace(feed_plan(recipe, build(recipe.what, data)), logs=Path(logs))
        if not 1 <= step <= plan.steps:
            raise BadInput(f"--step is {step}, wanted 1 to {plan.steps}: so many steps the run in {run} has")
        compute = ComputeOptions(device="cpu").open()
        with recipe.how.feed.open(plan, compute=compute, registry=CollectorRegistry()) as loader:
            _go_to(loader, step - 1, recorded)
            batch = next(loader)
            served = loader.state_dict()
    return RebuiltStep(
        step=step,
        batch=batch,
        recipe=recipe,
        world=recorded.world,
        recorded=step <= recorded.steps,
        dataset=str(served["dataset"] or ""),
        decoder=str(served["decoder_fingerprint"] or ""),
    )


def read_recorded(run: Path) -> Recorded:
    """What the run's newest checkpoint that can be read says; nothing if there is none.

    Raises BadInput if there are some and none can be read.
    """
    found, why = numbered(run), ""
    for _, path in reversed(found):
        try:
            header = read_header(path)
            states = [read_part(path, rank).data for rank in range(header.world)]
        except CheckpointError as error:
            why = why or f"{path} is damaged ({error})"
            continue
        return Recorded(steps=header.step, world=header.world, data=data_of_rank(states, rank=0, world=1))
    if found:
        raise BadInput(f"{run} has {len(found)} checkpoints, none of them readable: {why}")
    return Recorded()


def _aimed(recipe: Recipe, run: Path, *, root: Path | None, servers: tuple[str, ...]) -> Recipe:
    """The recipe, fed from where it is said now: one batch, no file but what is asked for, the run's own tokenizer."""
    what, how = recipe.what, recipe.how
    feed = replace(how.feed, servers=servers, prefetch_batches=1, poison_list=None)
    task, learned = what.task, run / TOKENIZER_NAME
    if isinstance(task, ContrastiveSpec | RankingSpec) and learned.is_file():  # to learn it again may take hours
        task = replace(task, text=replace(task.text, tokenizer_file=learned))
    return replace(recipe, what=replace(what, task=task), how=replace(how, root=root or how.root, feed=feed))


def _check_root(root: Path, run: Path) -> None:
    """Raises BadInput, with what helps, where the videos are not where the recipe has them."""
    try:
        check_indexed(root, option="--root")
    except BadInput as error:
        here = "" if root.is_absolute() else f" of the folder that the run was started in, and this is {Path.cwd()}"
        raise BadInput(
            f"{error}; it is the root in {run / RECIPE_NAME}{here}: --root DIR says where the videos are now"
        ) from None


def _go_to(loader: ClipLoader, index: int, recorded: Recorded) -> None:
    """Have the loader give the step `index`, from 0 on, next. Raises BadInput where that is not known."""
    state = dict(loader.state_dict() if recorded.data is None else recorded.data)
    if index < recorded.steps:
        loader.replay(state, first=index)
        return
    if "order" in state:
        raise BadInput(
            f"--step is {index + 1}, wanted 1 to {recorded.steps}: batches overtook others in this run, and which "
            "did after its last checkpoint is not recorded"
        )
    clips = loader.options.batch_clips
    loader.load_state_dict({**state, "position": index * clips})
