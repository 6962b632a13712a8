"""The normalisations of pixels that weights were trained with. They know numbers, not clips."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelNorm:
    """(x - mean) / std for each channel of RGB in [0, 1]. Raises ValueError for other than 3 and 3 positive numbers."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        if len(self.mean) != 3 or len(self.std) != 3 or not min(self.std) > 0:
            raise ValueError(f"pixel norm: mean {self.mean}, std {self.std}, wanted 3 numbers and 3 positive numbers")

    def __str__(self) -> str:
        name = next((name for name, norm in PIXEL_NORMS.items() if norm == self), None)
        return name or f"mean {self.mean}, std {self.std}"


IMAGENET = PixelNorm(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
# For OpenAI's and open_clip's weights.
CLIP = PixelNorm(mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711))
# For LaViLa's and AVION's weights, which were trained with a typo in CLIP's red mean: 108.33 / 255, not 122.77 / 255.
LAVILA = PixelNorm(mean=(108.3272985 / 255, *CLIP.mean[1:]), std=CLIP.std)
PIXEL_NORMS = {"imagenet": IMAGENET, "clip": CLIP, "lavila": LAVILA}
