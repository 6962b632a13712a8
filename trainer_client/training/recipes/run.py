"""A recipe's run, from its first weights to its last checkpoint; composes the parts and knows no detail of them."""

from __future__ import annotations

from dataclasses import replace

import torch

from framefeed.errors import BadInput
from framefeed_models.weights.config_json import config_to_json
from trainer_client.datasets.class_file import write_class_file
from trainer_client.feed.buckets import Buckets
from trainer_client.text.narration_bpe import TOKENIZER_NAME, NarrationTokenizer
from trainer_client.training.average import Average
from trainer_client.training.compute import Compute
from trainer_client.training.export import transformers_note
from trainer_client.training.feed_options import FeedPlan
from trainer_client.training.launcher import launch
from trainer_client.training.loop import Ending, TrainLoop
from trainer_client.training.processes import joined, ranks_in
from trainer_client.training.ranks import clips_of_a_rank
from trainer_client.training.recipes.build import Built, build, fill
from trainer_client.training.recipes.evaluating import Where, open_evaluator
from trainer_client.training.recipes.model_spec import decided
from trainer_client.training.recipes.recipe import Recipe, decides, runs
from trainer_client.training.recipes.recipe_file import RECIPE_NAME, write_recipe
from trainer_client.training.recipes.run_data import open_data
from trainer_client.training.session import RunConfig, Session
from trainer_client.training.step import Run
from trainer_client.training.tasks.mae import MaeTask
from trainer_client.training.tasks.task import ClipInputs
from trainer_client.training.watch.contact_sheet import draw_sheet

SHEET_NAME = "contact_sheet.png"
_SHEET_CLIPS = 4
_OF_A_START = ("resume", "skip_step")  # said anew each time, and recorded elsewhere


def train(recipe: Recipe) -> None:
    """Train until the steps or the seconds are over, save, and, for a masked autoencoder, draw what it has learned.

    With --nproc, and not in one of these processes, start them and wait for their end.
    Raises BadInput for options that make no run; KeyboardInterrupt after a clean end on Ctrl-C.
    """
    options = recipe.how.compute
    if options.nproc > 1 and ranks_in().world == 1:
        clips_of_a_rank(recipe.what.length.batch_clips, world=options.nproc)
        launch(lambda path: write_recipe(path, recipe), processes=options.nproc)
        return
    with joined(options.where()) as ranks:
        _train(recipe, options.open(ranks))


def _train(recipe: Recipe, compute: Compute) -> None:
    what, how = recipe.what, recipe.how
    how.kernels.check(compute.device)
    if compute.passes.parallel.compiled and any(rule.pads for rule in what.rules):
        raise BadInput("--short pad: compiled blocks are made anew for each batch's lengths; wanted --compiled off")
    compute.passes.rows_of(compute.ranks.share_of(what.length.batch_clips))
    data = open_data(what.data, how.root, what.mix)
    built = build(what, data)
    plan = feed_plan(recipe, built)
    with Session(how.session, config=run_config(recipe, built, steps=plan.steps), ranks=compute.ranks) as session:
        if isinstance(plan.policy, Buckets):
            session.tell(str(plan.policy))
        run = _begin(recipe, built, compute=compute, session=session, steps=plan.steps)
        with how.feed.open(plan, compute=compute, registry=session.registry) as loader:
            loop = TrainLoop(run, loader, device=compute.device, augment=what.augment)
            scoring = open_evaluator(recipe, built, run, where=Where(compute=compute, session=session, loader=loader))
            ending = session.train(loop, loader, scoring=scoring)
        task: object = run.task
        if ending is not Ending.STOPPED and loop.last_batch is not None and isinstance(task, MaeTask):
            title = f"{recipe.name} after {loop.steps_done} steps"
            clips = task.show(loop.last_batch, clips=_SHEET_CLIPS)
            if compute.ranks.rank == 0:
                draw_sheet(how.session.out / SHEET_NAME, clips, title=title)


def _begin(recipe: Recipe, built: Built, *, compute: Compute, session: Session, steps: int) -> Run[ClipInputs]:
    """The run before its first step. Raises BadInput for first weights that do not fit."""
    what = recipe.what
    session.on_begin.append(lambda: _write_records(recipe, built))
    for note in (built.data.note, transformers_note(built.model)):
        if note:
            session.tell(note)
    torch.manual_seed(what.length.seed)
    task = built.task(kernels=recipe.how.kernels, device=compute.device)
    if not session.resumes and (report := fill(task.model, what.init, norm=built.norm)) is not None:
        session.tell(str(report))
    task.trunk = compute.passes.parallel.spread(task.model, task.trunk)
    learning = what.learning.build(task.model, steps=steps, batch_clips=what.length.batch_clips)
    if learning.schedule.oddity:
        session.tell(learning.schedule.oddity)
    return Run(
        task=task,
        learning=learning,
        passes=compute.passes,
        average=Average(task.model, decay=what.learning.average_decay),
        seed=what.length.seed,
    )


def _write_records(recipe: Recipe, built: Built) -> None:
    """What makes the run again, from any folder, and what its weights were trained on."""
    out = recipe.how.session.out
    write_recipe(out / RECIPE_NAME, replace(recipe, how=replace(recipe.how, root=recipe.how.root.absolute())))
    if isinstance(built.tokenizer, NarrationTokenizer):
        built.tokenizer.save(out / TOKENIZER_NAME)
    if built.data.class_names:
        write_class_file(out, built.data.class_names)


def feed_plan(recipe: Recipe, built: Built) -> FeedPlan:
    """What the run feeds on. Raises BadRequest for a size or stride out of its limits, BadInput for no samples."""
    length, dataset, policy = recipe.what.length, built.data.dataset, built.policy()
    sizes = [len(of) for of in policy.members] if isinstance(policy, Buckets) else [len(dataset)]
    return FeedPlan(
        root=recipe.how.root,
        logs=recipe.how.session.out,
        dataset=dataset,
        policy=policy,
        batch_clips=length.batch_clips,
        seed=length.seed,
        steps=length.steps_over(*sizes),
    )


def run_config(recipe: Recipe, built: Built, *, steps: int) -> RunConfig:
    """What the run's checkpoints say of it."""
    what = decides(recipe) | {
        "recipe": recipe.name,
        "samples": len(built.data.dataset),
        "annotations": built.data.fingerprint,
        "steps": steps,
        **_model_fields("model", config_to_json(decided(built.model))),
    }
    how = {name: value for name, value in runs(recipe).items() if name not in _OF_A_START}
    return RunConfig(what=what, steps=steps, how=how, pixels=built.norm)


def _model_fields(at: str, said: dict[str, object]) -> dict[str, object]:
    """A model's configuration field by field, model.encoder.width."""
    fields = dict[str, object]()
    for name, value in said.items():
        inside = isinstance(value, dict) and "kind" in value
        fields |= _model_fields(f"{at}.{name}", value) if inside else {f"{at}.{name}": value}  # type: ignore[arg-type]
    return fields
