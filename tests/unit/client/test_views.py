"""The views of a sample: which clip each one is, in which order, and that a run without them is what it was."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from framefeed.crops import Crop, RandomResizedCrop, ResizedCentreCrop, ViewCrop
from framefeed.errors import BadInput, BadRequest
from framefeed.sampling import DenseView, Sampling, Segments
from framefeed.sampling_rules import PublishedRule
from trainer_client.clip_policy import ClipPolicy
from trainer_client.feed.sampler import Sampler, Share
from trainer_client.feed.stand_ins import PoisonOptions, StandIns, place_of, read, spell
from trainer_client.measures.stats import Ledger
from trainer_client.samples import Sample
from trainer_client.views import Views

DATASET = [Sample(video=f"video{i}", start_s=i, end_s=i + 2.0, target=("class", i)) for i in range(4)]
BOXES = ViewCrop(view=0)
WINDOWS = DenseView(frames=4, stride=2, view=0, views=2)
TIMES_S = np.arange(150) / 30


def policy(sampling: Sampling = WINDOWS, crop: Crop = BOXES) -> ClipPolicy:
    return ClipPolicy(sampling=sampling, crop=crop, width_px=32, height_px=32)


def chosen(taken: ClipPolicy, sample: Sample) -> tuple[int, int]:
    """The views of the window and of the box in its request."""
    request = taken.request(sample, seed=1)
    assert isinstance(request.sampling, DenseView | PublishedRule)
    assert isinstance(request.crop, ViewCrop)
    return request.sampling.view, request.crop.view


@pytest.mark.parametrize(
    ("sampling", "crop", "views"),
    [
        (WINDOWS, ViewCrop(view=0), 6),
        (WINDOWS, ResizedCentreCrop(), 2),
        (PublishedRule(rule="videomae_views", frames=16, stride=4, views=5), ViewCrop(view=0), 15),
        (Segments(frames=4), ViewCrop(view=0, views=4), 4),
        (Segments(frames=4, jitter=True), RandomResizedCrop(), 1),
        (WINDOWS, ViewCrop(view=1), 2),
        (DenseView(frames=4, stride=2, view=4, views=5), ViewCrop(view=0), 3),
    ],
)
def test_a_policy_has_the_windows_times_the_boxes_that_are_not_chosen(
    sampling: Sampling, crop: Crop, views: int
) -> None:
    taken = policy(sampling, crop)
    assert taken.views == views
    clips = {taken.request(sample, seed=3) for sample in Views(DATASET[:1], views=views)}
    assert len(clips) == views


@given(windows=st.integers(1, 6), boxes=st.integers(1, 6))
def test_the_boxes_of_one_window_are_neighbours(windows: int, boxes: int) -> None:
    taken = policy(DenseView(frames=4, stride=2, view=0, views=windows), ViewCrop(view=0, views=boxes))
    samples = list(Views(DATASET, views=taken.views))
    assert [chosen(taken, sample) for sample in samples] == [
        (window, box) for _ in DATASET for window in range(windows) for box in range(boxes)
    ]


def test_the_boxes_of_one_window_want_the_same_frames_whatever_their_seeds() -> None:
    samples = enumerate(Views(DATASET, views=6))
    keys = [policy().request(sample, seed=index).frames_key for index, sample in samples]
    assert len(set(keys)) == 2 * len(DATASET)
    assert all(len(set(keys[at : at + 3])) == 1 for at in range(0, len(keys), 3))


def test_a_published_rule_and_a_chosen_box_keep_what_the_view_does_not_change() -> None:
    rule = PublishedRule(rule="avion_views", frames=8, stride=4, views=5)
    taken = policy(rule, ViewCrop(view=2, ratio=0.5))
    requests = [taken.request(sample, seed=9) for sample in Views(DATASET[:1], views=taken.views)]
    for view, request in enumerate(requests):
        assert request.sampling == PublishedRule(rule="avion_views", frames=8, stride=4, view=view, views=5)
        assert request.crop == ViewCrop(view=2, ratio=0.5)
        assert (request.seed, request.video, request.shape) == (9, "video0", taken.shape)


@given(seeds=st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)), view=st.integers(0, 5))
def test_the_seed_changes_nothing_about_a_view(seeds: tuple[int, int], view: int) -> None:
    sample = Sample(video="v", start_s=1.0, end_s=4.0, view=view)
    one, other = (policy().request(sample, seed=seed) for seed in seeds)
    picked = [r.sampling.pick(TIMES_S, (r.start_s, r.end_s), r.seed).tolist() for r in (one, other)]
    assert picked[0] == picked[1]
    assert one.crop.choose(192, 128, one.seed) == other.crop.choose(192, 128, other.seed)
    assert one.flipped is other.flipped is False


@pytest.mark.parametrize(
    ("view", "taken"), [(6, policy()), (-1, policy()), (1, policy(Segments(frames=4), ResizedCentreCrop()))]
)
def test_a_view_that_the_policy_has_not_is_refused(view: int, taken: ClipPolicy) -> None:
    with pytest.raises(BadRequest, match=rf"view of \[1, 2\) s of v is {view}, wanted 0 to {taken.views - 1}$"):
        taken.request(Sample(video="v", start_s=1.0, end_s=2.0, view=view), seed=0)


@given(views=st.integers(1, 7))
def test_each_sample_stands_there_once_a_view_with_its_span_and_target(views: int) -> None:
    dataset = Views(DATASET, views=views)
    assert len(dataset) == len(list(dataset)) == 4 * views
    for index, sample in enumerate(dataset):
        whole = DATASET[index // views]
        assert (sample.video, sample.start_s, sample.end_s) == (whole.video, whole.start_s, whole.end_s)
        assert sample.target is whole.target
        assert sample.view == index % views


def test_one_view_is_the_dataset_itself() -> None:
    assert list(Views(DATASET, views=1)) == DATASET


@pytest.mark.parametrize("index", [-1, 24])
def test_an_index_outside_is_an_error_that_names_it(index: int) -> None:
    with pytest.raises(IndexError, match=f"index is {index}, wanted 0 to 23"):
        Views(DATASET, views=6)[index]


def test_no_views_are_refused() -> None:
    with pytest.raises(BadInput, match="views is 0"):
        Views(DATASET, views=0)


def test_a_sample_without_a_view_is_asked_for_as_the_policy_says() -> None:
    for sampling in (WINDOWS, DenseView(frames=4, stride=2, view=1, views=2), Segments(frames=4)):
        for crop in (ViewCrop(view=0), ViewCrop(view=2), RandomResizedCrop()):
            request = policy(sampling, crop).request(DATASET[0], seed=5)
            assert (request.sampling, request.crop) == (sampling, crop)


def test_a_stand_in_is_another_view_or_sample_and_the_state_says_which() -> None:
    dataset = Views(DATASET, views=6)
    places = Sampler(samples=len(dataset), run_seed=2, share=Share(batch_clips=4)).batch(0)
    stand_ins = StandIns(dataset, PoisonOptions(policy="replace", budget=3), ledger=Ledger())
    stood_in = stand_ins.after(place_of(places, 0), None, BadRequest("torn"))
    assert stood_in.index != places.indices[0]
    assert stood_in.sample == dataset[stood_in.index]
    assert read(spell([stood_in]), dataset) == [stood_in]
