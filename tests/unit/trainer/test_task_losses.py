"""Each task's loss against the equation of its paper, in NumPy or by hand, and labels that are none."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch

from framefeed.errors import BadInput
from tests.unit.trainer.small_tasks import CPU, FRAMES, GLOBAL, TASKS, labels_of, make_share, number_of
from trainer_client.samples import Sample
from trainer_client.training.augment.mixup import MixRule, swap
from trainer_client.training.device_feed import to_device
from trainer_client.training.ranks import Ranks
from trainer_client.training.tasks.classify import smooth_cross_entropy
from trainer_client.training.tasks.contrastive import info_nce
from trainer_client.training.tasks.ranking import max_margin

Array = npt.NDArray[np.float64]
ALONE = Ranks()


def softmax_losses(logits: Array) -> Array:
    """-log softmax at the diagonal, of each row."""
    return np.log(np.exp(logits).sum(axis=1)) - np.diag(logits)


def unit_rows(n: int, width: int, *, seed: int) -> Array:
    rows = np.random.default_rng(seed).normal(size=(n, width))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def pairs_of(video: Array, text: Array, scale: float) -> torch.Tensor:
    return torch.from_numpy(np.hstack((video, text, np.full((len(video), 1), scale))))


def test_info_nce_is_half_the_cross_entropy_of_rows_and_half_that_of_columns() -> None:
    video, text, scale = unit_rows(6, 5, seed=1), unit_rows(6, 5, seed=2), 1 / 0.07
    logits = scale * video @ text.T
    wanted = (softmax_losses(logits).mean() + softmax_losses(logits.T).mean()) / 2
    rows = pairs_of(video, text, scale)
    loss, correct = info_nce(rows, rows, first=0)
    assert loss.item() == pytest.approx(wanted, rel=1e-12)
    assert correct.item() == pytest.approx((logits.argmax(axis=1) == np.arange(6)).mean())


def test_the_local_losses_mean_is_the_global_loss() -> None:
    rows = pairs_of(unit_rows(6, 5, seed=1), unit_rows(6, 5, seed=2), 10.0)
    whole = info_nce(rows, rows, first=0)[0].item()
    parts = [info_nce(rows[first : first + 2], rows, first=first)[0].item() for first in (0, 2, 4)]
    assert np.mean(parts) == pytest.approx(whole, rel=1e-12)


def test_info_nce_of_two_pairs_by_hand() -> None:
    """Orthogonal pairs that fit: both ways each loss is log(1 + e^-s)."""
    rows = pairs_of(np.eye(2), np.eye(2), 3.0)
    assert info_nce(rows, rows, first=0)[0].item() == pytest.approx(math.log1p(math.exp(-3.0)))


def test_max_margin_by_hand() -> None:
    """S = [[.9, .8], [.1, .5]], m = .2. Rows: [.2-.9+.8]₊ + [.2-.5+.1]₊ = .1; columns: [.2-.9+.1]₊ + [.2-.5+.8]₊ = .5;
    the mean of all four is .15."""
    similarity = torch.tensor([[0.9, 0.8], [0.1, 0.5]])
    assert max_margin(similarity, margin_G=torch.full((2,), 0.2)).item() == pytest.approx(0.15)
    # Adaptive: .4 · (1, .5) = (.4, .2). Of clip 1: .3 and 0; of clip 2: 0 and .5.
    assert max_margin(similarity, margin_G=torch.tensor([0.4, 0.2])).item() == pytest.approx((0.3 + 0.5) / 4)


@pytest.mark.parametrize("weights", [np.ones(7), np.linspace(0.1, 1, 7)])
def test_max_margin_is_lavilas_formula(weights: Array) -> None:
    """relu(w_i m - (S_ii - S_ij)) and relu(w_i m - (S_ii - S_ji)), the mean over all i ≠ j of both together."""
    similarity = unit_rows(7, 5, seed=1) @ unit_rows(7, 5, seed=2).T
    costs = [
        max(weights[i] * 0.4 - (similarity[i, i] - other), 0.0)
        for i in range(7)
        for j in range(7)
        for other in (similarity[i, j], similarity[j, i])
        if i != j
    ]
    margin = torch.from_numpy(0.4 * weights)
    assert max_margin(torch.from_numpy(similarity), margin_G=margin).item() == pytest.approx(np.mean(costs), rel=1e-12)


def test_cross_entropy_of_smoothed_and_mixed_labels_is_that_of_their_distribution() -> None:
    rng = np.random.default_rng(0)
    logits, kept = rng.normal(size=(4, 5)), np.array([0.7, 0.7, 0.2, 0.2])
    labels = np.array([0, 4, 2, 2])
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    smooth = 0.1 / 5 + 0.9 * np.eye(5)
    target = kept[:, None] * smooth[labels] + (1 - kept)[:, None] * smooth[labels[[1, 0, 3, 2]]]
    wanted = -(target * log_p).sum(axis=1)
    own, other = (
        smooth_cross_entropy(torch.from_numpy(logits), each, smoothing=0.1).numpy()
        for each in (torch.from_numpy(labels), swap(torch.from_numpy(labels)))
    )
    np.testing.assert_allclose(kept * own + (1 - kept) * other, wanted, rtol=1e-12)


@pytest.mark.parametrize("name", ["contrastive", "ranking", "ranking-adaptive", "classify"])
def test_a_tasks_loss_is_the_equation_of_its_rows(name: str) -> None:
    task = TASKS[name](CPU)
    task.model.eval()
    x = task.prepare(to_device(make_share(0, ALONE, frames=FRAMES), CPU))
    rows = task.rows(x)
    seen = task.loss(rows, x, ALONE).total.item()
    values = rows.detach().double().numpy()
    if name == "classify":
        samples = [Sample(video=f"v{i}", start_s=0.0, end_s=1.0) for i in range(GLOBAL)]
        wanted = 0.0
        for head, columns in (("verb", slice(0, 5)), ("noun", slice(5, 12))):
            log_p = values[:, columns] - np.log(np.exp(values[:, columns]).sum(axis=1, keepdims=True))
            classes = log_p.shape[1]
            smooth = 0.1 / classes + 0.9 * np.eye(classes)
            wanted -= (smooth[[labels_of(sample)[head] for sample in samples]] * log_p).sum(axis=1).mean()
    else:
        video, text = values[:, :16], values[:, 16:32]
        np.testing.assert_allclose(np.linalg.norm(video, axis=1), 1.0, rtol=1e-6)
        similarity = video @ text.T
        if name == "contrastive":
            logits = similarity / 0.07
            wanted = (softmax_losses(logits).mean() + softmax_losses(logits.T).mean()) / 2
        else:
            weights = 0.5 + 0.5 * (np.arange(GLOBAL) % 2) if name == "ranking-adaptive" else np.ones(GLOBAL)
            margins = (0.4 if name == "ranking-adaptive" else 0.2) * weights
            gap = margins[:, None] - np.diag(similarity)[:, None]
            costs = np.maximum(gap + similarity, 0) + np.maximum(gap + similarity.T, 0)
            wanted = costs[~np.eye(GLOBAL, dtype=bool)].mean() / 2
    assert seen == pytest.approx(wanted, rel=1e-5)


def test_maes_rows_are_the_error_of_normalised_pixels() -> None:
    """VideoMAE's target: each masked cube and channel less its mean, over its unbiased deviation + 1e-6."""
    task = TASKS["mae"](CPU)
    x = task.prepare(to_device(make_share(0, ALONE, frames=FRAMES), CPU))
    output = task.trunk(x.x_BCTYX, x.mask_BN)
    # Cubes of 2 x 4 x 4: slot, row, column of each token, and its pixels before its channels.
    cubes = x.x_BCTYX.double().numpy().reshape(GLOBAL, 3, 2, 2, 4, 4, 4, 4).transpose(0, 2, 4, 6, 3, 5, 7, 1)
    cubes = cubes.reshape(GLOBAL, 32, 32, 3)
    wanted = []
    for clip, mask, predicted in zip(cubes, x.mask_BN.numpy(), output.predictions_BMPC.detach().numpy(), strict=True):
        hidden = clip[mask]
        deviation = hidden.std(axis=1, ddof=1, keepdims=True)
        target = (hidden - hidden.mean(axis=1, keepdims=True)) / (deviation + 1e-6)
        wanted.append(((predicted - target) ** 2).mean())
    np.testing.assert_allclose(output.losses_B.detach().numpy(), wanted, rtol=1e-5)


@pytest.mark.parametrize(
    ("labels", "seen"), [({"verb": 5, "noun": 0}, "5"), ({"verb": -1, "noun": 0}, "-1"), ({"noun": 0}, "None")]
)
def test_a_label_that_is_no_class_is_one_line(labels: dict[str, int], seen: str) -> None:
    task = TASKS["classify"](CPU)
    task._targets = type(task._targets)(labels_of=lambda s: labels if number_of(s) == 3 else labels_of(s))
    match = rf"label 'verb' of v3 \[0, 1\) s is {seen}, wanted 0 to 4"
    with pytest.raises(BadInput, match=match):
        task.prepare(to_device(make_share(0, ALONE, frames=FRAMES), CPU))


def test_mixup_follows_the_first_seed_of_a_pair_and_moves_pixels_as_it_says() -> None:
    rule, seeds = MixRule(), list(range(100, 164))
    mix = rule.draw(seeds, height_px=8, width_px=12, first_position=64)
    again = rule.draw(seeds[32:], height_px=8, width_px=12, first_position=96)
    assert torch.equal(mix.kept_B[32:], again.kept_B)
    assert torch.equal(mix.box_B4[32:], again.box_B4)
    clips = torch.arange(64.0)[:, None, None, None, None].expand(64, 1, 2, 8, 12)
    mixed = mix.apply(clips.clone())
    taken = (mixed - clips).abs().mean(dim=(1, 2, 3, 4))  # neighbours differ by 1: what is taken is the share of theirs
    torch.testing.assert_close(taken, 1 - mix.kept_B, atol=1e-5, rtol=0)
    cut = mix.box_B4[:, 2] > mix.box_B4[:, 0]
    assert 0.2 < cut.float().mean() < 0.8
    assert set((mixed[cut] - clips[cut]).abs().unique().tolist()) == {0.0, 1.0}
    assert torch.equal(mixed[:, :, 0], mixed[:, :, 1]), "a box goes through all frames"


def test_mixup_wants_pairs() -> None:
    for clips, first in ((3, 0), (4, 1)):
        with pytest.raises(BadInput, match="wanted an even number"):
            MixRule().draw(list(range(clips)), height_px=8, width_px=8, first_position=first)
