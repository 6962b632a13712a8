"""EPIC-Kitchens-100's real validation files end to end: made videos of their names and lengths, in chunks of 15 s,
through a real server: every row is scored or counted, and clips that cross chunks have the frames of both.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from decode_server.chunking.fair_threads import fair_threads
from decode_server.indexing.index import Index
from framefeed.cli.command import main
from framefeed.crops import ResizedCentreCrop
from framefeed.manifest import read_manifest
from framefeed.sampling import Segments
from framefeed_models.block import StackConfig
from framefeed_models.classifier import Classifier, ClassifierConfig
from framefeed_models.dual_encoder import DualEncoder, DualEncoderConfig
from framefeed_models.pixel_norm import CLIP
from framefeed_models.text import TextConfig
from framefeed_models.tubelets import TubeletGrid
from framefeed_models.vit import ViTConfig
from framefeed_models.weights.saved_model import save_model
from tests.integration.made_roots import small_server
from tests.integration.serving import Server
from tests.videos import numbered_frame, read_frame_number
from trainer_client.clip_policy import ClipPolicy
from trainer_client.datasets.open_dataset import open_dataset
from trainer_client.datasets.spec import DataSpec
from trainer_client.loader import ClipLoader, LoaderOptions
from trainer_client.samples import Sample
from trainer_client.text.narration_bpe import NarrationTokenizer

EPIC = Path(__file__).parents[3] / "shared" / "data" / "epic-kitchens-100"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not EPIC.is_dir(), reason="EPIC-Kitchens-100's annotations are not at hand"),
]

CHUNK_S, SIDE_PX, ROWS, CROSSING = 15, 32, 9668, 2116  # 21.9 % of the rows begin in one chunk and end in another
FRAMES = 4
CODEC = {"preset": "ultrafast", "crf": "10", "g": "60", "bf": "0", "threads": "1"}


def made_lengths_s() -> dict[str, int]:
    """The validation videos, as long as they are, in whole seconds up: a frame a second is numbered by its second."""
    with (EPIC / "EPIC_100_validation.csv").open() as file:
        names = {(row["participant_id"], row["video_id"]) for row in csv.DictReader(file)}
    with (EPIC / "EPIC_100_video_info.csv").open() as file:
        lengths_s = {row["video_id"]: float(row["duration"]) for row in csv.DictReader(file)}
    return {f"{person}/{video}": int(np.ceil(lengths_s[video])) for person, video in sorted(names)}


def write_chunk(path: Path, *, first: int, frames: int) -> None:
    """A chunk of a video at a frame a second, numbered from `first` on."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=Fraction(1), options=CODEC)
        stream.width, stream.height, stream.pix_fmt = SIDE_PX, SIDE_PX, "yuv420p"
        with fair_threads():
            stream.codec_context.open()
        for at in range(frames):
            frame = numbered_frame(first + at, width_px=SIDE_PX, height_px=SIDE_PX)
            frame.pts, frame.time_base = at, Fraction(1)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("epic")
    for video, length_s in made_lengths_s().items():
        (folder / f"{video}.mp4").mkdir(parents=True)
        for start in range(0, length_s, CHUNK_S):
            write_chunk(folder / f"{video}.mp4" / f"{start}.mp4", first=start, frames=min(CHUNK_S, length_s - start))
    Index(root=folder, jobs=1).run()
    return folder


@pytest.fixture(scope="module")
def server(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with small_server(tmp_path_factory.mktemp("logs"), root, threads=1, pool_mib=32) as one:
        yield one


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dual encoder with its tokenizer and a classifier of all actions, both of random weights."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    grid = TubeletGrid(frames=FRAMES, height_px=16, width_px=16, tubelet_frames=1, patch_px=16)
    tokenizer = NarrationTokenizer.train(("take plate", "open door", "wash pan"), vocabulary=300, context=24)
    text_stack = StackConfig(width=32, depth=1, heads=2, causal=True)
    text = TextConfig(stack=text_stack, vocabulary=tokenizer.layout.vocabulary, context=24)
    video = ViTConfig(grid=grid, stack=StackConfig(width=32, depth=1, heads=2))
    dual = DualEncoderConfig(video=video, text=text, joint=16)
    save_model(folder / "dual", DualEncoder(dual).state_dict(), dual, pixels=CLIP)
    tokenizer.save(folder / "dual" / "tokenizer.json")
    actions = ClassifierConfig(encoder=video, heads={"action": 1352}, head_std=1.0)
    save_model(folder / "actions", Classifier(actions).state_dict(), actions, pixels=CLIP)
    return folder


# By kind of annotations: the model, and what it is scored by.
SCORED = {
    "ek100_mir": ("dual", {"mAP", "nDCG", "mAP_v2t", "mAP_t2v", "nDCG_v2t", "nDCG_t2v"}),
    "ek100_cls": (
        "actions",
        {
            f"{part}{what}_{score}"
            for what in ("verb", "noun", "action")
            for part, scores in (
                ("", ("top1", "top5", "class_mean")),
                ("unseen_", ("top1",)),
                ("tail_", ("class_mean",)),
            )
            for score in scores
        },
    ),
}


@pytest.mark.parametrize("kind", SCORED)
def test_every_row_of_the_validation_split_is_scored(
    root: Path, server: Server, models: Path, tmp_path: Path, kind: str
) -> None:
    model, names = SCORED[kind]
    data = ("--data.kind", kind, "--data.path", str(EPIC), "--data.split", "val", "--data.cache", str(models / "cache"))
    how = ("--servers", server.endpoint, "--batch-clips", "128", "--threads", "1", "--device", "cpu")
    assert main(["eval", str(models / model), str(root), *data, *how, "--out", str(tmp_path / "said.json")]) == 0
    said = json.loads((tmp_path / "said.json").read_text())
    assert said["scores"].keys() == names
    assert all(0.0 <= score < 0.5 for score in said["scores"].values()), "what knows nothing is rarely right"
    assert said["clips"] == {
        "rows": ROWS,
        "samples": ROWS,
        "scored": ROWS,
        "stood_in": 0,
        "missing": 0,
        "left_out": {},
    }


def test_clips_that_cross_chunks_have_the_frames_of_both(root: Path, server: Server, tmp_path: Path) -> None:
    """Each frame is the one on show at its time, whichever chunk has it; and both chunks are read."""
    spec = DataSpec(kind="ek100_cls", path=EPIC, split="val", cache=tmp_path)
    dataset = open_dataset(spec, read_manifest(root))
    samples = [dataset[index] for index in range(len(dataset))]
    crossing = [one for one in samples if one.start_s // CHUNK_S != one.end_s // CHUNK_S]
    assert len(crossing) == CROSSING
    assert round(100 * len(crossing) / len(samples), 1) == 21.9
    sampling = Segments(frames=FRAMES)
    policy = ClipPolicy(sampling=sampling, crop=ResizedCentreCrop(), width_px=SIDE_PX, height_px=SIDE_PX)
    spans = [Sample(video=one.video, start_s=one.start_s, end_s=one.end_s) for one in crossing]
    loading = LoaderOptions(servers=[server.endpoint], batch_clips=64, epochs=1, shuffle=False, work_class="eval")
    both, lengths_s = 0, made_lengths_s()
    with ClipLoader(spans, policy, loading) as loader:
        for batch in loader:
            for row in np.flatnonzero(batch.epochs == 0).tolist():
                sample, times_s = spans[int(batch.indices[row])], batch.infos[row].pts_s
                numbers = [read_frame_number(frame[..., 1]) for frame in batch.pixels[row]]
                whole_s = np.arange(lengths_s[sample.video], dtype=np.float64)  # as if there were no chunks
                picked = sampling.pick(whole_s, (sample.start_s, sample.end_s), int(batch.seeds[row]))
                assert numbers == picked.tolist() == [int(time_s) for time_s in times_s], sample
                both += len({number // CHUNK_S for number in numbers}) > 1
    print(f"{both} of {len(crossing)} clips that cross a boundary show frames of both of its sides")
    assert both > 0.75 * len(crossing), "of the others the frames that are picked lie on one side"
