"""What became of the videos of a chunking run: as a file, as quarantined stretches and on the terminal."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from decode_server.chunking.transcode import ChunkRecord
from framefeed.new_file import write_whole
from framefeed.quarantine import QuarantinedSpan, read_quarantine

REPORT_NAME = "framefeed.chunks.json"


@dataclass(frozen=True, kw_only=True)
class VideoOutcome:
    """What became of one video: its record if any frame is used (`kept` from an earlier run or new), else the reason.

    `retry` is true where another run may succeed (the storage failed).
    """

    video: str
    source: Path
    record: ChunkRecord | None = None
    kept: bool = False
    reason: str = ""
    retry: bool = False


def write_report(root: Path, outcomes: list[VideoOutcome]) -> None:
    """Write ROOT/framefeed.chunks.json, atomically."""
    rows = [
        {
            "video": outcome.video,
            "source": str(outcome.source),
            "state": state_of(outcome),
            "reason": notes_on(outcome),
            "left_out": [asdict(damage) for damage in outcome.record.damages] if outcome.record else [],
            "retry": outcome.retry,
        }
        for outcome in outcomes
    ]
    write_whole(root / REPORT_NAME, json.dumps({"framefeed_chunk_report": 1, "videos": rows}, indent=1).encode())


def quarantine_losses(root: Path, outcomes: list[VideoOutcome]) -> None:
    """List the stretches that damaged sources lost within their videos; of videos made anew, forget older damage."""
    made = {outcome.video for outcome in outcomes if not outcome.kept}
    spans = [
        QuarantinedSpan(
            video=outcome.video, start_s=damage.start_s, end_s=damage.end_s, reason=damage.reason, found_by="chunk"
        )
        for outcome in outcomes
        if outcome.record
        for damage in outcome.record.damages
        if damage.end_s is not None and damage.end_s > damage.start_s
    ]
    known = read_quarantine(root).replaced((), found_by="verify", videos=made)
    known.replaced(spans, found_by="chunk", videos={outcome.video for outcome in outcomes}).write(root)


def state_of(outcome: VideoOutcome) -> str:
    """One word: whole, salvaged (what is whole of it is used), refused, or failed (try again)."""
    if outcome.record is None:
        return "failed" if outcome.retry else "refused"
    return "salvaged" if outcome.record.damages else "whole"


def notes_on(outcome: VideoOutcome) -> str:
    """What was left out of a video and why, empty if nothing was."""
    record = outcome.record
    if record is None:
        return outcome.reason
    notes = [*map(str, record.damages), *record.notes]
    if record.silenced_packets:
        notes.append(f"{record.silenced_packets} packets of sound do not decode and are silence")
    return "; ".join(notes)


def print_report(outcomes: list[VideoOutcome], console: Console) -> None:
    """Print totals, and a line for every video of which something was left out."""
    records = [outcome.record for outcome in outcomes if outcome.record]
    kept = sum(outcome.kept for outcome in outcomes)
    table = Table("videos", "already done", "chunks", "seconds", "source MB", "chunk MB", "ratio", box=None)
    source_bytes, media_bytes = sum(r.source_bytes for r in records), sum(r.media_bytes for r in records)
    table.add_row(
        f"{len(records)} of {len(outcomes)}",
        str(kept),
        str(sum(len(record.chunk_start_s) for record in records)),
        f"{sum(record.duration_s for record in records):.1f}",
        f"{source_bytes / 1e6:.1f}",
        f"{media_bytes / 1e6:.1f}",
        f"{media_bytes / source_bytes:.2f}" if source_bytes else "-",
    )
    console.print(table)
    for outcome in outcomes:
        if notes := notes_on(outcome):
            console.print(
                f"{state_of(outcome)}: {outcome.video}: {notes}", markup=False, highlight=False, soft_wrap=True
            )
