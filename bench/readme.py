"""Writes the README's tables from bench/results: `python -m bench.readme`. A test holds README and results together."""

from __future__ import annotations

import json
import re
from pathlib import Path

from bench.tables import decode_markdown

ROOT = Path(__file__).parents[1]


def with_tables(readme: str, results: Path) -> str:
    """The README with the text between each pair of bench markers made anew from the results."""
    table = decode_markdown(json.loads((results / "decode.json").read_text()))
    pattern = r"(<!-- bench decode -->\n).*?(\n<!-- end -->)"
    found, count = re.subn(pattern, lambda m: m[1] + table + m[2], readme, flags=re.DOTALL)
    assert count == 1, "README.md has no place for the table of bench decode"
    return found


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(with_tables(path.read_text(), ROOT / "bench/results"))
