"""Which rows of a batch count in a score: each sample once, though the last batch is as long as the others. Pure."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from framefeed.errors import BadInput
from trainer_client.feed.batch import Batch
from trainer_client.loader import ClipLoader


def counted(loader: ClipLoader, batch: Batch) -> npt.NDArray[np.bool_]:
    """Bool (B,): rows of the run's whole epochs. Where the global batch does not divide the samples the last one begins
    anew, so that all ranks take the same steps; what it begins with was counted before, and stand-ins are in no score.

    Raises BadInput for a run whose length is not said in whole epochs.
    """
    epochs = loader.options.epochs
    if epochs is None or epochs != int(epochs):
        raise BadInput(f"counted: the loader's epochs is {epochs}, wanted a whole number: the run of a validation")
    rows = batch.epochs < int(epochs)
    stood_in = [stand_in.position for stand_in in batch.stand_ins]
    return np.asarray(rows & ~np.isin(batch.positions, stood_in))
