"""TorchDataset under PyTorch's own DataLoader, fed by a real server."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
import pytest

torch_data = pytest.importorskip("torch.utils.data")

from framefeed.errors import BadInput  # noqa: E402 - torch may not be there
from tests.integration.forking_trainer import DATASET, POLICY, is_right  # noqa: E402
from tests.integration.serving import Server  # noqa: E402
from tests.integration.ways import start  # noqa: E402
from trainer_client.adapters.torch_dataset import TorchDataset  # noqa: E402
from trainer_client.loader import LoaderOptions  # noqa: E402
from trainer_client.training.torch_batches import TorchBatch  # noqa: E402


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with start(tmp_path_factory.mktemp("torch"), "shm") as server:
        yield server


def dataset(server: Server, **chosen: Any) -> TorchDataset:
    options = {"batch_clips": 4, "epochs": 1, "prefetch_batches": 3, "stall_s": 30.0, **chosen}
    return TorchDataset(DATASET, POLICY, LoaderOptions(servers=[server.endpoint], **options))


def under(clips: TorchDataset, **options: Any) -> Any:
    return torch_data.DataLoader(clips, batch_size=None, **options)


def positions(batch: TorchBatch) -> list[int]:
    return batch.positions.tolist()


def test_a_data_loader_gives_the_run(server: Server) -> None:
    with dataset(server) as clips:
        loader = under(clips)
        assert len(loader) == 10
        batches = list(loader)
        assert [p for batch in batches for p in positions(batch)] == list(range(40))
        for batch in batches:
            assert is_right(batch.batch)
            assert np.shares_memory(batch.pixels.numpy(), batch.batch.pixels)
            assert batch.pixels.shape == (4, 4, 224, 224, 3)
        assert clips.loader.stats.batches == 10
        assert list(loader) == []


def test_a_loop_that_is_left_goes_on_where_it_stood(server: Server) -> None:
    with dataset(server) as clips:
        loader = under(clips)
        seen = []
        for batch in loader:
            seen += positions(batch)
            if len(seen) == 12:
                break
        seen += [p for batch in loader for p in positions(batch)]
        assert seen == list(range(40))


def test_a_state_is_where_the_run_stands(server: Server) -> None:
    with dataset(server) as clips:
        first = iter(under(clips))
        before = [positions(next(first)) for _ in range(3)]
        state = clips.state_dict()
    with dataset(server) as clips:
        clips.load_state_dict(state)
        after = [positions(batch) for batch in under(clips)]
    assert [*chain(*before, *after)] == list(range(40))


def test_torchdatas_loader_saves_and_resumes_it(server: Server) -> None:
    stateful = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader
    with dataset(server) as clips:
        loader = stateful(clips, batch_size=None, num_workers=0)
        running = iter(loader)
        before = [positions(next(running)) for _ in range(3)]
        state = loader.state_dict()
    with dataset(server) as clips:
        loader = stateful(clips, batch_size=None, num_workers=0)
        loader.load_state_dict(state)
        after = [positions(batch) for batch in loader]
    assert [*chain(*before, *after)] == list(range(40))


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_are_refused_in_one_line(server: Server, workers: int) -> None:
    with dataset(server) as clips:
        running = iter(clips)
        before = [positions(next(running)) for _ in range(2)]
        with pytest.raises(BadInput, match=f"DataLoader has num_workers={workers}, wanted num_workers=0: the decode"):
            next(iter(under(clips, num_workers=workers)))
        after = [positions(batch) for batch in running]
    assert [*chain(*before, *after)] == list(range(40))


def test_it_is_not_pickled_for_workers_that_are_spawned(server: Server) -> None:
    with dataset(server) as clips:
        with pytest.raises(BadInput, match=r"a TorchDataset cannot leave process \d+ that made it; make it in"):
            pickle.dumps(clips)
        with pytest.raises(BadInput, match=r"num_workers=0"):
            next(iter(under(clips, num_workers=1, multiprocessing_context="spawn")))


@pytest.mark.slow
def test_a_run_without_an_end_has_no_length(server: Server) -> None:
    with dataset(server, epochs=None) as clips:
        with pytest.raises(TypeError, match="no end"):
            len(clips)
        assert positions(next(iter(under(clips)))) == [0, 1, 2, 3]
