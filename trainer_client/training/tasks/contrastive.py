"""Video-language contrast: clips and their texts meet in one space, every other pair of the batch is a negative.

It knows towers and tokens, not words: how a sample is put into words is the caller's.

Axes: B clips of this rank, W ranks, E joint width, L tokens of a text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from framefeed_models.dual_encoder import DualEncoder, DualEncoderConfig, DualEncoding
from framefeed_models.pixel_norm import CLIP, PixelNorm
from trainer_client.feed.batch import Batch
from trainer_client.samples import Sample
from trainer_client.text.tokens import Tokenizer
from trainer_client.training.device_feed import DeviceBatch
from trainer_client.training.ranks import Ranks
from trainer_client.training.tasks.feature_spread import feature_spread
from trainer_client.training.tasks.task import ClipInputs, Losses

TextOf = Callable[[Sample, int], str]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PairInputs(ClipInputs):
    """Clips and the tokens of their texts, int64 (B, L)."""

    tokens_BL: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """How a sample becomes tokens: one of its texts, which `text_of` draws by the clip's seed, through a tokenizer that
    fits the text tower."""

    text_of: TextOf
    tokenizer: Tokenizer

    def tokens(self, batch: Batch) -> Tensor:
        """The batch's tokens (B, L) on the host, without columns that are padding in all: causal towers see none."""
        given = zip(batch.samples, batch.seeds.tolist(), strict=True)
        rows = self.tokenizer.encode([self.text_of(sample, seed) for sample, seed in given])
        longest = max(int(rows.any(axis=0).sum()), 1)
        return torch.from_numpy(rows[:, :longest].copy())


class ContrastiveTask:
    """A dual encoder under InfoNCE both ways (Radford et al. 2021, figure 3), over the clips of all ranks.

    `local_loss` compares a rank's own rows with the columns of all, W times less work, with the same gradient. The
    temperature is learned or kept as the model's configuration says, and clamped after each step.
    """

    coupled = True

    def __init__(
        self,
        config: DualEncoderConfig,
        texts: Texts,
        *,
        device: torch.device,
        norm: PixelNorm = CLIP,
        local_loss: bool = False,
    ) -> None:
        self._texts, self._norm, self._local = texts, norm, local_loss
        self._encoder = DualEncoder(config).to(device)
        self.model: nn.Module = self._encoder
        self.trunk: nn.Module = self.model

    def on_host(self, batch: Batch) -> dict[str, Tensor]:
        """Tokens of the samples' texts."""
        return {"tokens_BL": self._texts.tokens(batch)}

    def prepare(self, batch: DeviceBatch) -> PairInputs:
        """Normalised clips, and tokens."""
        made = batch.made_by(self.on_host)
        x_BCTYX = batch.normalised(self._norm)
        return PairInputs(x_BCTYX=x_BCTYX, seeds_B=batch.seeds_B, frames_B=batch.batch.frames, **made)

    def rows(self, x: PairInputs) -> Tensor:
        """Video and text features of length 1, and the scale of the logits as one more value, (B, 2 E + 1).

        The scale is the same in all rows: so it comes out of `forward`, where a wrapper counts its gradient.
        """
        return pair_rows(self.trunk(x.x_BCTYX, x.tokens_BL, seeds_B=x.seeds_B, frames_B=x.frames_B))

    def loss(self, rows: Tensor, x: PairInputs, ranks: Ranks) -> Losses:
        """½ (CE of each clip's logits over all texts + CE of each text's over all clips), the mean over clips."""
        everyone = ranks.gather(rows)
        own, first = (rows, ranks.rank * len(rows)) if self._local else (everyone, 0)
        loss, correct = info_nce(own, everyone, first=first)
        spread = feature_spread(split_pairs(everyone)[0])
        return Losses(total=loss, parts={"top1": correct, "scale": everyone[:, -1].mean(), **spread})

    def after_step(self, step: int) -> None:
        """Keep the scale between 1 and 100."""
        self._encoder.clamp_scale()


def pair_rows(found: DualEncoding) -> Tensor:
    """What both towers found as one tensor (B, 2 E + 1)."""
    scale_B1 = found.scale.expand(len(found.video_BE), 1)
    return torch.cat((found.video_BE, found.text_BE, scale_B1), dim=1)


def split_pairs(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Video (B, E) and text (B, E) of rows (B, 2 E + 1)."""
    video_BE, text_BE = rows[:, :-1].chunk(2, dim=1)
    return video_BE, text_BE


def info_nce(own: Tensor, everyone: Tensor, *, first: int) -> tuple[Tensor, Tensor]:
    """The loss of rows `own`, which are those from `first` on of `everyone`, and the share whose text ranks highest."""
    scale = everyone[:, -1].mean()
    video_BE, text_BE = split_pairs(own)
    videos_GE, texts_GE = split_pairs(everyone)
    to_texts_BG, to_videos_BG = scale * video_BE @ texts_GE.T, scale * text_BE @ videos_GE.T
    labels_B = torch.arange(first, first + len(own), device=own.device)
    loss = (cross_entropy(to_texts_BG, labels_B) + cross_entropy(to_videos_BG, labels_B)) / 2
    return loss, (to_texts_BG.detach().argmax(dim=1) == labels_B).float().mean()
