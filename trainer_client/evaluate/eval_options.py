"""What a run's user chooses about scoring it while it trains, and after which steps that is; pure: knows no model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from framefeed.errors import BadInput
from trainer_client.datasets.spec import Absent, DataSpec, Kind, Split
from trainer_client.evaluate.views_of_clips import Rule, ViewOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalOptions:
    """Scores of held-out samples while a run trains: those of `framefeed eval`, of its moving average too.

    They change no weight of the run, whatever is chosen.
    """

    eval_every: int = 0
    """Score after every so many steps, and at the end, instead of by epochs. 0: by --eval-epochs."""
    eval_epochs: float = 0.0
    """Score after every so many epochs, and at the end. 0 and no --eval-every: never."""
    eval_first: bool = False
    """Score the first weights as well."""
    eval_split: Split = "val"
    """Which split is scored on."""
    eval_kind: Kind | None = None
    """What wrote its annotations. Default: as those that are learned from."""
    eval_path: Path | None = None
    """Where they are. Default: where those that are learned from are."""
    eval_absent: Absent = "refuse"
    """What becomes of rows whose video the root does not have: refuse all, or leave_out and count them."""
    eval_root: Path | None = None
    """Folder of their videos, with a manifest. Default: ROOT."""
    eval_servers: tuple[str, ...] = ()
    """Decode servers of that folder. Default: those of the run for ROOT, and local for another folder."""
    eval_clips: int = 32
    """Clips that each process scores at once."""
    eval_rule: Rule = "auto"
    """How frames are picked, as of framefeed eval."""
    eval_stride: int = 4
    """Distance of two frames of a dense rule, in frames of the video."""
    eval_windows: int = 1
    """Windows of frames along time; published tests have more of them, which cost as many times the clips."""
    eval_boxes: int = 1
    """Boxes side by side in the frame; published tests of Kinetics and SSv2 have 3."""
    eval_templates: tuple[str, ...] = ()
    """Sentences in which {} is a class's name, as of framefeed eval."""
    eval_lost: float = 0.01
    """So many samples may have no clip and be left out: a count from 1 on, below it a share of all."""

    def __post_init__(self) -> None:
        for name, least in (
            ("eval_every", 0),
            ("eval_epochs", 0),
            ("eval_clips", 1),
            ("eval_stride", 1),
            ("eval_windows", 1),
            ("eval_boxes", 1),
            ("eval_lost", 0),
        ):
            if not least <= getattr(self, name) < 1e9:
                raise BadInput(f"--{name.replace('_', '-')} is {getattr(self, name):g}, wanted {least} or more")

    @property
    def wanted(self) -> bool:
        """Whether anything is scored at all."""
        return bool(self.eval_every or self.eval_epochs or self.eval_first)

    @property
    def views(self) -> ViewOptions:
        """Which clips of a sample are scored."""
        return ViewOptions(
            rule=self.eval_rule, windows=self.eval_windows, boxes=self.eval_boxes, stride=self.eval_stride
        )

    def rhythm(self, *, steps: int, steps_an_epoch: int) -> EvalRhythm:
        """After which steps of a run of so many."""
        every = self.eval_every or round(self.eval_epochs * steps_an_epoch) or (1 if self.eval_epochs else steps)
        return EvalRhythm(every=every, last=steps, first=self.eval_first)

    def data(self, learned: DataSpec | None) -> DataSpec:
        """What is scored on, beside what is learned from. Raises BadInput where nobody says what and where it is."""
        if learned is None:
            if self.eval_kind is None or self.eval_path is None:
                seen = f"--eval-kind is {self.eval_kind} and --eval-path {self.eval_path}"
                raise BadInput(f"{seen}, wanted both: the run learns from videos without annotations")
            return DataSpec(kind=self.eval_kind, path=self.eval_path, split=self.eval_split, absent=self.eval_absent)
        kind, path = self.eval_kind or learned.kind, self.eval_path or learned.path
        classes = learned.classes if kind == learned.kind else None
        return replace(
            learned,
            kind=kind,
            path=path,
            split=self.eval_split,
            absent=self.eval_absent,
            extra=(),
            classes=classes,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalRhythm:
    """After every so many steps, after the last, and before the first one if that is wanted."""

    every: int
    last: int
    first: bool = False

    def is_due(self, step: int) -> bool:
        """Whether the weights after `step` steps are scored. Pure."""
        return self.first if step == 0 else step == self.last or step % self.every == 0
