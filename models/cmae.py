"""CMAE-V, a masked autoencoder with a contrastive branch; it knows two views of a clip, not who chose or masked them.

Axes: B clips, T frames, U frames of a longer clip, Y rows, X columns, C channels, N tokens of a clip, D width,
E width of the contrastive space. Implemented from Lu et al. 2023, arXiv 2301.06018, and Huang et al. 2022, 2207.13532.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from models.block import Stack, init_xavier
from models.videomae import VideoMAE, VideoMAEConfig, VideoMAEOutput


@dataclass(frozen=True, slots=True, kw_only=True)
class CMAEConfig:
    """VideoMAE plus a contrastive branch; the defaults are the papers' (Huang et al. 2022, §3).

    `feature_depth` is the depth of the feature decoder, whose blocks are otherwise the pixel decoder's; `hidden` and
    `joint` are the widths of the projection and prediction heads (BYOL's). Raises ValueError for impossible values.
    """

    mae: VideoMAEConfig
    feature_depth: int = 2
    hidden: int = 4096
    joint: int = 256
    temperature: float = 0.07
    contrastive_weight: float = 1.0

    def __post_init__(self) -> None:
        for name in ("feature_depth", "hidden", "joint"):
            if getattr(self, name) < 1:
                raise ValueError(f"CMAE: {name} is {getattr(self, name)}, wanted at least 1")
        if not self.temperature > 0 or not self.contrastive_weight >= 0:
            seen = f"temperature {self.temperature}, contrastive_weight {self.contrastive_weight}"
            raise ValueError(f"CMAE: got {seen}, wanted a positive and a non-negative number")


@dataclass(frozen=True, slots=True, kw_only=True)
class CMAEOutput:
    """float32 scalars: `loss` = reconstruction loss + weight · `contrastive_loss`; and what VideoMAE found."""

    loss: Tensor
    contrastive_loss: Tensor
    mae: VideoMAEOutput


class CMAE(nn.Module):
    """Two branches (Huang et al. 2022, §3):

    online: visible cubes of one view → encoder → pixel decoder → the masked cubes, as in VideoMAE;
            and → feature decoder → mean of all tokens → projection → prediction;
    target: all cubes of the other view → encoder → mean → projection, a moving average of the online branch.
    The other view is the same clip a little later: temporal shift in the place of CMAE's pixel shift (Lu et al. 2023).
    """

    def __init__(self, config: CMAEConfig) -> None:
        super().__init__()
        self.config = config
        width, decoder_width = config.mae.encoder.width, config.mae.decoder.width
        self.mae = VideoMAE(config.mae)
        self.feature_decoder = Stack(replace(config.mae.decoder, depth=config.feature_depth))
        self.feature_norm = nn.LayerNorm(decoder_width, eps=config.mae.decoder.norm_eps)
        self.feature_head = nn.Linear(decoder_width, width)
        for module in (self.feature_decoder, self.feature_head):
            module.apply(init_xavier)
        self.projector = _head(width, hidden=config.hidden, out=config.joint)
        self.predictor = _head(config.joint, hidden=config.hidden, out=config.joint)
        self.target_encoder = deepcopy(self.mae.encoder).requires_grad_(requires_grad=False)
        self.target_projector = deepcopy(self.projector).requires_grad_(requires_grad=False)

    def forward(self, x_BCTYX: Tensor, shifted_BCTYX: Tensor, mask_BN: Tensor) -> CMAEOutput:
        """Reconstruct float clips under the mask and recognise each among the shifted ones, `shifted_views` makes both.

        The mask is as in `VideoMAE.forward`. The other clips of the batch are the negatives, so there must be some.
        Raises ValueError for a batch of one clip, views that differ in shape, or what `VideoMAE.forward` refuses.
        """
        if x_BCTYX.shape[0] < 2 or x_BCTYX.shape != shifted_BCTYX.shape:
            seen = f"{tuple(x_BCTYX.shape)} and {tuple(shifted_BCTYX.shape)}"
            raise ValueError(f"CMAE: views are {seen}, wanted two of one shape with at least 2 clips")
        given = self.mae.encode(x_BCTYX, *self.mae.split(x_BCTYX, mask_BN))
        found = self.mae.reconstruct(x_BCTYX, given)
        feature_BD = self.feature_head(self.feature_norm(self.feature_decoder(given.tokens_BND))).mean(dim=1)
        online_BE = self.predictor(self.projector(feature_BD))
        with torch.no_grad():
            target_BE = self.target_projector(self.target_encoder(shifted_BCTYX).mean(dim=1))
        contrastive_loss = info_nce(online_BE, target_BE, temperature=self.config.temperature)
        loss = found.loss + self.config.contrastive_weight * contrastive_loss
        return CMAEOutput(loss=loss, contrastive_loss=contrastive_loss, mae=found)

    @torch.no_grad()
    def update_target(self, momentum: float = 0.996) -> None:
        """target ← momentum · target + (1 - momentum) · online, in place, after each optimizer step (He et al. 2020).

        Running statistics of norms are the target's own. Raises ValueError for a momentum outside [0, 1].
        """
        if not 0.0 <= momentum <= 1.0:
            raise ValueError(f"CMAE: momentum is {momentum}, wanted 0 <= momentum <= 1")
        online: list[Tensor] = [*self.mae.encoder.parameters(), *self.projector.parameters()]
        target: list[Tensor] = [*self.target_encoder.parameters(), *self.target_projector.parameters()]
        torch._foreach_lerp_(target, online, 1.0 - momentum)


def info_nce(online_BE: Tensor, target_BE: Tensor, *, temperature: float) -> Tensor:
    """-log(exp(cos(o_b, t_b) / τ) / Σ_c exp(cos(o_b, t_c) / τ)), the mean over b, a float32 scalar.

    InfoNCE (van den Oord et al. 2018, eq. 4) over (B, E) features; negatives are the clips of this process only.
    """
    cosines_BB = normalize(online_BE.float(), dim=1) @ normalize(target_BE.float(), dim=1).T
    return cross_entropy(cosines_BB / temperature, torch.arange(len(online_BE), device=online_BE.device))


def shifted_views(x_BCUYX: Tensor, shifts_B: Tensor, *, frames: int) -> tuple[Tensor, Tensor]:
    """Two views of longer clips, (B, C, T, Y, X) each: the first `frames` frames, and as many `shifts_B` frames later.

    Both have the clip's crop: only time moves (Lu et al. 2023). `shifts_B` is int64 on the host, 0 ≤ s ≤ U - T.
    Raises ValueError for other shifts.
    """
    longest = x_BCUYX.shape[2] - frames
    if (
        shifts_B.shape != x_BCUYX.shape[:1]
        or longest < 0
        or not 0 <= int(shifts_B.min()) <= int(shifts_B.max()) <= longest
    ):
        wanted = f"{x_BCUYX.shape[0]} of 0 to {longest}"
        raise ValueError(f"CMAE: shifts are {shifts_B.tolist()} in clips of {x_BCUYX.shape[2]} frames, wanted {wanted}")
    later_BT = (shifts_B[:, None] + torch.arange(frames)).to(x_BCUYX.device, non_blocking=True)
    clips_B1 = torch.arange(x_BCUYX.shape[0], device=x_BCUYX.device)[:, None]
    later_BTCYX = x_BCUYX.transpose(1, 2)[clips_B1, later_BT]
    return x_BCUYX[:, :, :frames], later_BTCYX.transpose(1, 2)


def _head(width: int, *, hidden: int, out: int) -> nn.Sequential:
    """BYOL's head (Grill et al. 2020, §3.3)."""
    return nn.Sequential(nn.Linear(width, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, out))
