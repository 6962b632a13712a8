"""From what a recipe says of its evaluation to what scores the run; composes, and knows no metric and no step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from framefeed.errors import BadInput
from framefeed.manifest import read_manifest
from framefeed_models.weights.traits import encoder_of
from trainer_client.datasets.annotated import AnnotatedDataset
from trainer_client.datasets.open_dataset import open_dataset
from trainer_client.datasets.spec import DataSpec
from trainer_client.evaluate.choose_scorer import Asked, Subject, choose_scorer
from trainer_client.evaluate.eval_options import EvalOptions
from trainer_client.evaluate.evaluator import EvalSet, Evaluator, LiveModel
from trainer_client.evaluate.score_metrics import ScoreMetrics
from trainer_client.evaluate.scorers import Scorer, masked_scorer
from trainer_client.feed.stand_ins import PoisonOptions
from trainer_client.fleet.addresses import LOCAL
from trainer_client.loader import ClipLoader, LoaderOptions
from trainer_client.training.compute import Compute
from trainer_client.training.device_feed import DeviceBatch
from trainer_client.training.recipes.build import Built
from trainer_client.training.recipes.recipe import Recipe
from trainer_client.training.recipes.task_spec import CmaeSpec
from trainer_client.training.session import Session
from trainer_client.training.step import Run
from trainer_client.training.tasks.cmae import CmaeTask
from trainer_client.training.tasks.mae import MaeTask
from trainer_client.training.tasks.task import ClipInputs

_AHEAD_BATCHES = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Where:
    """What a run computes on, is kept by and is fed by."""

    compute: Compute
    session: Session
    loader: ClipLoader


def open_evaluator(recipe: Recipe, built: Built, run: Run[ClipInputs], *, where: Where) -> Evaluator | None:
    """What scores the run; None if nothing is wanted. Blocks while annotations are converted, the first time.

    Raises BadInput, before the run has begun, for annotations, videos or a model that do not fit each other.
    """
    chosen, learned = recipe.how.evaluation, recipe.what.data
    if not chosen.wanted:
        return None
    root, compute = chosen.eval_root or recipe.how.root, where.compute
    data = chosen.data(learned if isinstance(learned, DataSpec) else None)
    dataset = _open(data, root, built)
    longer = recipe.what.task.longest_shift if isinstance(recipe.what.task, CmaeSpec) else 0
    eval_set = EvalSet(
        dataset=dataset,
        policy=chosen.views.policy(data.kind, encoder_of(built.model).grid, more_frames=longer),
        options=eval_loading(chosen, where.loader, root),
        allocate=compute.allocate,
        scorer=_scorer(chosen, data, dataset, built=built, run=run),
    )
    live = LiveModel(
        model=run.task.model,
        config=run.task.model.config,  # type: ignore[arg-type]  # every task's model has its own
        norm=built.norm,
        average=run.average,
        ranks=compute.ranks,
        device=compute.device,
        precision=compute.passes.precision.name,
    )
    epoch = -(-len(built.data.dataset) // recipe.what.length.batch_clips)
    steps = recipe.what.length.steps_over(len(built.data.dataset))
    rhythm = chosen.rhythm(steps=steps, steps_an_epoch=epoch)
    metrics = ScoreMetrics(where.session.registry, rank=compute.ranks.rank)
    return Evaluator(eval_set, live, rhythm=rhythm, out=recipe.how.session.out, metrics=metrics)


def _open(data: DataSpec, root: Path, built: Built) -> AnnotatedDataset:
    try:
        dataset = open_dataset(data, read_manifest(root), option="--eval-absent")
        if built.data.class_names and data.classes is None:
            dataset.number_as(built.data.class_names)
    except BadInput as error:
        raise BadInput(f"evaluation: {error} (--eval-epochs 0 scores nothing)") from None
    return dataset


def eval_loading(chosen: EvalOptions, loader: ClipLoader, root: Path) -> LoaderOptions:
    """The run's own way to its servers, once through the samples in their order, as an evaluation; to others, the local
    one of another folder among them, where that is chosen.
    """
    own = loader.options
    is_elsewhere = chosen.eval_root is not None
    servers = chosen.eval_servers or ((LOCAL,) if is_elsewhere else loader.servers)
    is_local = LOCAL in servers
    return replace(
        own,
        servers=servers,
        root=root if is_local else None,
        local_cpus=own.local_cpus if is_local else None,
        local_log=own.local_log if is_local else None,
        batch_clips=chosen.eval_clips,
        prefetch_batches=min(own.prefetch_batches, _AHEAD_BATCHES),
        steps=None,
        epochs=1,
        shuffle=False,
        order="strict",
        work_class="eval",
        poison=PoisonOptions(policy="replace", servers=own.poison.servers, budget=chosen.eval_lost),
    )


def _scorer(
    chosen: EvalOptions, data: DataSpec, dataset: AnnotatedDataset, *, built: Built, run: Run[ClipInputs]
) -> Scorer:
    task: object = run.task
    precision = run.passes.precision
    if isinstance(task, MaeTask | CmaeTask):
        masked = task

        def losses_of(batch: DeviceBatch) -> Tensor:
            """By masks of the clips' seeds, the same in every evaluation; the first of a row is its own loss."""
            with precision.autocast():
                rows: Tensor = masked.rows(masked.prepare(batch))  # type: ignore[arg-type]  # its own inputs
            return rows.reshape(len(rows), -1)[:, :1]

        return masked_scorer(losses_of)
    subject = Subject(model=run.task.model, norm=built.norm, precision=precision, tokenizer=built.tokenizer)
    return choose_scorer(subject, dataset, Asked(data=data, templates=chosen.eval_templates))
