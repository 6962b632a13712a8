"""`python -m framefeed_bench.readme` writes the tables of README.md and docs/ from bench/results (a test compares)."""

from __future__ import annotations

import json
from pathlib import Path

from framefeed_bench.tables import (
    brief_decode_markdown,
    decode_markdown,
    gpu_markdown,
    profile_markdown,
    transport_markdown,
)

ROOT = Path(__file__).parents[2]

# A page's markers by name: which result stands there, and how it is written.
PAGES = {
    "README.md": {"decode in brief": ("decode", brief_decode_markdown)},
    "docs/benchmarks.md": {
        "decode": ("decode", decode_markdown),
        "profile": ("decode", profile_markdown),
        "transport": ("transport", transport_markdown),
        "gpu": ("gpu", gpu_markdown),
    },
}


def with_tables(page: str, results: Path) -> str:
    """The text of one of PAGES, with what stands between each pair of bench markers made anew from the results."""
    text = (ROOT / page).read_text()
    for name, (result, markdown) in PAGES[page].items():
        table = markdown(json.loads((results / f"{result}.json").read_text()))
        begin, end = f"<!-- bench {name} -->\n", "\n<!-- end -->"
        assert text.count(begin) == 1, f"{page} has no place for the table of bench {name}"
        before, _, rest = text.partition(begin)
        text = before + begin + table + end + rest.partition(end)[2]
    return text


if __name__ == "__main__":
    for one in PAGES:
        (ROOT / one).write_text(with_tables(one, ROOT / "bench/results"))
