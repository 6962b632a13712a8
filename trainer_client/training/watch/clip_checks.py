"""What is odd about a clip's frames: a cut, flicker, frames that come again; pure, and knows no batch and no video.

What a broken sampler, decoder or preprocessing does to clips without an error. A cut that is in the video is found as
well: what counts is how the share of such clips changes. Every rule needs one thing to stand out from the rest of its
clip, so that a clip that moves strongly, or not at all, is no fault.

Axes: T frames, Y rows, X columns, P = T - 1 pairs of neighbours, R x R regions of the picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

FINDINGS = ("cut", "flicker", "duplicate")

_REGIONS = 16
_LEAST_FRAMES = 5
_DENSE_S = 0.3  # frames further apart show moments, and anything may lie between two of them
_CUT_UNLIKE = 0.6  # 1 - correlation of two neighbours' regions; 1 is two pictures that have nothing in common
_CUT_TIMES = 1.6  # as unlike as any two other neighbours of the clip
_ALIKE = 0.45  # and these are less unlike than this: else nothing can be said
_FLAT_LEVELS = 1.0  # a picture of one colour resembles its like and nothing else
_FLICKER_LEVELS = 3.0  # by which a frame's brightness leaves that of its neighbours
_FLICKER_REGIONS = 0.85  # of the picture leave it to the same side: light, and not something that moves
_MOVES_LEVELS = 0.1  # mean difference of two frames: more than coding makes of a picture that stands

Luma = npt.NDArray[np.uint8]


def findings(luma_TYX: Luma, times_s: Sequence[float]) -> tuple[str, ...]:
    """Which of FINDINGS hold for a clip's luma, uint8 (T, Y, X), without padding, whose frames are at these times.

    Frames of one time are one frame, held by the sampling. Clips of fewer than five frames, in which nothing can stand
    out, have no finding, and those whose frames lie more than .3 s apart none but duplicates.
    """
    times_T = np.asarray(times_s)
    own = np.concatenate([[True], np.diff(times_T) > 0])
    luma_TYX, times_T = luma_TYX[own], times_T[own]
    if len(luma_TYX) < _LEAST_FRAMES:
        return ()
    found = {"duplicate": _has_duplicate(luma_TYX)}
    if np.diff(times_T).max() <= _DENSE_S:
        regions_TRR = _regions(luma_TYX)
        found |= {"cut": _has_cut(regions_TRR), "flicker": _flickers(regions_TRR)}
    return tuple(name for name in FINDINGS if found.get(name))


def _has_cut(regions_TRR: npt.NDArray[np.float64]) -> bool:
    """One place, or the two sides of one frame, where pictures have nothing in common, though the others resemble
    their neighbours. Brightness and contrast do not count."""
    flat = regions_TRR.reshape(len(regions_TRR), -1)
    centred = flat - flat.mean(axis=1, keepdims=True)
    contrast_T = centred.std(axis=1)
    is_flat = contrast_T < _FLAT_LEVELS
    products_P = np.maximum(contrast_T[1:] * contrast_T[:-1], _FLAT_LEVELS**2)
    unlike_P = 1 - (centred[1:] * centred[:-1]).mean(axis=1) / products_P
    unlike_P[is_flat[1:] != is_flat[:-1]] = 1
    unlike_P[is_flat[1:] & is_flat[:-1]] = 0
    worst = int(unlike_P.argmax())
    rest = unlike_P[np.abs(np.arange(len(unlike_P)) - worst) > 1]
    return bool(rest.max() < _ALIKE and unlike_P[worst] > max(_CUT_UNLIKE, _CUT_TIMES * rest.max()))


def _flickers(regions_TRR: npt.NDArray[np.float64]) -> bool:
    """Frames that are lighter and darker than both neighbours in turn, everywhere in the picture."""
    off_RR = regions_TRR[1:-1] - (regions_TRR[:-2] + regions_TRR[2:]) / 2
    level = off_RR.mean(axis=(1, 2))
    same_side = (np.sign(off_RR) == np.sign(level)[:, None, None]).mean(axis=(1, 2))
    stands_out = (np.abs(level) > _FLICKER_LEVELS) & (same_side > _FLICKER_REGIONS)
    signs = np.sign(level[stands_out])
    turns = int((signs[1:] != signs[:-1]).sum())
    return bool(stands_out.sum() >= max(2, 0.4 * len(level)) and turns >= 0.6 * (len(signs) - 1))


def _has_duplicate(luma_TYX: Luma) -> bool:
    """A picture that comes again bit for bit, which no camera's does, in a clip that moves."""
    pictures = {luma_YX.tobytes() for luma_YX in luma_TYX}
    change_P = np.abs(np.diff(luma_TYX.astype(np.int16), axis=0)).mean(axis=(1, 2))
    return len(pictures) < len(luma_TYX) and int((change_P > _MOVES_LEVELS).sum()) >= 2


def _regions(luma_TYX: Luma) -> npt.NDArray[np.float64]:
    """Mean luma of R x R even parts of each frame, (T, R, R)."""
    rows, columns = luma_TYX.shape[1:]
    parts = ((min(_REGIONS, side), side) for side in (rows, columns))
    edges_Y, edges_X = (np.arange(count) * side // count for count, side in parts)
    sums = np.add.reduceat(np.add.reduceat(luma_TYX, edges_Y, axis=1, dtype=np.int32), edges_X, axis=2)
    sizes = np.diff([*edges_Y, rows])[:, None] * np.diff([*edges_X, columns])[None, :]
    means: npt.NDArray[np.float64] = sums / sizes
    return means
