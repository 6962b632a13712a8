"""Ranking by a margin, for retrieval with several right answers; knows pairs of features and a weight of each pair.

Axes: B clips of this rank, G clips of all ranks, E joint width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from framefeed.errors import BadInput
from framefeed_models.dual_encoder import DualEncoder, DualEncoderConfig
from framefeed_models.pixel_norm import CLIP, PixelNorm
from trainer_client.feed.batch import Batch
from trainer_client.samples import Sample
from trainer_client.training.device_feed import DeviceBatch
from trainer_client.training.ranks import Ranks
from trainer_client.training.tasks.contrastive import PairInputs, Texts, pair_rows, split_pairs
from trainer_client.training.tasks.feature_spread import feature_spread
from trainer_client.training.tasks.task import Losses

WeightOf = Callable[[Sample, int], float]
"""How relevant the text is that a sample is given by a clip's seed, 0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WeightedPairs(PairInputs):
    """Pairs, and how relevant each text is to its clip, float32 (B,)."""

    weight_B: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Margin:
    """How far a pair's similarity has to be above that of others: `width`, or `width` times the relevancy of the pair's
    own text to its clip, by `weight_of` (LaViLa's adaptive variant, with 0.4). Raises BadInput for a width that is not
    positive.
    """

    width: float = 0.2
    weight_of: WeightOf | None = None

    def __post_init__(self) -> None:
        if not self.width > 0:
            raise BadInput(f"ranking: margin is {self.width}, wanted more than 0")


class RankingTask:
    """A dual encoder under the max-margin loss of EPIC-Kitchens' multi-instance retrieval (AVION, LaViLa)."""

    coupled = True

    def __init__(
        self,
        config: DualEncoderConfig,
        texts: Texts,
        *,
        device: torch.device,
        margin: Margin | None = None,
        norm: PixelNorm = CLIP,
    ) -> None:
        self._texts, self._norm, self._margin = texts, norm, margin or Margin()
        self._encoder = DualEncoder(config).to(device)
        self.model: nn.Module = self._encoder
        self.trunk: nn.Module = self.model

    def on_host(self, batch: Batch) -> dict[str, Tensor]:
        """Tokens, and relevances: 1 without `weight_of`."""
        weight_of = self._margin.weight_of
        drawn = zip(batch.samples, batch.seeds.tolist(), strict=True)
        weights = [1.0 if weight_of is None else weight_of(sample, seed) for sample, seed in drawn]
        return {"tokens_BL": self._texts.tokens(batch), "weight_B": torch.tensor(weights, dtype=torch.float32)}

    def prepare(self, batch: DeviceBatch) -> WeightedPairs:
        """Normalised clips, tokens, and relevances."""
        made = batch.made_by(self.on_host)
        x_BCTYX = batch.normalised(self._norm)
        return WeightedPairs(x_BCTYX=x_BCTYX, seeds_B=batch.seeds_B, frames_B=batch.batch.frames, **made)

    def rows(self, x: WeightedPairs) -> Tensor:
        """As in ContrastiveTask, (B, 2 E + 1)."""
        return pair_rows(self.trunk(x.x_BCTYX, x.tokens_BL, seeds_B=x.seeds_B, frames_B=x.frames_B))

    def loss(self, rows: Tensor, x: WeightedPairs, ranks: Ranks) -> Losses:
        """`max_margin` over the clips of all ranks. Raises BadInput for a batch of one clip."""
        everyone = ranks.gather(torch.cat((rows, x.weight_B[:, None]), dim=1))
        if len(everyone) < 2:
            raise BadInput("ranking: a step has 1 clip, wanted at least 2 to compare")
        video_GE, text_GE = split_pairs(everyone[:, :-1])
        loss = max_margin(video_GE @ text_GE.T, margin_G=self._margin.width * everyone[:, -1])
        return Losses(total=loss, parts=feature_spread(video_GE))

    def after_step(self, step: int) -> None:
        """Keep the scale between 1 and 100; the loss has none, but the weights may be used with one."""
        self._encoder.clamp_scale()


def max_margin(similarity_GG: Tensor, *, margin_G: Tensor) -> Tensor:
    """The mean over i ≠ j of [m_i - S_ii + S_ij]₊ and [m_i - S_ii + S_ji]₊, S of clips and texts, a scalar."""
    wanted_G1 = (margin_G - similarity_GG.diagonal())[:, None]
    costs_GG = relu(wanted_G1 + similarity_GG) + relu(wanted_G1 + similarity_GG.T)
    others_GG = ~torch.eye(len(similarity_GG), dtype=torch.bool, device=similarity_GG.device)
    pairs = len(similarity_GG) * (len(similarity_GG) - 1)
    return (costs_GG * others_GG).sum() / (2 * pairs)
