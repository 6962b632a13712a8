"""How much a frozen encoder's features say: a linear map from them to labels, fitted on one split, tried on another.

It knows runs of masked autoencoders and of CMAE-V, not how either was trained.

Axes: N clips, D width of the encoder, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from framefeed.errors import BadInput
from framefeed.manifest import read_manifest
from framefeed_models.cmae import CMAE
from framefeed_models.encoder import Encoder
from framefeed_models.videomae import VideoMAE
from trainer_client.datasets.open_dataset import open_dataset
from trainer_client.datasets.spec import DataSpec
from trainer_client.evaluate.collect import collect
from trainer_client.evaluate.model_file import ModelChoice, ScoredModel, open_model
from trainer_client.evaluate.views_of_clips import ViewOptions
from trainer_client.fleet.addresses import LOCAL
from trainer_client.loader import ClipLoader, LoaderOptions
from trainer_client.training.device_feed import DeviceBatch
from trainer_client.training.ranks import Ranks

Features = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int32]

_CPU = torch.device("cpu")
_RIDGES = tuple(10.0**power for power in range(-4, 3))
_HELD_BACK = 5  # every so-manieth row chooses the ridge


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Described:
    """Features (N, D) of a split's samples, and their labels, int32 (N,)."""

    features_ND: Features
    label_N: Labels


def features_of(run: Path, data: DataSpec, *, root: Path, views: ViewOptions, batch_clips: int) -> Features:
    """The run's frozen features of a split, pooled and normed as a classifier takes them, through a local server.

    Raises BadInput for a run of another kind of model.
    """
    scored = open_model(run, ModelChoice(), _CPU)
    encoder, dataset = _encoder(scored), open_dataset(data, read_manifest(root))
    options = LoaderOptions(
        servers=(LOCAL,), root=root, batch_clips=batch_clips, epochs=1, shuffle=False, work_class="eval", run="probe"
    )

    def rows_of(batch: DeviceBatch) -> Tensor:
        features_BD: Tensor = encoder(batch.normalised(scored.norm), pooled=True)
        return features_BD

    with ClipLoader(dataset, views.policy(data.kind, scored.grid), options) as loader:
        found = collect(loader, rows_of, samples=len(dataset), views=1, ranks=Ranks(), device=_CPU)
    return found.mean_NR


def probe(fitted: Described, tried: Described) -> float:
    """The share of `tried` whose label is the largest of the linear map that ridge regression of one-hot labels makes.

    Features are standardised by those of `fitted`; the ridge is the best on a fifth of its rows, fitted on the rest.
    """
    mean_D, std_D = fitted.features_ND.mean(axis=0), fitted.features_ND.std(axis=0) + 1e-6
    fitted_ND, tried_ND = ((each.features_ND - mean_D) / std_D for each in (fitted, tried))
    back = np.arange(len(fitted_ND)) % _HELD_BACK == 0
    parts = [Described(features_ND=fitted_ND[rows], label_N=fitted.label_N[rows]) for rows in (~back, back)]
    ridge = max(_RIDGES, key=lambda one: _accuracy(parts[0], parts[1], ridge=one))
    whole = Described(features_ND=fitted_ND, label_N=fitted.label_N)
    return _accuracy(whole, Described(features_ND=tried_ND, label_N=tried.label_N), ridge=ridge)


def _accuracy(fitted: Described, tried: Described, *, ridge: float) -> float:
    """W = (X'X + ridge N I)^-1 X'Y, of features with a column of ones, and labels as one-hot rows."""
    x_ND, targets_NK = _with_ones(fitted.features_ND), np.eye(int(fitted.label_N.max()) + 1)[fitted.label_N]
    gram_DD = x_ND.T @ x_ND + ridge * len(x_ND) * np.eye(x_ND.shape[1])
    map_DK = np.linalg.solve(gram_DD, x_ND.T @ targets_NK)
    said_N = (_with_ones(tried.features_ND) @ map_DK).argmax(axis=1)
    return float((said_N == tried.label_N).mean())


def _with_ones(features_ND: Features) -> Features:
    return np.hstack((features_ND, np.ones((len(features_ND), 1))))


def _encoder(scored: ScoredModel) -> Encoder:
    model = scored.model
    if isinstance(model, CMAE):
        model = model.branches.mae
    if not isinstance(model, VideoMAE):
        raise BadInput(f"the model is a {type(model).__name__}, wanted VideoMAE or CMAE-V to probe")
    return model.encoder
