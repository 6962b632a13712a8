"""Synthetic videos: deterministic by seed, moving smoothly, with cuts."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import av
import numpy as np
import pytest

from decode_server.chunking.synthetic import make_videos
from decode_server.chunking.synthetic_actions import ACTIONS, FPS, OPPOSITE, make_actions
from framefeed.errors import BadInput


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    made = [
        make_videos(tmp_path / str(n), videos=2, seconds=0.5, size_px=(128, 96), seed=seed)
        for n, seed in enumerate((7, 7, 8))
    ]
    a, b, c = ([path.read_bytes() for path in paths] for paths in made)
    assert a == b
    assert len({*a, *c}) == 4


def test_a_video_has_the_asked_length_moves_between_frames_and_cuts_between_scenes(tmp_path: Path) -> None:
    (path,) = make_videos(tmp_path, videos=1, seconds=8, size_px=(128, 96), fps=15, seed=1)
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="gray").astype(np.int16) for frame in container.decode(video=0)]
    assert len(frames) == 120
    change = [float(np.abs(b - a).mean()) for a, b in itertools.pairwise(frames)]
    cuts = [n for n, size in enumerate(change) if size > 5 * np.median(change)]
    assert min(change) > 0.5
    assert 1 <= len(cuts) <= 4


@pytest.mark.parametrize("fields", [{"videos": 0}, {"seconds": 0}, {"size_px": (129, 96)}, {"size_px": (16, 16)}])
def test_nothing_to_make_is_bad_input(tmp_path: Path, fields: dict[str, object]) -> None:
    with pytest.raises(BadInput, match="wanted"):
        make_videos(tmp_path, **fields)  # type: ignore[arg-type]


def test_scenes_of_actions_have_every_table_and_unseen_combinations_are_in_test_alone(tmp_path: Path) -> None:
    make_actions(tmp_path, train=40, val=20, test=20, scenes_a_video=20)

    def table(name: str) -> list[dict[str, object]]:
        return [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]

    texts = {split: [line["text"] for line in table(f"captions/{split}.jsonl")] for split in ("train", "val", "test")}
    assert [len(set(one)) for one in texts.values()] == [40, 20, 20]
    assert all("label" not in line for line in table("captions/val.jsonl"))
    combination = {action.text: (action.shape, action.colour, action.direction) for action in ACTIONS}
    seen = {combination[str(text)] for text in texts["train"] + texts["val"]}
    assert not seen & {combination[str(text)] for text in texts["test"]}
    assert table("few/train.jsonl") == table("train.jsonl")[::10]
    for ahead, back in zip(table("val.jsonl"), table("reversed/val.jsonl"), strict=True):
        assert OPPOSITE[str(ahead["label"])] == back["label"]
        assert (ahead["start"], ahead["end"]) == (back["start"], back["end"])
    assert not (tmp_path / "reversed/train.jsonl").exists()


def test_a_scene_played_backwards_has_its_frames_the_other_way_and_a_still_one_is_the_frame_half_way(
    tmp_path: Path,
) -> None:
    make_actions(tmp_path, train=8, val=8, test=0, scenes_a_video=8)
    ahead, back = (frames_of(tmp_path / name) for name in ("val_0000.mp4", "val_0000_reversed.mp4"))
    assert len(ahead) == len(back) == 8 * FPS
    for scene in range(8):
        one, other = (frames[scene * FPS : (scene + 1) * FPS].astype(np.int16) for frames in (ahead, back))
        assert np.abs(one - other[::-1]).mean() < np.abs(one - other).mean() / 2, "it moves, and moves back"
    line = json.loads((tmp_path / "speed_still/val.jsonl").read_text().splitlines()[3])
    assert (line["start"], line["end"]) == pytest.approx((3.5, 3.5 + 1 / FPS))


def frames_of(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="gray") for frame in container.decode(video=0)])
