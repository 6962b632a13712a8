"""What an encoder does to its process's place in line is undone: SVT-AV1, opened by root, goes before all others."""

from __future__ import annotations

import io
import os
import threading

import av
import pytest

from decode_server.chunking.encoder_trial import try_encoder
from decode_server.chunking.fair_threads import fair_threads
from decode_server.chunking.profiles import profile_named


def policies() -> set[int]:
    return {os.sched_getscheduler(int(thread)) for thread in os.listdir("/proc/self/task")}


def may_be_real_time() -> bool:
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        return False
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return True


needs_right = pytest.mark.skipif(not may_be_real_time(), reason="this user may not make threads real-time")


@needs_right
def test_all_threads_of_an_encoder_are_as_before() -> None:
    with av.open(io.BytesIO(), "w", format="mp4") as container:
        stream = container.add_stream("libsvtav1", rate=30)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        with fair_threads():
            stream.codec_context.open()
            assert os.SCHED_FIFO in policies(), "it does not do that any more: this file can go"
        assert policies() == {os.SCHED_OTHER}


def test_a_trial_leaves_no_real_time_thread() -> None:
    try_encoder(profile_named("train", encoder="libsvtav1"))
    assert policies() == {os.SCHED_OTHER}


@needs_right
def test_an_error_within_it_changes_nothing_of_that() -> None:
    over = threading.Event()
    other = threading.Thread(target=over.wait)

    def fails() -> None:
        with fair_threads():
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
            other.start()
            raise ValueError("as planned")

    with pytest.raises(ValueError, match="as planned"):
        fails()
    assert policies() == {os.SCHED_OTHER}
    over.set()
    other.join()
