"""The verb `eval`: scores a model on annotated videos, through decode servers; composes and knows no metric's detail.

    framefeed eval runs/mir ROOT --data.kind ek100_mir --data.path annotations --data.split val
    framefeed eval lavila.pt ROOT --model.arch … --data.kind egomcq --data.path egomcq.json
    torchrun --nproc-per-node 8 -m framefeed.cli eval runs/k400 ROOT --data.kind kinetics --data.path lists \\
        --data.split val --out k400.json

On several processes the same JSON comes out as on one with the same --batch-clips, --device and --threads.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro
from rich.console import Console

from framefeed.errors import BadInput, fields_named
from framefeed.manifest import read_manifest
from framefeed.new_file import check_place, write_whole
from framefeed_models.dual_encoder import DualEncoder
from trainer_client.datasets.open_dataset import open_dataset
from trainer_client.datasets.spec import DataSpec
from trainer_client.evaluate.choose_scorer import Asked, Subject, choose_scorer
from trainer_client.evaluate.class_numbers import number_as_trained
from trainer_client.evaluate.collect import collect
from trainer_client.evaluate.model_file import ModelChoice, ScoredModel, open_model
from trainer_client.evaluate.report import Report, Source, report_of, weights_said
from trainer_client.evaluate.tokenizer_file import open_tokenizer
from trainer_client.evaluate.views_of_clips import ViewOptions
from trainer_client.feed.stand_ins import PoisonOptions, PoisonPolicy
from trainer_client.fleet.addresses import LOCAL
from trainer_client.loader import ClipLoader, LoaderOptions
from trainer_client.training.compute import ComputeOptions
from trainer_client.training.precision import Precision, PrecisionName
from trainer_client.training.processes import joined
from trainer_client.transports.credentials import Credentials
from trainer_client.views import Views


@dataclass(frozen=True, kw_only=True)
class Eval:
    """Score a model on annotated videos.

    What it is scored by follows from the data and the model.
    """

    FIRST_OPTIONS: ClassVar[tuple[str, ...]] = (
        "--data.split",
        "--data.absent",
        "--servers",
        "--batch-clips",
        "--out",
        "--tokenizer",
        "--views.windows",
        "--views.boxes",
        "--device",
        "--precision",
    )

    weights: Annotated[Path, tyro.conf.Positional]
    """A run, one of its checkpoints, an exported folder, or weights of AVION or LaViLa."""
    root: Annotated[Path, tyro.conf.Positional]
    """Folder that the servers serve: its manifest says which videos there are."""
    data: DataSpec
    model: ModelChoice = field(default_factory=ModelChoice)
    views: ViewOptions = field(default_factory=ViewOptions)
    servers: tuple[str, ...] = (LOCAL,)
    """Decode servers, as of train; local is one for each process on this machine's spare CPUs."""
    batch_clips: int = 32
    """Clips of one step of each process."""
    tokenizer: Path | None = None
    """tokenizer.json of a run, or CLIP's vocabulary. Default: the run's own, or else CLIP's where that fits."""
    templates: tuple[str, ...] = ()
    """Sentences in which {} is a class's name. Default: LaViLa's for egocentric videos, else the name alone and a
    video of it."""
    relevancy: Path | None = None
    """A pickle of relevancies for ek100_mir. Default: they are reckoned from the CSVs."""
    poison: PoisonPolicy = "replace"
    """A clip that no server can give is left out of the score and counted (replace, skip), or ends it (raise)."""
    poison_budget: float = 0.01
    """So many samples may be left out so: a count from 1 on, below it a share of all."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model is; auto takes the GPU if there is one."""
    precision: PrecisionName = "fp32"
    """Precision of matrix products and attention."""
    threads: int = 0
    """CPU threads of torch; 0 leaves it to torch."""
    out: Path | None = None
    """File that gets the scores as JSON."""
    credentials: Credentials = field(default_factory=Credentials)

    def run(self) -> None:
        """Score, show a table and write the JSON. Blocks until all clips were seen.

        Raises BadInput for weights, data or options that do not fit each other.
        """
        check_place(self.out, option="--out")
        self._loader_options(rank=0, world=1)  # what is wrong with them is said before the weights are read
        compute_options = ComputeOptions(device=self.device, threads=self.threads)
        with joined(compute_options.where()) as ranks:
            compute = compute_options.open(ranks)
            model = open_model(self.weights, self.model, compute.device)
            dataset = open_dataset(self.data, read_manifest(self.root))
            policy = self.views.policy(self.data.kind, model.grid)
            if self.data.classes is None:
                number_as_trained(dataset, self.weights, model.model)
            subject = self._subject(model, Precision(self.precision, device=compute.device))
            asked = Asked(data=self.data, templates=self.templates, relevancy=self.relevancy)
            scorer = choose_scorer(subject, dataset, asked)
            options = self._loader_options(rank=ranks.rank, world=ranks.world)
            views = Views(dataset, views=policy.views)
            with ClipLoader(views, policy, options, allocate=compute.allocate) as loader:
                collected = collect(
                    loader,
                    scorer.rows_of,
                    samples=len(dataset),
                    views=policy.views,
                    ranks=ranks,
                    device=compute.device,
                )
                decoder = loader.state_dict()["decoder_fingerprint"]
            scores = scorer.score(collected, rank=ranks.rank)
            if ranks.rank == 0:
                weights = weights_said(self.weights, model.fingerprint, average=self.model.average, by=self.precision)
                source = Source(dataset=dataset, policy=policy, decoder=decoder)
                self._tell(report_of(scorer.metric, scores, collected=collected, weights=weights, source=source))

    def _loader_options(self, *, rank: int, world: int) -> LoaderOptions:
        with fields_named(budget="poison_budget"):
            poison = PoisonOptions(policy=self.poison, budget=self.poison_budget)
        return LoaderOptions(
            servers=self.servers,
            root=self.root if LOCAL in self.servers else None,
            batch_clips=self.batch_clips,
            rank=rank,
            world_size=world,
            epochs=1,
            shuffle=False,
            work_class="eval",
            run="eval",
            poison=poison,
            credentials=self.credentials,
        )

    def _subject(self, scored: ScoredModel, precision: Precision) -> Subject:
        model = scored.model
        tokenizer = None
        if isinstance(model, DualEncoder):
            tokenizer = open_tokenizer(self.tokenizer, self.weights, model.config.text)
        return Subject(model=model, norm=scored.norm, precision=precision, tokenizer=tokenizer)

    def _tell(self, report: Report) -> None:
        Console().print(report.table())
        if self.out is not None:
            try:
                write_whole(self.out, report.as_json().encode())
            except OSError as error:
                raise BadInput(f"--out {self.out} cannot be written: {error.strerror}") from None
