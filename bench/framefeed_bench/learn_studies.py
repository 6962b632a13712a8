"""What the small recipes are to learn: studies, whose figures say the least, or the most, that they should be.

Each trains recipes as they are, but for what it names. It knows no files of results.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from framefeed_bench.learn_trials import EVAL_CLIPS, VIEWS, Trials
from framefeed_bench.linear_probe import Described, features_of, probe
from trainer_client.datasets.spec import Split

TRAIN_SCENES, VAL_SCENES, TEST_SCENES, SCENES_A_VIDEO = 4000, 400, 200, 50
_SEEDS = (0, 1, 2)
# So few steps that scenes' labels alone do not yet tell directions: after more of them both ways do.
_FEW_LABELS, _KEPT = ("steps=220",), "layer_decay=0.75"  # VideoMAE's own, for weights that have learned before
# Captions that differ in one word alone are told apart once a batch has such a pair: of 32 clips, every fourth has one.
_MANY_PAIRS = ("batch_clips=64", "steps=900")
# An autoencoder begins to tell places apart after so many clips, and in fewer of them the more steps they make.
_LONG_MASKED = ("batch_clips=16", "steps=5000")
_SHORT_MASKED = ("batch_clips=16", "steps=1500")
_PROBED = {"shape": "shape", "colour": "colour", "direction": ".", "speed": "speed", "size": "size"}  # and its table
_PROBE_SPLITS: tuple[Split, Split] = ("train", "val")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A share of 1, or a difference of two, and what it is wanted to be: at least, or at most."""

    what: str
    value: float
    at_least: float | None = None
    at_most: float | None = None

    @property
    def holds(self) -> bool:
        """Whether it is as wanted; a figure without a wish is beside the others for comparison."""
        return (self.at_least is None or self.value >= self.at_least) and (
            self.at_most is None or self.value <= self.at_most
        )


Study = Callable[[Trials], Iterator[Figure]]


def retrieval(trials: Trials) -> Iterator[Figure]:
    """Texts and scenes find each other, of 200; the video tower begins with what the study of direction has learned."""
    begun = f"init_from={_told_direction(trials)}"
    run = trials.train("retrieval", "contrastive_tiny", "captions", *_MANY_PAIRS, begun)
    wanted: Mapping[Split, tuple[str, float]] = {"val": ("held-out scenes", 0.9), "test": ("unseen combinations", 0.4)}
    for split, (what, least) in wanted.items():
        scores = trials.score(run, "captions", split)
        yield Figure(what=f"{what}: R@1 of texts for a scene", value=scores["R@1_v2t"], at_least=least)
        yield Figure(what=f"{what}: R@1 of scenes for a text", value=scores["R@1_t2v"], at_least=least)


def direction(trials: Trials) -> Iterator[Figure]:
    """Which way a shape moves, of four: told by motion alone."""
    run = _told_direction(trials)
    yield _top1(trials, run, ".", "scenes", at_least=0.97)
    yield _top1(trials, run, "reversed", "the same played backwards: the opposite is said", at_least=0.95)
    yield _top1(trials, run, "direction_still", "the frame half-way alone (chance 25 %)", at_most=0.3)


def speed(trials: Trials) -> Iterator[Figure]:
    """How fast it moves, of three; the encoder begins with what the study of direction has learned."""
    begun = (f"init_from={_told_direction(trials)}", 'accept=["heads"]')
    run = trials.train("speed", "classify_tiny", "speed", "steps=600", *begun)
    yield _top1(trials, run, "speed", "scenes", at_least=0.9)
    yield _top1(trials, run, "speed_still", "the frame half-way alone (chance 33 %)", at_most=0.4)


def size(trials: Trials) -> Iterator[Figure]:
    """Whether it grows or shrinks."""
    run = trials.train("size", "classify_tiny", "size", "steps=600")
    yield _top1(trials, run, "size", "scenes", at_least=0.95)


def _top1(trials: Trials, run: Path, table: str, what: str, **wanted: float) -> Figure:
    """Of held-out scenes and unseen combinations together."""
    counts: Mapping[Split, int] = {"val": VAL_SCENES, "test": TEST_SCENES}
    right = sum(trials.score(run, table, split)["top1"] * count for split, count in counts.items())
    return Figure(what=what, value=right / sum(counts.values()), **wanted)


def few_labels(trials: Trials) -> Iterator[Figure]:
    """A masked autoencoder of scenes without labels, then the direction from labels of every tenth of them."""
    masked = trials.train("mae", "mae_tiny", ".", *_LONG_MASKED)
    ways = {"fresh": (), "pretrained": (f"init_from={masked}", _KEPT)}
    means = {}
    for way, changes in ways.items():
        found = []
        for seed in _SEEDS:
            run = trials.train(f"{way}_{seed}", "classify_tiny", "few", *_FEW_LABELS, f"seed={seed}", *changes)
            found.append(trials.score(run, ".", "val")["top1"])
        means[way] = statistics.mean(found)
    yield Figure(what="from fresh weights, mean of 3 seeds", value=means["fresh"])
    yield Figure(what="after masked autoencoding, mean of 3 seeds", value=means["pretrained"])
    yield Figure(what="gained", value=means["pretrained"] - means["fresh"], at_least=0.15)


def frozen(trials: Trials) -> Iterator[Figure]:
    """What a linear map reads in frozen features: of VideoMAE, and of CMAE-V after as many steps of as many clips."""
    means = {}
    for name, recipe in (("VideoMAE", "mae_tiny"), ("CMAE-V", "cmae_tiny")):
        run = trials.train(f"frozen_{recipe}", recipe, ".", *_SHORT_MASKED)
        with trials.timed(f"{run.name}: probed"):
            found = _probed(trials, run)
        means[name] = statistics.mean(found.values())
        for label, value in found.items():
            yield Figure(what=f"{name}: {label}", value=value)
        yield Figure(what=f"{name}: mean", value=means[name])
    yield Figure(what="CMAE-V over VideoMAE", value=means["CMAE-V"] - means["VideoMAE"], at_least=0.0)


def _probed(trials: Trials, run: Path) -> dict[str, float]:
    """By label, how often a linear map of the run's features, fitted on trained scenes, is right of held-out ones."""
    features = [
        features_of(run, trials.table(".", split), root=trials.scenes, views=VIEWS, batch_clips=EVAL_CLIPS)
        for split in _PROBE_SPLITS
    ]
    found = {}
    for label, table in _PROBED.items():
        fitted, tried = (
            Described(features_ND=rows_ND, label_N=trials.labels(table, split))
            for rows_ND, split in zip(features, _PROBE_SPLITS, strict=True)
        )
        found[label] = probe(fitted, tried)
    return found


def _told_direction(trials: Trials) -> Path:
    """The classifier of direction of two studies, likewise."""
    is_there = "direction" in trials.curves
    return trials.runs / "direction" if is_there else trials.train("direction", "classify_tiny", ".")


STUDIES: Mapping[str, Study] = {
    study.__name__: study for study in (direction, speed, size, retrieval, few_labels, frozen)
}
