"""The rows of annotations that can be used, as a table again: with all that their file says of them. It writes no file.

A table keeps its columns in their order, and its own words where they are right; of EPIC-Kitchens' CSVs all columns
stand behind those of a table.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from framefeed.errors import BadInput
from trainer_client.datasets.column_writer import Row
from trainer_client.datasets.csv_records import delimiter_of, read_csv
from trainer_client.datasets.parsed import Parsed
from trainer_client.datasets.row_check import RowCheck
from trainer_client.datasets.spec import Kind
from trainer_client.datasets.tables import table_columns, table_records

_Record = Mapping[str, object]


def fixed_rows(found: RowCheck, parsed: Parsed, kind: Kind, path: Path) -> bytes:
    """What a file at `path` is to hold: JSON lines where it ends in .jsonl, else a CSV with tabs (.tsv) or commas.

    Raises BadInput for rows that a CSV cannot hold.
    """
    rows: list[Row] = list(parsed.rows)
    of_line = _as_written(parsed, kind)
    label = "label" if "label" in parsed.labels else "action" if "action" in parsed.labels else None
    columns = ["video", "start", "end", *(["label"] if label else []), *(["text"] if parsed.has_text else [])]
    if parsed.source is not None and kind == "table":
        own = table_columns(parsed.source)
        columns = [*own, *(name for name in ("start", "end") if name not in own)]
    elif of_line:
        columns += [name for name in next(iter(of_line.values())) if name not in columns]
    records = []
    for at, used in found.usable_rows():
        row = rows[at]
        record = {**of_line.get(parsed.lines[at], {})} if parsed.lines else {}
        if kind != "table":
            record["text"] = row.texts[0] if len(row.texts) == 1 else list(row.texts)
            if label:
                record["label"] = parsed.classes[label][row.labels[parsed.labels.index(label)]]
        record["video"] = used.video
        for name, was_s, is_s in (("start", row.start_s, used.start_s), ("end", row.end_s, used.end_s)):
            if was_s != is_s or kind != "table" or record.get(name) in (None, ""):
                record[name] = round(is_s, 6)
        records.append(record)
    if path.suffix == ".jsonl":
        return "".join(json.dumps(_named(record, columns), ensure_ascii=False) + "\n" for record in records).encode()
    return _csv(records, columns, path)


def _as_written(parsed: Parsed, kind: Kind) -> dict[int, _Record]:
    """What the file says of each row, by its line; nothing where its lines are no records of columns."""
    if parsed.source is None or kind not in ("table", "ek100_cls", "ek100_mir"):
        return {}
    wanted = set(parsed.lines)
    return {line: values for line, values in _records(parsed.source, kind) if line in wanted}


def _records(path: Path, kind: Kind) -> Iterator[tuple[int, _Record]]:
    if kind == "table":
        for line, values in table_records(path):
            if not isinstance(values, ValueError):
                yield line, values
        return
    read = read_csv(path)
    for line, fields in read.records:
        yield line, dict(zip(read.names, fields, strict=False))


def _named(record: _Record, columns: Sequence[str]) -> _Record:
    return {name: record[name] for name in columns if name in record}


def _csv(records: Sequence[_Record], columns: Sequence[str], path: Path) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter_of(path), lineterminator="\n")
    writer.writerow(columns)
    for record in records:
        writer.writerow([_field(record.get(name), name, path) for name in columns])
    return text.getvalue().encode()


def _field(value: object, name: str, path: Path) -> str:
    if name == "text" and isinstance(value, list):
        if len(value) > 1:
            raise BadInput(f"--fixed {path}: a row has {len(value)} texts, of which a CSV holds one; wanted NAME.jsonl")
        return str(value[0]) if value else ""
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, float) and name in ("start", "end"):
        return f"{value:.6f}"
    return json.dumps(value, ensure_ascii=False)
