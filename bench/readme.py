"""Writes the README's tables from bench/results: `python -m bench.readme`. A test holds README and results together."""

from __future__ import annotations

import json
from pathlib import Path

from bench.tables import decode_markdown, profile_markdown, transport_markdown

ROOT = Path(__file__).parents[1]


# By the marker's name: which result, and how it is written.
_TABLES = {
    "decode": ("decode", decode_markdown),
    "profile": ("decode", profile_markdown),
    "transport": ("transport", transport_markdown),
}


def with_tables(readme: str, results: Path) -> str:
    """The README with the text between each pair of bench markers made anew from the results."""
    for name, (result, markdown) in _TABLES.items():
        table = markdown(json.loads((results / f"{result}.json").read_text()))
        begin, end = f"<!-- bench {name} -->\n", "\n<!-- end -->"
        assert readme.count(begin) == 1, f"README.md has no place for the table of bench {name}"
        before, _, rest = readme.partition(begin)
        readme = before + begin + table + end + rest.partition(end)[2]
    return readme


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(with_tables(path.read_text(), ROOT / "bench/results"))
