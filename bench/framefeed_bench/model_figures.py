"""The paper's figures 3 and 4 with our numbers, as one picture. It knows rows of results, not how they were found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from framefeed_bench.activations import KINDS
from framefeed_bench.model_cases import ENCODERS, PAPER_BATCH, VARIANTS

_COLOURS = dict(zip(KINDS, ("#4c72b0", "#c44e52", "#e5a3a5", "#55a868", "#8172b3", "#999999"), strict=True))
_FRAMES = 4


def draw_figures(path: Path, rows: list[dict[str, Any]], *, batches_title: str) -> None:
    """Draw rows of one precision into a PNG: memory by kind of layer, and the largest batches beside the paper's."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    memory, batches = figure.subplots(1, 2)
    _draw_memory(memory, [row for row in rows if row["encoder"] == "ViT-B" and row["frames"] == _FRAMES])
    _draw_batches(batches, [row for row in rows if row["frames"] == _FRAMES])
    batches.set_title(batches_title, fontsize=10)
    figure.savefig(path, dpi=110)


def _draw_memory(axes: Axes, rows: list[dict[str, Any]]) -> None:
    left = [0.0] * len(rows)
    for kind in KINDS:
        if kind == "text":
            continue
        sizes = [row["mb"][kind] for row in rows]
        axes.barh(range(len(rows)), sizes, left=left, color=_COLOURS[kind], label=kind)
        left = [a + b for a, b in zip(left, sizes, strict=True)]
    for y, total in enumerate(left):
        axes.text(total + 5, y, f"{total:.0f}", va="center", fontsize=9)
    axes.set_yticks(range(len(rows)), [row["variant"] for row in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.12 * max(left))
    axes.set_xlabel("kept for backward, MB a video")
    axes.set_title("ViT-B, 4 frames, bf16 by CUDA's rules (figure 3)", fontsize=10)
    axes.legend(fontsize=8, loc="lower right")


def _draw_batches(axes: Axes, rows: list[dict[str, Any]]) -> None:
    for n, encoder in enumerate(ENCODERS):
        own = [row["largest_batch"] for row in rows if row["encoder"] == encoder]
        axes.plot(range(len(own)), own, "o-", color=f"C{n}", label=encoder)
        paper = PAPER_BATCH[encoder]
        axes.plot(range(len(paper)), paper, "x--", color=f"C{n}", alpha=0.6, label=f"{encoder}, paper (A5000, fp16)")
    axes.set_yscale("log")
    axes.set_xticks(range(len(VARIANTS)), list(VARIANTS), fontsize=8)
    axes.set_ylabel("clips")
    axes.legend(fontsize=8)
