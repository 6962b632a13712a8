"""A run as a tf.data.Dataset, fed by a real server; only where TensorFlow is installed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from tests.integration.fake_worker import pattern_of  # noqa: E402 - tensorflow may not be there
from tests.integration.forking_trainer import DATASET, POLICY, STEPS, open_loader  # noqa: E402
from tests.integration.serving import Server  # noqa: E402
from tests.integration.ways import start  # noqa: E402
from trainer_client.adapters.tf_dataset import tf_dataset  # noqa: E402


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with start(tmp_path_factory.mktemp("tf"), "shm") as server:
        yield server


def check(batch: dict[str, Any]) -> list[int]:
    """The pixels are those that were asked for. Its positions."""
    for clip, index, seed in zip(batch["pixels"], batch["indices"], batch["seeds"], strict=True):
        request = POLICY.request(DATASET[int(index)], int(seed))
        assert np.array_equal(clip.numpy().reshape(-1), pattern_of(request))
    positions: list[int] = batch["positions"].numpy().tolist()
    return positions


def test_the_shapes_are_known_before_the_first_batch(server: Server) -> None:
    with open_loader([server.endpoint]) as run:
        spec = tf_dataset(run).element_spec
    assert spec["pixels"] == tf.TensorSpec((4, 4, 224, 224, 3), tf.uint8, name="pixels")
    assert spec["seeds"] == tf.TensorSpec((4,), tf.uint64, name="seeds")


def test_it_gives_the_run_also_when_it_prefetches(server: Server) -> None:
    with open_loader([server.endpoint]) as run:
        batches = [check(batch) for batch in tf_dataset(run).prefetch(3)]
    assert [*chain(*batches)] == list(range(4 * STEPS))


def test_a_run_resumes_after_the_steps_that_were_done(server: Server) -> None:
    """Although more were taken out by TensorFlow's prefetching."""
    with open_loader([server.endpoint]) as run:
        ahead = iter(tf_dataset(run).prefetch(4))
        before = [check(next(ahead)) for _ in range(5)]
        state = run.state_after(5)
        del ahead
    with open_loader([server.endpoint]) as run:
        run.load_state_dict(state)
        after = [check(batch) for batch in tf_dataset(run)]
    assert [*chain(*before, *after)] == list(range(4 * STEPS))


def test_an_error_comes_with_its_message(server: Server) -> None:
    with (
        open_loader([server.endpoint], video="corrupt") as run,
        pytest.raises(tf.errors.OpError, match=r"CorruptMedia: clip of corrupt"),
    ):
        next(iter(tf_dataset(run)))
