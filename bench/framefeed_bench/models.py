"""`framefeed bench models`: memory by kind of layer, largest batches and clips a second, the paper's figures 3 and 4.

On a CPU what autograd keeps is counted exactly and the largest batch follows from it; on a GPU batches and speeds are
measured, and our dual encoder is set beside the same towers built from transformers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from framefeed.errors import BadInput
from framefeed_bench.activations import KINDS, Saved, count_saved
from framefeed_bench.gpu_duel import describe, duel, measure_cases
from framefeed_bench.machine import provenance
from framefeed_bench.model_cases import PAPER_BATCH, PAPER_GPU_BYTES, PAPER_SPEED, VARIANTS, ModelCase, all_cases
from framefeed_bench.model_figures import draw_figures
from framefeed_models.dual_encoder import DualEncoder

# float32 weights, gradients and AdamW's two moments; and what a CUDA context takes.
_BYTES_A_WEIGHT = 4 + 4 + 8
_CONTEXT_BYTES = 0.5e9
Counts = dict[ModelCase, Saved]


@dataclass(frozen=True, kw_only=True)
class ModelsBench:
    """Memory that models keep for the backward pass.

    Counted for ViT-B and TimeSformer-B, and measured where there is a GPU.
    """

    out: Path = Path("bench/results/models.json")
    """Where the result is written, and beside it the picture, as .png."""
    gpu_gb: float = PAPER_GPU_BYTES / 1e9
    """Memory within which the largest batch is sought, in GB; default: that of the paper's A5000."""
    batch: int = 256
    """Clips of the batch at which ours and transformers' are timed."""
    cpu_only: bool = False
    """Count only, also where there is a GPU."""

    def run(self) -> None:
        """Count, measure, print, write. Blocks for half a minute, with a GPU for some minutes.

        Raises BadInput for numbers that make no bench, FramefeedError if contestants do not compute the same.
        """
        if self.batch < 1 or not self.gpu_gb > 0:
            raise BadInput(f"--batch is {self.batch} and --gpu-gb is {self.gpu_gb:g}, wanted more than 0")
        result: dict[str, Any] = {
            **provenance(),
            "torch": torch.__version__,
            "paper": {"largest_batch": PAPER_BATCH, "videos_per_s": PAPER_SPEED},
            "gpu_gb": self.gpu_gb,
            "counted": {name: rows_of(saved, gpu_bytes=1e9 * self.gpu_gb) for name, saved in count_cases().items()},
        }
        result["plain_over"] = {name: ratios(rows) for name, rows in result["counted"].items()}
        rows, title = (
            result["counted"]["bf16 on CUDA"],
            f"largest batch in {self.gpu_gb:g} GB, from the count (figure 4)",
        )
        if torch.cuda.is_available() and not self.cpu_only:
            result |= {"gpu": torch.cuda.get_device_name(), "measured": measure_cases(1e9 * self.gpu_gb)}
            result["duel"] = duel(self.batch)
            title = f"largest batch in {self.gpu_gb:g} GB, {result['gpu']} (figure 4)"
            rows = [counted | measured for counted, measured in zip(rows, result["measured"], strict=True)]
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        draw_figures(self.out.with_suffix(".png"), rows, batches_title=title)
        console = Console()
        for table in memory_tables(rows):
            console.print(table)
        console.print_json(data={"plain_over": result["plain_over"]["bf16 on CUDA"], "duel": result.get("duel")})


def count_cases() -> dict[str, Counts]:
    """What each case keeps, by precision: `bf16` and `float32` are counted, `bf16 on CUDA` follows from the first."""
    half, full = ({case: count_saved(case.config(), half=half) for case in all_cases()} for half in (True, False))
    return {"bf16": half, "bf16 on CUDA": {case: saved.on_cuda() for case, saved in half.items()}, "float32": full}


def rows_of(saved: Counts, *, gpu_bytes: float) -> list[dict[str, Any]]:
    """A row for each case: MB a clip by kind, their sum, the most in the backward pass, and the batch that follows."""
    return [_row(case, saved, gpu_bytes) for case in saved]


def _row(case: ModelCase, saved: Counts, gpu_bytes: float) -> dict[str, Any]:
    own = saved[case]
    flash = saved[ModelCase(encoder=case.encoder, frames=case.frames, variant="+flash")]
    config = case.config()
    # One group of blocks at a time is computed again: of 12 groups, or of 3.
    groups = {"block": 12, "sqrt": 3}.get(config.video.stack.checkpointing)
    peak = own.total_bytes + (flash.in_blocks // groups if groups else 0)
    with torch.device("meta"):
        weights = sum(parameter.numel() for parameter in DualEncoder(config).parameters())
    room = gpu_bytes - _CONTEXT_BYTES - _BYTES_A_WEIGHT * weights
    return {
        **describe(case),
        "mb": {kind: round(own.by_kind[kind] / 1e6, 3) for kind in KINDS},
        "video_mb": round(own.video_bytes / 1e6, 3),
        "peak_mb": round(peak / 1e6, 3),
        "largest_batch": max(0, int(room / peak)),
    }


def ratios(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """By how much a video's memory, and the batch, of each encoder and length is better than plain."""
    plain = {(row["encoder"], row["frames"]): row for row in rows if row["variant"] == VARIANTS[0]}
    found = {}
    for row in rows:
        base = plain[row["encoder"], row["frames"]]
        found[f"{row['encoder']}, {row['frames']} frames, {row['variant']}"] = {
            "memory": round(base["video_mb"] / row["video_mb"], 2),
            "batch": round(row["largest_batch"] / max(1, base["largest_batch"]), 2),
        }
    return found


def memory_tables(rows: list[dict[str, Any]]) -> Iterator[Table]:
    """The rows as tables for the terminal: one an encoder and length, a column a variant."""
    for encoder, frames in dict.fromkeys((row["encoder"], row["frames"]) for row in rows):
        alike = [row for row in rows if (row["encoder"], row["frames"]) == (encoder, frames)]
        table = Table(title=f"{encoder}, {frames} frames: kept for the backward pass, MB a clip")
        table.add_column("bf16 on CUDA")
        for row in alike:
            table.add_column(row["variant"], justify="right")
        for kind in KINDS:
            table.add_row(kind, *(f"{row['mb'][kind]:.1f}" for row in alike))
        table.add_row("peak", *(f"{row['peak_mb']:.1f}" for row in alike))
        table.add_row("largest batch", *(str(row["largest_batch"]) for row in alike))
        if "clips_per_s" in alike[0]:
            table.add_row("clips/s", *(str(row["clips_per_s"]) for row in alike))
        yield table
