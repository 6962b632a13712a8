"""What became of the videos of a chunking run: in the root, as quarantined stretches and in the words of all verbs."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from decode_server.chunking.find_sources import Sources
from decode_server.chunking.transcode import ChunkRecord
from decode_server.media.media_use import MediaUse
from decode_server.sources.file_names import for_people
from decode_server.sources.report import FileReport, Report
from framefeed.new_file import write_whole
from framefeed.quarantine import QuarantinedSpan, read_quarantine
from framefeed.show_value import show_bytes

REPORT_NAME = "framefeed.chunks.json"


@dataclass(frozen=True, kw_only=True)
class VideoOutcome:
    """What became of one video: its record if any frame is used (`kept` from an earlier run or new), else the reason.

    `retry` is true where another run may succeed (the storage failed, the source changed).
    """

    video: str
    source: Path
    record: ChunkRecord | None = None
    kept: bool = False
    reason: str = ""
    retry: bool = False

    @property
    def use(self) -> MediaUse:
        """What of the source is used."""
        if self.record is None:
            return MediaUse(refused=self.reason)
        use, silenced = self.record.use, self.record.silenced_packets
        return replace(use, notes=(*use.notes, f"{silenced} packets of sound do not decode")) if silenced else use


def report_of(outcomes: list[VideoOutcome], sources: Sources) -> Report:
    """What became of every source."""
    files = [
        FileReport(
            file=for_people(str(outcome.source)),
            video=outcome.video,
            use=outcome.use,
            again=outcome.retry,
        )
        for outcome in outcomes
    ]
    files += [FileReport(file=for_people(path), use=MediaUse(refused=why)) for path, why in sources.refused.items()]
    return Report(files=tuple(files), ignored=sources.ignored)


def write_report(root: Path, report: Report) -> None:
    """Write ROOT/framefeed.chunks.json, atomically. Raises OSError."""
    rows = [row.as_row() for row in report.files]
    body = {"framefeed_chunk_report": 2, "videos": rows, "ignored": dict(report.ignored)}
    write_whole(root / REPORT_NAME, json.dumps(body, indent=1).encode())


def quarantine_losses(root: Path, outcomes: list[VideoOutcome]) -> None:
    """List the stretches that damaged sources lost within their videos; of videos made anew, forget older damage.

    Raises OSError.
    """
    made = {outcome.video for outcome in outcomes if not outcome.kept}
    spans = [
        QuarantinedSpan(
            video=outcome.video, start_s=loss.start_s, end_s=loss.end_s, reason=loss.reason, found_by="chunk"
        )
        for outcome in outcomes
        for loss in outcome.use.losses
        if loss.end_s is not None and loss.end_s > loss.start_s
    ]
    known = read_quarantine(root).replaced((), found_by="verify", videos=made)
    known.replaced(spans, found_by="chunk", videos={outcome.video for outcome in outcomes}).write(root)


def print_totals(outcomes: list[VideoOutcome], console: Console, *, inputs: int, took_s: float) -> None:
    """Print what the chunks of all videos come to, of so many inputs, and what this run took."""
    records = [outcome.record for outcome in outcomes if outcome.record]
    kept = sum(outcome.kept for outcome in outcomes)
    table = Table("videos", "already done", "chunks", "hours", "sources", "in chunks", "ratio", "minutes", box=None)
    source_bytes, media_bytes = sum(r.source_bytes for r in records), sum(r.media_bytes for r in records)
    table.add_row(
        f"{len(records)} of {inputs}",
        str(kept),
        str(sum(len(record.chunk_start_s) for record in records)),
        f"{sum(record.duration_s for record in records) / 3600:.3f}",
        show_bytes(source_bytes),
        show_bytes(media_bytes),
        f"{media_bytes / source_bytes:.2f}" if source_bytes else "-",
        f"{took_s / 60:.1f}",
    )
    console.print(table)
