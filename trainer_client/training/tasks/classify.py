"""Classification with one or several heads; knows numbers of classes and labels, not what they mean.

Axes: B clips, H heads, K classes of all heads together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from framefeed.errors import BadInput
from framefeed.show_value import show_value
from framefeed_models.classifier import Classifier, ClassifierConfig
from framefeed_models.pixel_norm import CLIP, PixelNorm
from trainer_client.feed.batch import Batch
from trainer_client.samples import Sample
from trainer_client.training.augment.mixup import Mix, MixRule, swap
from trainer_client.training.device_feed import DeviceBatch
from trainer_client.training.ranks import Ranks
from trainer_client.training.tasks.feature_spread import feature_spread
from trainer_client.training.tasks.task import ClipInputs, Losses

LabelsOf = Callable[[Sample], Mapping[str, int]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelledInputs(ClipInputs):
    """Clips, the label (B, H) of each head, the neighbour's, and the share of its own that a clip has kept, (B,)."""

    labels_BH: Tensor
    others_BH: Tensor
    kept_B: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """What a classifier is to say: the label of each head by name, smoothed by `smoothing`, of clips mixed by `mix`."""

    labels_of: LabelsOf
    smoothing: float = 0.0
    mix: MixRule | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.smoothing < 1.0:
            raise BadInput(f"classify: smoothing is {self.smoothing}, wanted 0 <= smoothing < 1")


class ClassifyTask:
    """A video encoder and its heads under cross entropy, summed over heads."""

    coupled = False

    def __init__(
        self, config: ClassifierConfig, targets: Targets, *, device: torch.device, norm: PixelNorm = CLIP
    ) -> None:
        self._heads, self._targets, self._norm = dict(config.heads), targets, norm
        self.model: nn.Module = Classifier(config).to(device)
        self.trunk: nn.Module = self.model

    def on_host(self, batch: Batch) -> dict[str, Tensor]:
        """Labels, and the mix with neighbours if there is a rule.

        Raises BadInput for a label that is not one of its head's classes.
        """
        made = {"labels_BH": self._labels(batch.samples)}
        if self._targets.mix is not None:
            rows, columns = batch.pixels.shape[2:4]
            mix = self._targets.mix.draw(
                batch.seeds.tolist(),
                height_px=rows if batch.pixels.ndim == 5 else rows * 2 // 3,
                width_px=columns,
                first_position=int(batch.positions[0]),
            )
            made |= {"kept_B": mix.kept_B, "box_B4": mix.box_B4}
        return made

    def prepare(self, batch: DeviceBatch) -> LabelledInputs:
        """Normalised clips and their labels; in training mixed with their neighbours' if there is a rule."""
        made, x_BCTYX = batch.made_by(self.on_host), batch.normalised(self._norm)
        labels_BH = made["labels_BH"]
        others_BH, kept_B = labels_BH, torch.ones(len(labels_BH), device=labels_BH.device)
        if self._targets.mix is not None and self.model.training:
            mix = Mix(kept_B=made["kept_B"], box_B4=made["box_B4"])
            x_BCTYX, others_BH, kept_B = mix.apply(x_BCTYX), swap(labels_BH), mix.kept_B
        return LabelledInputs(
            x_BCTYX=x_BCTYX,
            seeds_B=batch.seeds_B,
            frames_B=batch.batch.frames,
            labels_BH=labels_BH,
            others_BH=others_BH,
            kept_B=kept_B,
        )

    def rows(self, x: LabelledInputs) -> Tensor:
        """The logits of all heads, side by side, (B, K)."""
        logits = self.trunk(x.x_BCTYX, seeds_B=x.seeds_B, frames_B=x.frames_B)
        return torch.cat([logits[name] for name in self._heads], dim=1)

    def loss(self, rows: Tensor, x: LabelledInputs, ranks: Ranks) -> Losses:
        """The sum over heads of `smooth_cross_entropy`; each head's accuracy at its larger label, logits' spread."""
        losses, parts = list[Tensor](), feature_spread(rows)
        for number, (name, logits_BK) in enumerate(zip(self._heads, self._split(rows), strict=True)):
            label_B, other_B = x.labels_BH[:, number], x.others_BH[:, number]
            own_B = smooth_cross_entropy(logits_BK, label_B, smoothing=self._targets.smoothing)
            other = smooth_cross_entropy(logits_BK, other_B, smoothing=self._targets.smoothing)
            losses.append((x.kept_B * own_B + (1 - x.kept_B) * other).mean())
            larger_B = torch.where(x.kept_B >= 0.5, label_B, other_B)
            parts[f"{name}_top1"] = (logits_BK.detach().argmax(dim=1) == larger_B).float().mean()
        return Losses(total=torch.stack(losses).sum(), parts=parts)

    def after_step(self, step: int) -> None:
        """Nothing follows."""

    def _split(self, rows: Tensor) -> Sequence[Tensor]:
        return torch.split(rows, list(self._heads.values()), dim=1)

    def _labels(self, samples: Sequence[Sample]) -> Tensor:
        found = [self._targets.labels_of(sample) for sample in samples]
        for sample, labels in zip(samples, found, strict=True):
            for name, classes in self._heads.items():
                if not 0 <= labels.get(name, -1) < classes:
                    where = f"{sample.video} [{sample.start_s:g}, {sample.end_s:g}) s"
                    raise BadInput(
                        f"label {show_value(name)} of {where} is {labels.get(name)}, wanted 0 to {classes - 1}"
                    )
        return torch.tensor([[labels[name] for name in self._heads] for labels in found])


def smooth_cross_entropy(logits_BK: Tensor, labels_B: Tensor, *, smoothing: float) -> Tensor:
    """-Σ_k q_k log p_k of each clip, (B,), q = 1 - ε of the label + ε / K of every class (Szegedy et al. 2016, §7)."""
    log_p_BK = log_softmax(logits_BK, dim=1)
    label_B = log_p_BK.gather(1, labels_B[:, None])[:, 0]
    return -(1.0 - smoothing) * label_B - smoothing * log_p_BK.mean(dim=1)
