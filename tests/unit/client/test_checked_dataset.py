"""What a user's dataset does wrong is one line that names the sample, with the user's own exception behind it."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from framefeed.errors import BadInput
from tests.manifests import manifest_of
from trainer_client.checked_dataset import CheckedDataset
from trainer_client.samples import Sample, VideoWindows
from trainer_client.views import Views


def samples(count: int, shift_s: float = 0.0) -> list[Sample]:
    return [Sample(video=f"v{i}", start_s=shift_s, end_s=1.0 + shift_s) for i in range(count)]


class Raises:
    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __len__(self) -> int:
        return 30

    def __getitem__(self, index: int) -> Any:
        raise self._error


def index(dataset: Any, at: int) -> BaseException:
    """What comes of a sample in a thread that is not the main one, as the feed's is."""
    caught: list[BaseException] = []

    def look() -> None:
        try:
            CheckedDataset(dataset)[at]
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join(20)
    return caught[0]


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (KeyError("x"), "KeyError: 'x'"),
        (StopIteration(), "StopIteration"),
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (ValueError("two\nlines"), "ValueError: two lines"),
        (BadInput("mine"), "mine"),
    ],
)
def test_what_it_raises_is_named_and_chained(error: BaseException, says: str) -> None:
    caught = index(Raises(error), 17)
    assert isinstance(caught, BadInput)
    assert str(caught) == f"sample 17 of the dataset: {says}"
    assert caught.__cause__ is error


@pytest.mark.parametrize("sample", [None, ("v0", 0.0, 1.0), {"video": "v0"}, Sample], ids=str)
def test_what_is_no_sample_is_named(sample: Any) -> None:
    with pytest.raises(BadInput, match=r"sample 1 of the dataset is .*, wanted a Sample\(video="):
        CheckedDataset([samples(1)[0], sample])[1]


def test_a_list_that_shrinks_is_told() -> None:
    listed = samples(4)
    checked = CheckedDataset(listed)
    listed.clear()
    assert len(checked) == 4
    with pytest.raises(BadInput, match=r"sample 2 .*IndexError.*\(it has 0 samples now, 4 when the loader was made\)"):
        checked[2]


KINDS = {"none": None, "number": 3, "generator": (one for one in samples(2)), "class": Sample, "list class": list}


@pytest.mark.parametrize("dataset", KINDS.values(), ids=KINDS)
def test_what_has_no_length_is_refused(dataset: Any) -> None:
    with pytest.raises(BadInput, match=r"loader: the dataset.* wanted a list of Samples"):
        CheckedDataset(dataset)


def test_a_digest_is_of_the_samples() -> None:
    digest = CheckedDataset(samples(1000)).digest
    assert digest == CheckedDataset(tuple(samples(1000))).digest
    assert digest != CheckedDataset(samples(1000, shift_s=0.5)).digest
    assert digest != CheckedDataset(samples(999)).digest
    assert digest != CheckedDataset(samples(1000)[::-1]).digest
    swapped = samples(1000)
    swapped[500] = Sample(video="another", start_s=0.0, end_s=1.0)
    assert digest != CheckedDataset(swapped).digest
    CheckedDataset(Raises(KeyError("x"))).digest  # noqa: B018  # it is raised when its turn comes


def test_windows_and_their_views_say_whose_videos_they_are_of() -> None:
    manifest = manifest_of({"v0": 100.0}, identity="v1-a")
    windows = VideoWindows(manifest, window_s=1.0)
    assert CheckedDataset(windows).identity == CheckedDataset(Views(windows, views=3)).identity == "v1-a"
    assert CheckedDataset(samples(2)).identity == CheckedDataset(Views(samples(2), views=3)).identity == ""
    other = VideoWindows(manifest, window_s=2.0)
    assert CheckedDataset(windows).digest != CheckedDataset(other).digest
