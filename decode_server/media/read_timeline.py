"""Reads the timeline of a file that is demuxed, decoding only what has to be decoded to know it.

It opens the file anew for that, since not every demuxer goes back. Blocks on the file; it decides nothing.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from decode_server.media.demux import Demuxed
from decode_server.media.edit_list import dropped_inside
from decode_server.media.file_end import file_end
from decode_server.media.frame_order import order_by_decoding
from decode_server.media.pictures import picture_changes
from decode_server.media.soundness import STRICT, TELL_WHAT_IS_MISSING
from decode_server.media.stream_choice import OpenVideo
from decode_server.media.stream_end import ended
from decode_server.media.stream_facts import StreamFacts
from decode_server.media.timeline import Timeline, build_timeline, needs_order, stream_breaks


def read_timeline(video: OpenVideo, path: Path, demuxed: Demuxed, *, max_gap_s: float) -> Timeline:
    """The timeline of an open video of which `demuxed` are the packets; pauses longer than `max_gap_s` are cut out.

    Raises CorruptMedia and UnsupportedMedia with the reason why nothing of it can be used, StorageFault, and what
    opening raises.
    """
    facts = _facts(video, path)
    if facts.trimmed:
        facts = replace(facts, dropped=dropped_inside(video, path, demuxed.rows))
    order = pictures = None
    with video.again(path) as fresh:
        if needs_order(facts, demuxed.rows):
            order = order_by_decoding(fresh, demuxed.rows, stream_breaks(demuxed, facts, max_gap_s=max_gap_s))
        else:
            pictures = picture_changes(fresh, demuxed.rows)
    timeline = build_timeline(demuxed, facts, order=order, pictures=pictures, max_gap_s=max_gap_s)
    doubtful = timeline.doubtful(at_keys=video.stream.codec_context.name in TELL_WHAT_IS_MISSING)
    if not doubtful:
        return ended(timeline)
    with video.again(path) as fresh:
        doubtful &= {
            number for number, _ in order_by_decoding(fresh, demuxed.rows, timeline.breaks, options=STRICT).emitted
        }
    rows = [replace(row, damaged=row.damaged and n not in doubtful) for n, row in enumerate(demuxed.rows)]
    sound = replace(demuxed, rows=rows)
    return ended(build_timeline(sound, facts, order=order, pictures=pictures, max_gap_s=max_gap_s))


def _facts(video: OpenVideo, path: Path) -> StreamFacts:
    stream = video.stream
    base = Fraction(stream.time_base)
    rate = stream.average_rate or stream.guessed_rate or stream.base_rate
    promises = bool(stream.frames and stream.duration)
    listed = len(stream.index_entries) if video.container.format.name.startswith("mov") else stream.frames
    return StreamFacts(
        container=video.container.format.name,
        time_base=base,
        frames_per_s=Fraction(rate) if rate else Fraction(30),
        reordered=bool(stream.codec_context.has_b_frames),
        frames=listed if promises else 0,
        end=stream.duration + (stream.start_time or 0) if promises else _tagged_end(stream, base),
        trimmed=listed < stream.frames,
        note=video.note,
        alpha_beside=stream.metadata.get("alpha_mode") == "1",
        file_end=file_end(path, video.container.format.name, stream.id),
    )


def _tagged_end(stream: Any, base: Fraction) -> int:
    """The time in Matroska's DURATION tag of a stream, 0 where there is none to read."""
    try:
        hours, minutes, seconds = stream.metadata.get("DURATION", "").split(":")
        return round((int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds[:12])) / base)
    except ValueError:
        return 0
