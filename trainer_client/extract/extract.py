"""The verb `extract`: features and content measures of every window or annotated clip, through decode servers.

    framefeed extract runs/mae ROOT --out features                        # windows of 2 s, one after another
    framefeed extract runs/mae ROOT --out features --window-s 4 --stride-s 1 --frames 32
    framefeed extract lavila.pt ROOT --model.arch … --feature joint --annotations EPIC --kind ek100_cls --split val \\
        --out features --format parquet
    torchrun --nproc-per-node 8 -m framefeed.cli extract runs/mae ROOT --out features

The same command goes on where a killed one stood: the files are those of a run that was not disturbed, byte for byte
on one kind of machine, whatever the number of processes with as many clips each. It composes the parts and knows no
detail of them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro
from rich.console import Console

from framefeed.crops import Crop, ResizedCentreCrop, WholeFrame
from framefeed.errors import BadInput, fields_named
from framefeed.manifest import Manifest, read_manifest
from framefeed.quarantine import read_quarantine
from framefeed.sampling import DenseView, Sampling, Segments
from trainer_client.checked_dataset import CheckedDataset
from trainer_client.clip_policy import ClipPolicy
from trainer_client.datasets.open_dataset import open_dataset
from trainer_client.datasets.spec import Absent, DataSpec, Kind, Split
from trainer_client.evaluate.model_file import ModelChoice
from trainer_client.extract.clip_features import ClipFeatures, Feature, open_features
from trainer_client.extract.content import CONTENT
from trainer_client.extract.extraction import BegunAt, Filling, Step, features_of
from trainer_client.extract.shard_files import Format, shard_file
from trainer_client.extract.shard_folder import ShardFolder
from trainer_client.extract.sliding_windows import SlidingWindows
from trainer_client.feed.stand_ins import PoisonOptions, PoisonPolicy
from trainer_client.fleet.addresses import LOCAL
from trainer_client.loader import ClipLoader, LoaderOptions
from trainer_client.samples import Dataset
from trainer_client.training.compute import Compute, ComputeOptions
from trainer_client.training.folder_lock import only_user
from trainer_client.training.precision import Precision, PrecisionName
from trainer_client.training.processes import joined
from trainer_client.training.ranks import Ranks
from trainer_client.transports.credentials import Credentials


@dataclass(frozen=True, kw_only=True)
class ClipChoice:
    """Which clips there are, and which frames of them."""

    window_s: float = 2.0
    """Windows of so many seconds slide over every video; not used with --annotations."""
    stride_s: float | None = None
    """A window begins every so many seconds. Default: --window-s, one after another."""
    annotations: Path | None = None
    """Annotations whose spans are the clips. Default: windows."""
    kind: Kind = "table"
    """What wrote the annotations, as --data.kind of eval."""
    split: Split = "val"
    """Which of the files in a folder of annotations."""
    absent: Absent = "refuse"
    """Rows whose video the root does not have: refuse all, or leave_out and count them."""
    frames: int | None = None
    """Frames of a clip, any number: positions are fitted to it. Default: as the weights were trained."""
    sampling: Literal["segments", "dense"] = "segments"
    """Frames evenly over the clip's time (segments), or --frame-stride apart around its middle (dense)."""
    frame_stride: int = 4
    """Distance of two frames of dense sampling, in frames of the video."""
    crop: Literal["centre", "whole"] = "centre"
    """The largest centred box of the model's shape, or the whole frame without regard to its shape."""

    def __post_init__(self) -> None:
        for name in ("window_s", "stride_s"):
            value_s = getattr(self, name)
            if value_s is not None and not 0 < value_s < math.inf:
                raise BadInput(f"--{name.replace('_', '-')} is {value_s:g}, wanted a positive number of seconds")
        if self.frames is not None and self.frames < 1:
            raise BadInput(f"--frames is {self.frames}, wanted at least 1")
        if self.frame_stride < 1:
            raise BadInput(f"--frame-stride is {self.frame_stride}, wanted at least 1")

    def dataset(self, manifest: Manifest, root: Path) -> Dataset:
        """The samples. Raises BadInput for annotations that are none, and where there is no sample."""
        found: Dataset
        if self.annotations is None:
            stride_s = self.window_s if self.stride_s is None else self.stride_s
            found = SlidingWindows(
                manifest, window_s=self.window_s, stride_s=stride_s, quarantine=read_quarantine(root)
            )
        else:
            spec = DataSpec(kind=self.kind, path=self.annotations, split=self.split, absent=self.absent)
            found = open_dataset(spec, manifest, option="--absent")
        if not len(found):
            raise BadInput(f"{self.annotations or root} has no clip, wanted at least one")
        return found

    def policy(self, features: ClipFeatures) -> ClipPolicy:
        """The clips of a model. Raises BadRequest for numbers out of their limits."""
        grid, frames = features.grid, features.frames
        sampling: Sampling = Segments(frames=frames)
        if self.sampling == "dense":
            sampling = DenseView(frames=frames, stride=self.frame_stride, view=0, views=1)
        crop: Crop = WholeFrame() if self.crop == "whole" else ResizedCentreCrop(ratio=grid.width_px / grid.height_px)
        return ClipPolicy(sampling=sampling, crop=crop, width_px=grid.width_px, height_px=grid.height_px)


@dataclass(frozen=True, kw_only=True)
class Extract:
    """Write a model's features of every window or annotated clip. Beside them stands what clips show:
    motion_intensity and scene_complexity. The same command goes on where an earlier one was stopped or killed.
    """

    FIRST_OPTIONS: ClassVar[tuple[str, ...]] = (
        "--window-s", "--stride-s", "--annotations", "--kind", "--frames", "--model.arch", "--feature", "--format",
        "--servers", "--batch-clips",
    )  # fmt: skip

    weights: Annotated[Path, tyro.conf.Positional]
    """A run, one of its checkpoints, an exported folder, or weights of AVION or LaViLa."""
    root: Annotated[Path, tyro.conf.Positional]
    """Folder that the servers serve: its manifest says which videos there are."""
    out: Path
    """Folder that gets features-*.safetensors, or .parquet: a new one, or that of a run to go on with."""
    clips: Annotated[ClipChoice, tyro.conf.arg(name="")] = field(default_factory=ClipChoice)
    model: ModelChoice = field(default_factory=ModelChoice)
    feature: Feature = "encoder"
    """encoder: the video encoder's pooled feature. tokens: all its tokens. joint: a dual encoder's row of length 1."""
    format: Format = "safetensors"
    """parquet needs pyarrow: pip install 'framefeed[parquet]'."""
    dtype: Literal["float32", "float16"] = "float32"
    """Of the features in the files."""
    shard_rows: int = 16384
    """Rows of a file; so many are lost at most when a run is killed."""
    servers: tuple[str, ...] = (LOCAL,)
    """Decode servers, as of train; local is one for each process on this machine's spare CPUs."""
    batch_clips: int = 32
    """Clips of one step of each process."""
    poison: PoisonPolicy = "replace"
    """A clip that no server can give has a row of NaN and is counted (replace, skip), or ends the run (raise)."""
    poison_budget: float = 0.01
    """So many clips may be missing so: a count from 1 on, below it a share of all."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model is; auto takes the GPU if there is one."""
    precision: PrecisionName = "fp32"
    """Precision of matrix products and attention."""
    threads: int = 0
    """CPU threads of torch; 0 leaves it to torch."""
    credentials: Credentials = field(default_factory=Credentials)

    def run(self) -> None:
        """Extract what is not there yet. Blocks until it is on storage.

        Raises BadInput for weights, clips or a folder that do not fit each other; KeyboardInterrupt after Ctrl-C.
        """
        if self.shard_rows < 1:
            raise BadInput(f"--shard-rows is {self.shard_rows}, wanted at least 1")
        self._loader_options(Ranks(), clips=1)  # what is wrong with them is said before the weights are read
        form = shard_file(self.format)
        compute_options = ComputeOptions(device=self.device, threads=self.threads)
        with joined(compute_options.where()) as ranks:
            compute = compute_options.open(ranks)
            precision = Precision(self.precision, device=compute.device)
            features = open_features(
                self.weights, self.model, self.feature, frames=self.clips.frames, precision=precision
            )
            dataset = self.clips.dataset(read_manifest(self.root), self.root)
            policy = self.clips.policy(features)
            folder = ShardFolder(self.out, form, samples=len(dataset), shard_rows=self.shard_rows)
            with only_user(self.out) if ranks.rank == 0 else nullcontext():
                if ranks.rank == 0:
                    folder.open(self._identity(features, dataset, policy))
                ranks.first_says("open")
                for note in features.notes:
                    self._tell(note, compute)
                self._extract(features, dataset, policy, folder, compute)

    def _identity(self, features: ClipFeatures, dataset: Dataset, policy: ClipPolicy) -> dict[str, object]:
        """All that decides what is in the shards."""
        checked = CheckedDataset(dataset)
        return {
            "weights": features.fingerprint,
            "feature": self.feature,
            "shape": features.shape,
            "dtype": self.dtype,
            "format": self.format,
            "precision": self.precision,
            "content": CONTENT,
            "policy": policy.digest,
            "frames": features.frames,
            "videos": checked.identity,
            "clips": len(dataset),
            "clips_digest": checked.digest,
            "window_s": None if self.clips.annotations else self.clips.window_s,
            "shard_rows": self.shard_rows,
        }

    def _extract(
        self, features: ClipFeatures, dataset: Dataset, policy: ClipPolicy, folder: ShardFolder, compute: Compute
    ) -> None:
        done, said, damage = folder.whole()
        done = int(compute.ranks.first_says(str(done)))
        first = done * self.shard_rows
        if damage:
            self._tell(damage, compute)
        if done == folder.shards:
            self._tell(f"all {len(dataset):,} clips are in {self.out} already", compute)
            return
        if done:
            self._tell(f"going on after {first:,} of {len(dataset):,} clips, which are in {self.out}", compute)
        options = self._loader_options(compute.ranks, clips=len(dataset) - first)
        with ClipLoader(BegunAt(dataset, first=first), policy, options, allocate=compute.allocate) as loader:
            if decoder := said.get("decoder"):  # the clips of one extraction are of one decoder
                loader.load_state_dict({**loader.state_dict(), "decoder_fingerprint": decoder})
            steps = features_of(loader, features, ranks=compute.ranks, device=compute.device)
            if compute.ranks.rank:
                for _ in steps:
                    pass
                return
            filling = Filling(folder, dataset, shape=features.shape, dtype=self.dtype)
            self._write(filling, steps, loader, folder=folder, first_shard=done, clips=len(dataset))

    def _write(
        self,
        filling: Filling,
        steps: Iterator[Step],
        loader: ClipLoader,
        *,
        folder: ShardFolder,
        first_shard: int,
        clips: int,
    ) -> None:
        console, began_s, done = Console(), time.monotonic(), first_shard
        try:
            for done in filling.fill(steps, first_shard=first_shard, said=lambda: _of(loader)):
                rows = min(done * self.shard_rows, clips)
                rate = (rows - first_shard * self.shard_rows) / (time.monotonic() - began_s)
                console.print(f"{rows:,} of {clips:,} clips, {rate:,.1f} a second", highlight=False)
        except KeyboardInterrupt:
            folder.settle()
            rows = min(done * self.shard_rows, clips)
            console.print(f"stopped: {rows:,} of {clips:,} clips are in {self.out}; the same command goes on")
            raise
        waited_s = sum(loader.waited_s.values())
        share = waited_s / (time.monotonic() - began_s)
        lost = f"; {filling.missing:,} clips that no server could give are rows of NaN" if filling.missing else ""
        console.print(
            f"{clips:,} clips in {folder.shards} files of {self.out}{lost}; waited for data {share:.0%} of the time",
            highlight=False,
        )

    def _loader_options(self, ranks: Ranks, *, clips: int) -> LoaderOptions:
        with fields_named(budget="poison_budget"):
            poison = PoisonOptions(policy=self.poison, budget=self.poison_budget)
        return LoaderOptions(
            servers=self.servers,
            root=self.root if LOCAL in self.servers else None,
            batch_clips=self.batch_clips,
            rank=ranks.rank,
            world_size=ranks.world,
            steps=-(-clips // (max(self.batch_clips, 1) * ranks.world)),
            shuffle=False,
            run="extract",
            poison=poison,
            credentials=self.credentials,
        )

    def _tell(self, line: str, compute: Compute) -> None:
        if compute.ranks.rank == 0:
            Console().print(line, highlight=False, markup=False, soft_wrap=True)


def _of(loader: ClipLoader) -> dict[str, object]:
    """What a shard says of the servers that its clips came from."""
    return {"decoder": loader.state_dict()["decoder_fingerprint"]}
