"""Which clips of a sample a model is scored on: frames, boxes and how many of each. It knows no model but its clip's
shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from framefeed.crops import ResizedCentreCrop, ViewCrop
from framefeed.errors import BadInput
from framefeed.request import PixelFormat
from framefeed.sampling import Sampling, Segments
from framefeed.sampling_rules import PublishedRule
from framefeed_models.tubelets import TubeletGrid
from trainer_client.clip_policy import ClipPolicy
from trainer_client.datasets.spec import Kind

Rule = Literal[
    "auto",
    "avion_sparse",
    "avion_views",
    "videomae_views",
    "tsn_segments",
    "lavila_segments",
    "lavila_dense",
    "segments",
]
# As published: VideoMAE's and AVION's tests of Kinetics and SSv2, and the one view of AVION's EPIC-Kitchens and Ego4D.
_PUBLISHED: Mapping[Kind, tuple[Rule, int, int]] = {
    "kinetics": ("videomae_views", 5, 3),
    "class_folders": ("videomae_views", 5, 3),
    "ssv2": ("tsn_segments", 2, 3),
}
_WITH_WINDOWS = ("avion_views", "videomae_views", "tsn_segments", "lavila_dense")
_STRIDED = ("avion_views", "videomae_views", "lavila_dense")


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewOptions:
    """Which clips of a sample are passed through the model; its row is the plain mean of theirs."""

    rule: Rule = "auto"
    """How frames are picked. auto: as published for the data (videomae_views, tsn_segments, else avion_sparse)."""
    windows: int | None = None
    """Windows of frames along time. Default: as published: 5 for Kinetics, 2 for SSv2, else 1."""
    boxes: int | None = None
    """Boxes side by side in the frame. Default: as published: 3 for Kinetics and SSv2, else 1."""
    stride: int = 4
    """Distance of two frames of a dense rule, in frames of the video."""
    pixel_format: PixelFormat = "rgb24"
    """How clips travel."""

    def __post_init__(self) -> None:
        for name in ("windows", "boxes", "stride"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= 1000:
                raise BadInput(f"is {value}, wanted 1 to 1000", of="views", field=name)

    def policy(self, kind: Kind, grid: TubeletGrid, *, more_frames: int = 0) -> ClipPolicy:
        """The clips of a model whose encoder takes this grid, and `more_frames` for what is cut out of them. Raises
        BadInput for windows of a rule that has none, BadRequest for what else it has not.
        """
        rule, windows, boxes = _PUBLISHED.get(kind, ("avion_sparse", 1, 1))
        rule = rule if self.rule == "auto" else self.rule
        windows = self.windows or (windows if self.rule == "auto" else 1)
        if windows > 1 and rule not in _WITH_WINDOWS:
            rules = f"{', '.join(_WITH_WINDOWS[:-1])} or {_WITH_WINDOWS[-1]}"
            said = f"is {windows}, and the rule {rule} has one window of a sample; wanted 1, or {rules}"
            raise BadInput(said, of="views", field="windows")
        boxes = self.boxes or boxes
        return ClipPolicy(
            sampling=self._sampling(rule, grid.frames + more_frames, windows),
            crop=ResizedCentreCrop() if boxes == 1 else ViewCrop(view=0, views=boxes),
            width_px=grid.width_px,
            height_px=grid.height_px,
            pixel_format=self.pixel_format,
        )

    def _sampling(self, rule: Rule, frames: int, windows: int) -> Sampling:
        if rule == "segments":
            return Segments(frames=frames)
        stride = self.stride if rule in _STRIDED else 1
        return PublishedRule(rule=rule, frames=frames, stride=stride, views=windows)


def told(policy: ClipPolicy) -> dict[str, object]:
    """A policy as a report says it."""
    rule = getattr(policy.sampling, "rule", type(policy.sampling).__name__.lower())
    windows = getattr(policy.sampling, "views", 1)
    size = f"{policy.width_px}x{policy.height_px}"
    clip = {"frames": policy.sampling.frames, "stride": getattr(policy.sampling, "stride", 1), "size": size}
    return {"rule": rule, "windows": windows, "boxes": policy.views // windows, **clip, "policy": policy.digest}
