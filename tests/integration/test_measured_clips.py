"""The clips on which an int8 export is measured: those of the user's own videos, each once, and counted as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from framefeed.errors import BadInput
from framefeed_models.pixel_norm import IMAGENET
from tests.integration.made_roots import root_of_shapes
from tests.unit.trainer.small_tasks import CPU, GRID, TASKS
from trainer_client.training.onnx_export.graphs import graphs_of
from trainer_client.training.onnx_export.measured_clips import batches_for, check_root

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


def test_clips_of_a_small_root_are_each_measured_once(tmp_path: Path) -> None:
    root = root_of_shapes(tmp_path, {"a": (64, 48)}, frames=270)
    model = TASKS["classify"](CPU).model.eval()
    (graph,) = graphs_of(model, model.config, IMAGENET)
    batches, told = batches_for(graph, GRID, root)
    clips = torch.cat([batch["clips"] for batch in batches])
    assert told == f"{len(clips)} clips of {root}"
    assert len(clips) >= 3
    assert len({clip.numpy().tobytes() for clip in clips}) == len(clips)
    answers = graph.answers(batches[0])
    assert all(len(rows) == len(batches[0]["clips"]) for rows in answers.values())


def test_a_root_without_an_index_is_refused_before_the_export(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"has no framefeed\.manifest\.jsonl"):
        check_root(tmp_path)
