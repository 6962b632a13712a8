"""Which augmentations a run has, and how strong: a value that checks itself. It draws nothing and knows no pixels."""

from __future__ import annotations

from dataclasses import dataclass

from framefeed.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class AugmentOptions:
    """What a recipe's user chooses about augmenting clips on the device; all of it is off by default.

    Every draw follows the clip's seed. Servers crop and flip already, so a flip here is for clips that they do not.
    Raises BadInput for values out of their range.
    """

    flip: float = 0.0
    """Probability that the device mirrors a clip."""
    jitter: float = 0.0
    """Probability of colour jitter: brightness, contrast, saturation and hue, in an order that is drawn."""
    brightness: float = 0.4
    """Colour jitter multiplies pixels with 1 ± up to this."""
    contrast: float = 0.4
    """Colour jitter stretches pixels around the clip's mean grey by 1 ± up to this."""
    saturation: float = 0.4
    """Colour jitter stretches colours around grey by 1 ± up to this."""
    hue: float = 0.1
    """Colour jitter turns hues by up to this share of a full turn; at most 0.5."""
    grey: float = 0.0
    """Probability that a clip loses its colours."""
    blur: float = 0.0
    """Probability of a Gaussian blur."""
    blur_px: tuple[float, float] = (0.1, 2.0)
    """Smallest and largest standard deviation of the blur, in pixels."""
    rand_ops: int = 0
    """Operations of RandAugment on each clip, one after another."""
    rand_magnitude: float = 7.0
    """Their strength, 0 to 10."""
    rand_std: float = 0.5
    """Standard deviation of the strength."""
    rand_share: float = 0.5
    """Probability that an operation of RandAugment is done at all."""
    erase: float = 0.0
    """Probability that a box of a clip is erased through all frames."""
    erase_area: tuple[float, float] = (0.02, 1 / 3)
    """Smallest and largest share of the picture that is erased."""
    erase_noise: bool = False
    """Fill the erased box with noise of the normal distribution; otherwise with the mean colour."""
    shift_frames: int = 0
    """A clip begins up to so many frames later; it has to be fed with as many more."""
    jitter_frames: int = 0
    """Each frame is taken up to so many frames earlier or later; their order stays."""

    def __post_init__(self) -> None:
        for name in ("flip", "jitter", "grey", "blur", "rand_share", "erase"):
            _check(name, getattr(self, name), low=0.0, high=1.0)
        for name, high in (("brightness", 1.0), ("contrast", 1.0), ("saturation", 1.0), ("hue", 0.5)):
            _check(name, getattr(self, name), low=0.0, high=high)
        _check("rand_magnitude", self.rand_magnitude, low=0.0, high=10.0)
        for name in ("rand_ops", "rand_std", "shift_frames", "jitter_frames"):
            _check(name, getattr(self, name), low=0.0, high=100.0)
        for name, high in (("blur_px", 20.0), ("erase_area", 1.0)):
            least, most = getattr(self, name)
            if not 0.0 < least <= most <= high:
                said = f"is {least:g} to {most:g}, wanted 0 < least <= largest <= {high:g}"
                raise BadInput(said, of="augment", field=name)

    @property
    def any(self) -> bool:
        """Whether anything is done at all."""
        return any(
            value > 0
            for value in (
                *(self.flip, self.jitter, self.grey, self.blur, self.erase),
                *(self.rand_ops, self.shift_frames, self.jitter_frames),
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipShape:
    """What a draw has to know of clips as they are fed: their frames, and the size of their pictures."""

    frames: int
    height_px: int
    width_px: int


def _check(name: str, value: float, *, low: float, high: float) -> None:
    if not low <= value <= high:
        raise BadInput(f"is {value:g}, wanted {low:g} to {high:g}", of="augment", field=name)
