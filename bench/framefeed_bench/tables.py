"""The results of the benches as tables: for the terminal, and in Markdown for README and docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.table import Table

_HEADS = ("", "clips/s/core", "ms a clip", "worst PSNR", "RGB is faster", "YUV is faster")


def decode_tables(result: dict[str, Any]) -> Iterator[Table]:
    """One table a case of `bench decode`, then one of single figures and one of where a clip's time goes."""
    for case in result["cases"]:
        table = Table(title=_title(case))
        for head in _HEADS:
            widest = max(map(len, head.split()), default=0)  # a word is never cut
            table.add_column(head, justify="right" if head else "left", no_wrap=not head, min_width=widest)
        for cells in _rows(case):
            table.add_row(*cells)
        yield table
    table = Table("figure", "value", title="beside them")
    for name, value in _figures(result):
        table.add_row(name, value)
    yield table
    table = Table(*_PROFILE_HEADS, title="where a clip's time goes, ms")
    for cells in _profile_rows(result):
        table.add_row(*cells)
    yield table


def decode_markdown(result: dict[str, Any]) -> str:
    """The same in Markdown: the cases under one head, with where and when they were measured."""
    lines = ["| " + " | ".join(_HEADS) + " |", "|---" * len(_HEADS) + "|"]
    for case in result["cases"]:
        lines.append(f"| **{_title(case)}** |" + " |" * (len(_HEADS) - 1))
        lines += ["| " + " | ".join(cells) + " |" for cells in _rows(case)]
    figures = "; ".join(f"{name} {value}" for name, value in _figures(result))
    where = f"{result['processor']}, one thread, commit {result['commit']}, {result['date']}"
    return "\n".join([*lines, "", f"{figures[0].upper()}{figures[1:]}. {where}."])


def brief_decode_markdown(result: dict[str, Any]) -> str:
    """Each reader's speed in the cases in which peers read the same chunks, in Markdown: a row a reader."""
    cases = [case for case in result["cases"] if case["peers_on"] == "train"]
    heads = ["clips/s on one core", *(f"{case['title']}{head}" for case in cases for head in ("", ": RGB is faster"))]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name in cases[0]["rows"]:
        cells = [name]
        for case in cases:
            ratio = case["ratios"].get(f"framefeed RGB / {name}")
            cells += [str(case["rows"][name]["clips_per_s_per_core"]), f"{ratio:.2f}×" if ratio else ""]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", f"{result['processor']}, commit {result['commit']}, {result['date']}."])


def _title(case: dict[str, Any]) -> str:
    return f"{case['title']}, peers on {'the same' if case['peers_on'] == 'train' else 'ffmpeg-default'} chunks"


def _rows(case: dict[str, Any]) -> Iterator[list[str]]:
    for name, row in case["rows"].items():
        faster = [case["ratios"].get(f"{own} / {name}") for own in ("framefeed RGB", "framefeed YUV")]
        psnr = f"{row['psnr_db']} dB" if row["psnr_db"] else ""
        ratios = [f"{ratio:.2f}×" if ratio else "" for ratio in faster]
        yield [name, f"{row['clips_per_s_per_core']}", f"{row['ms_per_clip']}", psnr, *ratios]


def _figures(result: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if peers := result.get("peers"):  # a result of before has none
        yield "peers", ", ".join(f"{name} {version}" for name, version in peers.items())
    for case in result["cases"]:
        if best := case.get("of_best_peer"):
            yield f"RGB over the best peer ({case['title']}, {case['peers_on']} chunks)", f"{best}×"
    chunks, long = result["chunks"], result["chunks_of_300_s_over_15_s"]
    psnr = chunks["psnr_db"]
    yield "bytes of train over ffmpeg-default chunks", f"{chunks['train_over_archive_bytes']}"
    yield "PSNR against the source", f"{psnr['train']} dB train, {psnr['archive']} dB ffmpeg-default"
    for case in result["cases"]:
        if "yuv_over_feeding_only" in case:
            yield f"YUV clip over feeding only ({case['title']})", f"{case['yuv_over_feeding_only']}"
    yield "300 s over 15 s chunks", f"time {long['time']}, bytes read {long['read_bytes']}"
    yield "three crops of one span together over one by one", f"{result['three_crops_together_over_alone']}"
    yield "two threads over one", f"{result['scaling']['two threads']}"
    yield "two processes over one", f"{result['scaling']['two processes']}"


_PROFILE_HEADS = ("", "read", "feed", "decode", "scale", "convert", "Python", "total", "packets")


def profile_markdown(result: dict[str, Any]) -> str:
    """Where a clip's time goes, in ms, in Markdown: a row a case of `bench decode --profile`."""
    lines = ["| " + " | ".join(_PROFILE_HEADS) + " |", "|---" * len(_PROFILE_HEADS) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(cells) + " |" for cells in _profile_rows(result))])


def _profile_rows(result: dict[str, Any]) -> Iterator[list[str]]:
    for name, row in result["profile_ms"].items():
        yield [name, *(str(row[head.lower()]) for head in _PROFILE_HEADS[1:])]


_TRANSPORT_HEADS = ("", "clips/s", "client CPU, ms a clip", "server CPU, ms a clip", "of decoding in one process")


def transport_table(result: dict[str, Any]) -> Table:
    """The rows of `bench transport`: ready clips, then decoded ones."""
    table = Table(*_TRANSPORT_HEADS)
    for cells in _transport_rows(result):
        table.add_row(*cells)
    return table


def transport_markdown(result: dict[str, Any]) -> str:
    """The same but for clips of 16 frames, in Markdown, with where and when they were measured."""
    lines = ["| " + " | ".join(_TRANSPORT_HEADS) + " |", "|---" * len(_TRANSPORT_HEADS) + "|"]
    shown = {key: value for key, value in result.items() if key != "ready_16_frames"}
    lines += ["| " + " | ".join(cells) + " |" for cells in _transport_rows(shown)]
    where = f"{result['processor']}, one core a side, commit {result['commit']}, {result['date']}"
    return "\n".join([*lines, "", f"{where}."])


def _transport_rows(result: dict[str, Any]) -> Iterator[list[str]]:
    parts = (("ready", "ready"), ("ready, 16 frames", "ready_16_frames"), ("decoded", "decoded"))
    for title, part in parts:
        for name, row in result.get(part, {}).items():
            cells = (row.get(key, "") for key in ("clips_per_s", "client_cpu_ms", "server_cpu_ms", "of_in_process"))
            yield [f"{title}, {name}", *map(str, cells)]
        for name, row in result.get("bare_zeromq_cpu_ms", {}).get(part, {}).items():
            yield [f"{title}, {name}: ZeroMQ alone", "", str(row["receiver"]), str(row["sender"]), ""]


def gpu_markdown(result: dict[str, Any]) -> str:
    """ViT-B steps of ours and of transformers', and what feeding and augmentation take beside them, in Markdown."""
    duel, step_s = result["duel"], result["duel"]["batch"] / result["duel"]["ours: clips_per_s"]
    lines = ["| ViT-B dual encoder, 4 frames, bf16 | clips/s | of the matmul peak |", "|---|---|---|"]
    for name in ("ours", "ours, eager", "transformers", "transformers, compiled"):
        lines.append(f"| {name} | {duel[f'{name}: clips_per_s']} | {duel[f'{name}: share_of_peak']} |")
    lines += ["", "| augmentation of the batch on the GPU | ms | of a step |", "|---|---|---|"]
    for name, ms in result["augmentation_ms_batch_256"].items():
        lines.append(f"| {name} | {ms} | {1e-1 * ms / step_s:.2f} % |")
    where = f"{result['gpu']}, batch {duel['batch']:.0f}, matmul peak {duel['matmul_peak_tflops']} Tflop/s"
    return "\n".join([*lines, "", f"{where}, torch {result['torch']}, {result['date']}; {result['note']}."])


def sampler_table(result: dict[str, Any]) -> Table:
    """The figures of `bench sampler`: one batch() of one rank, and the memory of all of them."""
    title = f"{result['samples']} samples, {result['ranks']} ranks x {result['batch_clips']} clips, an epoch's boundary"
    table = Table("figure", "value", title=title)
    table.add_row("median batch(), ms", str(result["median_ms"]))
    table.add_row("slowest batch(), ms", str(result["slowest_ms"]))
    table.add_row("memory at its height, bytes", str(result["peak_bytes"]))
    table.add_row("memory grown, bytes", str(result["grown_bytes"]))
    return table


def front_table(result: dict[str, Any]) -> Table:
    """The one table of `bench front`."""
    table = Table("", "front CPU, ms a clip", "of that of the fewest", "clips/s", title="4x224x224, ready")
    if bare := result.get("bare_socket_cpu_ms"):  # a result of before has none
        table.add_row("a socket that only sends", f"{bare['sender']:.3f}", "", "")
    for transport, rows in result["by_workers"].items():
        for workers, row in rows.items():
            cells = f"{row['front_cpu_ms']:.3f}", f"{row['of_fewest']:.2f}", f"{row['clips_per_s']:,}"
            table.add_row(f"{transport}, {workers} workers", *cells)
        two = result["two_fronts"][transport]
        table.add_row(
            f"{transport}, two fronts over one", "", f"{two['two_over_one']:.2f}", f"{two['two_fronts_clips_per_s']:,}"
        )
    return table
