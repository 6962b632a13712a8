"""CMAE-V, a masked autoencoder with a contrastive branch; it knows two views of a clip, not who chose or masked them.

Axes: B clips, T frames, U frames of a longer clip, Y rows, X columns, C channels, N tokens of a clip, D encoder width,
E width of the contrastive space. From Lu et al. 2023, arXiv 2301.06018, and Huang et al. 2022, arXiv 2207.13532, and
where these leave a choice from what their authors run.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from framefeed_models.block import Stack, StackConfig, init_xavier
from framefeed_models.clip_noise import fold
from framefeed_models.cmae_heads import CMAEHeads, to_full
from framefeed_models.embedding import position_table
from framefeed_models.own_part import own_part
from framefeed_models.videomae import MASK_TOKEN_STD, SplitMask, VideoMAE, VideoMAEConfig


def _feature_decoder() -> StackConfig:
    return StackConfig(width=512, depth=2, heads=16)


@dataclass(frozen=True, slots=True, kw_only=True)
class CMAEConfig:
    """VideoMAE plus a contrastive branch; the defaults are what the authors run.

    `feature` is the feature decoder's stack; `hidden` and `joint` are the widths of the projection and prediction
    heads. The contrastive term is `contrastive_weight` · 2 τ · InfoNCE, as in the authors' code, or without the 2 τ
    (`scaled_by_temperature` off), as in the paper's formula. Raises ValueError for values that make no network.
    """

    mae: VideoMAEConfig
    feature: StackConfig = field(default_factory=_feature_decoder)
    hidden: int = 1536
    joint: int = 256
    temperature: float = 0.07
    contrastive_weight: float = 1.0
    scaled_by_temperature: bool = True

    def __post_init__(self) -> None:
        for name in ("hidden", "joint"):
            if getattr(self, name) < 1:
                raise ValueError(f"CMAE: {name} is {getattr(self, name)}, wanted at least 1")
        multiple = 16 if self.mae.positions == "grid" else 2
        if self.feature.width % multiple:
            wanted = f"a multiple of {multiple} for its {self.mae.positions} positions"
            raise ValueError(f"CMAE: feature width is {self.feature.width}, wanted {wanted}")
        if not self.temperature > 0 or not self.contrastive_weight >= 0:
            seen = f"temperature {self.temperature}, contrastive_weight {self.contrastive_weight}"
            raise ValueError(f"CMAE: got {seen}, wanted a positive and a non-negative number")


class CMAERows(NamedTuple):
    """Row i is of clip i, all float32: its reconstruction loss (B,), and its features (B, D) before the heads.

    Rows of several processes or micro-batches are joined clip by clip: nothing in a row depends on another clip.
    """

    reconstruction_B: Tensor
    online_BD: Tensor
    target_BD: Tensor

    def joined(self) -> Tensor:
        """All of them as one tensor (B, 1 + 2 D), to be gathered."""
        return torch.cat((self.reconstruction_B[:, None], self.online_BD, self.target_BD), dim=1)


def split_rows(rows_BR: Tensor) -> CMAERows:
    """What `joined` has joined."""
    width = (rows_BR.shape[1] - 1) // 2
    reconstruction_B1, online_BD, target_BD = torch.split(rows_BR, [1, width, width], dim=1)
    return CMAERows(reconstruction_B=reconstruction_B1[:, 0], online_BD=online_BD, target_BD=target_BD)


class CMAEOutput(NamedTuple):
    """float32 scalars: `loss` = `reconstruction_loss` + `contrastive_loss`, which has its weight in it."""

    loss: Tensor
    reconstruction_loss: Tensor
    contrastive_loss: Tensor


class CMAE(nn.Module):
    """`branches` make a row of each clip, `heads` compare the rows of all clips: the two ways in of a trainer.

    `forward` does both for clips that are all in one process. Whoever divides a batch calls `branches` on each part,
    joins the rows and calls `heads` once: the batch norm of the heads then sees every clip, as it has to.
    """

    def __init__(self, config: CMAEConfig) -> None:
        super().__init__()
        self.config = config
        self.branches = CMAEBranches(config)
        weight = config.contrastive_weight * (2.0 * config.temperature if config.scaled_by_temperature else 1.0)
        self.heads = CMAEHeads(
            config.mae.encoder.width,
            hidden=config.hidden,
            joint=config.joint,
            temperature=config.temperature,
            weight=weight,
        )

    def forward(
        self, x_BCTYX: Tensor, shifted_BCTYX: Tensor, mask_BN: Tensor, *, seeds_B: Tensor | None = None
    ) -> CMAEOutput:
        """Reconstruct float clips under the mask and recognise each among the shifted ones, `shifted_views` makes both.

        The other clips of the batch are the negatives, so there must be some. Raises ValueError as `CMAEBranches` and
        `CMAEHeads` do.
        """
        rows: CMAERows = self.branches(x_BCTYX, shifted_BCTYX, mask_BN, seeds_B=seeds_B)
        contrastive_loss = self.heads(rows.online_BD, rows.target_BD)
        reconstruction_loss = rows.reconstruction_B.mean()
        return CMAEOutput(
            loss=reconstruction_loss + contrastive_loss,
            reconstruction_loss=reconstruction_loss,
            contrastive_loss=contrastive_loss,
        )

    @torch.no_grad()
    def update_target(self, momentum: float = 0.996) -> None:
        """target ← momentum · target + (1 - momentum) · online, in place, after each optimizer step (He et al. 2020).

        Works on the shards of FSDP2 too, if target and online weights are divided alike.
        Raises ValueError for a momentum outside [0, 1].
        """
        if not 0.0 <= momentum <= 1.0:
            raise ValueError(f"CMAE: momentum is {momentum}, wanted 0 <= momentum <= 1")
        pairs = [
            (online.get_parameter(name), parameter)
            for online, target in (
                (self.branches.mae.encoder, self.branches.target_encoder),
                (self.heads.projector, self.heads.target_projector),
            )
            for name, parameter in target.named_parameters()
        ]
        torch._foreach_lerp_(
            [own_part(target) for _, target in pairs], [own_part(online) for online, _ in pairs], 1.0 - momentum
        )


class CMAEBranches(nn.Module):
    """What is done with each clip alone (Huang et al. 2022, §3):

    online: visible cubes of one view → encoder → pixel decoder → the masked cubes, as in VideoMAE;
            and → feature decoder → mean of all tokens;
    target: all cubes of the other view → encoder without its final norm → mean, a moving average of the online branch.
    The other view is the same clip a little later: temporal shift in the place of CMAE's pixel shift (Lu et al. 2023).
    """

    def __init__(self, config: CMAEConfig) -> None:
        super().__init__()
        self.mae = VideoMAE(config.mae)
        self.feature_decoder = FeatureDecoder(config)
        self.target_encoder = deepcopy(self.mae.encoder)
        self.target_encoder.norm = nn.Identity()  # type: ignore[assignment]
        self.target_encoder.requires_grad_(requires_grad=False)

    def forward(
        self, x_BCTYX: Tensor, shifted_BCTYX: Tensor, mask_BN: Tensor | SplitMask, *, seeds_B: Tensor | None = None
    ) -> CMAERows:
        """Rows of float clips (B, C, T, Y, X), of the same clips a little later, and of a mask as `VideoMAE` takes it.

        All that is random follows the clips' seeds, int64 (B,) on their device.
        Raises ValueError for views that differ in shape, or what `VideoMAE.forward` refuses.
        """
        if x_BCTYX.shape != shifted_BCTYX.shape:
            seen = f"{tuple(x_BCTYX.shape)} and {tuple(shifted_BCTYX.shape)}"
            raise ValueError(f"CMAE: views are {seen}, wanted two of one shape")
        where = self.mae.split(x_BCTYX, mask_BN)
        encoded_BSD = self.mae.encoder(x_BCTYX, selected_BS=where.visible_BS, seeds_B=fold(seeds_B, 0))
        found = self.mae.reconstruct(x_BCTYX, encoded_BSD, where, seeds_B=fold(seeds_B, 1))
        features_BND = self.feature_decoder(encoded_BSD, where, seeds_B=fold(seeds_B, 2))
        with torch.no_grad():
            target_BND = self.target_encoder(shifted_BCTYX, seeds_B=fold(seeds_B, 3))
        return CMAERows(
            reconstruction_B=found.losses_B,
            online_BD=to_full(features_BND).mean(dim=1),
            target_BD=to_full(target_BND).mean(dim=1),
        )


class FeatureDecoder(nn.Module):
    """Encoded visible cubes to a feature of every cube, with a bridge, mask token and blocks of its own."""

    positions_ND: Tensor

    def __init__(self, config: CMAEConfig) -> None:
        super().__init__()
        stack, width = config.feature, config.mae.encoder.width
        self.bridge = nn.Linear(width, stack.width)
        self.mask_token_D = nn.Parameter(torch.empty(stack.width))
        self.stack = Stack(stack)
        self.norm = nn.LayerNorm(stack.width, eps=stack.norm_eps)
        self.head = nn.Linear(stack.width, width)
        table_ND = position_table(config.mae.grid, width=stack.width, kind=config.mae.positions)
        self.register_buffer("positions_ND", table_ND, persistent=False)
        self.apply(init_xavier)
        nn.init.normal_(self.mask_token_D, std=MASK_TOKEN_STD)

    def forward(self, encoded_BSD: Tensor, where: SplitMask, *, seeds_B: Tensor | None = None) -> Tensor:
        """Features (B, N, D), visible cubes first, of encoded visible cubes (B, S, D)."""
        tokens_BND = where.place(self.bridge(encoded_BSD), self.mask_token_D, self.positions_ND)
        features_BND: Tensor = self.head(self.norm(self.stack(tokens_BND, seeds_B=seeds_B)))
        return features_BND


def shifted_views(x_BCUYX: Tensor, shifts_B: Tensor, *, frames: int) -> tuple[Tensor, Tensor]:
    """Two views of longer clips, (B, C, T, Y, X) each: the first `frames` frames, and as many `shifts_B` frames later.

    Both have the clip's crop: only time moves (Lu et al. 2023). `shifts_B` is int64 on the host, 0 ≤ s ≤ U - T.
    Raises ValueError for other shifts.
    """
    later_BT = later_frames(shifts_B, frames=frames, clips_BU=x_BCUYX.shape[:3:2])
    return two_views(x_BCUYX, later_BT.to(x_BCUYX.device, non_blocking=True))


def two_views(x_BCUYX: Tensor, later_BT: Tensor) -> tuple[Tensor, Tensor]:
    """`shifted_views` by the frames of the later view, on the clips' device."""
    clips_B1 = torch.arange(x_BCUYX.shape[0], device=x_BCUYX.device)[:, None]
    later_BTCYX = x_BCUYX.transpose(1, 2)[clips_B1, later_BT]
    return x_BCUYX[:, :, : later_BT.shape[1]], later_BTCYX.transpose(1, 2)


def later_frames(shifts_B: Tensor, *, frames: int, clips_BU: tuple[int, ...]) -> Tensor:
    """The frames of the later view, int64 (B, T) on the host, of clips (B, U). Raises ValueError as `shifted_views`."""
    longest = clips_BU[1] - frames
    if shifts_B.shape != clips_BU[:1] or longest < 0 or not 0 <= int(shifts_B.min()) <= int(shifts_B.max()) <= longest:
        wanted = f"{clips_BU[0]} of 0 to {longest}"
        raise ValueError(f"CMAE: shifts are {shifts_B.tolist()} in clips of {clips_BU[1]} frames, wanted {wanted}")
    return shifts_B[:, None] + torch.arange(frames)
