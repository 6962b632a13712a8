"""Storage that fails under the real engine: each fault is told from bad media, and no fault becomes a clip."""

import errno
from pathlib import Path

import numpy as np
import pytest

from decode_server.clips.engine import Engine
from decode_server.clips.library import Library
from decode_server.clips.media_files import DescriptorFile
from decode_server.clips.read_watch import RETRY
from decode_server.clips.storage import BACKOFF_S, Seams
from decode_server.indexing.index import build_index
from framefeed.crops import RandomResizedCrop
from framefeed.errors import CorruptMedia, StorageFault
from framefeed.manifest import PACKETS_NAME
from framefeed.request import ClipRequest
from framefeed.sampling import Segments
from tests.faulty_storage import FaultyFiles, failing, flipped
from tests.videos import make_numbered_video

TRIES = len(BACKOFF_S) + 1
REQUEST = ClipRequest(
    video="v",
    start_s=0.5,
    end_s=1.5,
    sampling=Segments(frames=4),
    crop=RandomResizedCrop(),
    width_px=64,
    height_px=64,
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("root")
    make_numbered_video(folder / "v.mp4", frames=60, width_px=256, height_px=144)
    build_index(folder)
    return folder


@pytest.fixture(scope="module")
def undisturbed(root: Path) -> bytes:
    return decode(Library(root))


def decode(library: Library) -> bytes:
    out = np.empty(REQUEST.clip_bytes, np.uint8)
    engine = Engine(library)
    try:
        engine.decode(REQUEST, out)
    finally:
        engine.close()
        library.close()
    return out.tobytes()


def faulty(root: Path, name: str) -> tuple[Library, FaultyFiles]:
    files = FaultyFiles(name=name)
    return Library(root, seams=Seams(open_file=files, sleep=lambda rest_s: None)), files


@pytest.mark.parametrize("name", ["v.mp4", PACKETS_NAME])
def test_faults_that_pass_cost_a_retry_and_change_no_byte(root: Path, undisturbed: bytes, name: str) -> None:
    library, files = faulty(root, name)
    files.reading.extend([failing(errno.ESTALE), failing(errno.EIO)])
    assert decode(library) == undisturbed
    assert library.watch.take() == {"stale": 1, "io": 1, RETRY: 2}
    assert files.opened[name] == files.closed[name] == 3


@pytest.mark.parametrize("name", ["v.mp4", PACKETS_NAME])
def test_faults_that_stay_are_for_another_server(root: Path, name: str) -> None:
    library, files = faulty(root, name)
    files.reading.extend([failing(errno.EIO)] * TRIES)
    with pytest.raises(StorageFault, match=f"{name}: read failed"):
        decode(library)


@pytest.mark.parametrize("name", ["v.mp4", PACKETS_NAME])
def test_bytes_that_are_right_when_read_again_were_the_storages_fault(
    root: Path, undisturbed: bytes, name: str
) -> None:
    library, files = faulty(root, name)
    files.reading.append(flipped)
    assert decode(library) == undisturbed
    assert library.watch.take()["misread"] >= 1
    assert files.opened[name] == 2, "past the handle that gave them"
    assert files.forgotten, "and past the page cache"


def test_bytes_that_are_wrong_alike_twice_are_the_medias_fault(root: Path) -> None:
    library, files = faulty(root, "v.mp4")
    files.reading.extend([flipped] * 99)
    with pytest.raises(CorruptMedia, match=r"v\.mp4 at \d\.\d+ s \(packet \d+\): its bytes differ from those"):
        decode(library)
    assert library.watch.take() == {"altered": 1}


def test_bytes_that_are_others_each_time_are_the_storages_fault(root: Path) -> None:
    library, files = faulty(root, "v.mp4")
    seen = iter(range(1, 250))

    def garbage(file: DescriptorFile, buffer: memoryview, offset: int) -> int:
        buffer[:] = bytes([next(seen)]) * len(buffer)
        return len(buffer)

    files.reading.extend([garbage] * 99)
    with pytest.raises(StorageFault, match=r"v\.mp4 at .*: its bytes are others each time they are read"):
        decode(library)
    assert library.watch.take() == {"misread": 1}
