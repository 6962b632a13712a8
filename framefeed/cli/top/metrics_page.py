"""A metrics page's text as numbers, by prometheus_client's parser; it knows not what they mean.

A page may be anyone's: it is bounded in bytes, lines and labels, names are printable, and numbers finite.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

from framefeed.show_value import one_line

MAX_PAGE_BYTES = 1 << 21  # a rank's, with a histogram of each of a thousand servers
LARGEST = 1e15  # of numbers that mean anything: bytes of a fleet in a year; products of a few stay finite
_PREFIX = "framefeed_"
_MAX_LINE_CHARS, _MAX_LABEL_CHARS, _MAX_SAMPLES = 2000, 100, 50_000

Labels = tuple[tuple[str, str], ...]
"""Names and values, in the order of names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What a page said at one time, by a clock that only runs forward: values by sample name and labels; or, in one
    line, why it said nothing.
    """

    url: str
    at_s: float = 0.0
    trouble: str = ""
    samples: Mapping[str, Mapping[Labels, float]] = field(default_factory=dict)

    def values(self, name: str, **having: str) -> Iterator[tuple[dict[str, str], float]]:
        """Labels and value of each sample of a name that has these labels, without them."""
        for labels, value in self.samples.get(name, {}).items():
            others = dict(labels)
            if all(others.pop(key, None) == wanted for key, wanted in having.items()):
                yield others, value

    def total(self, name: str, **having: str) -> float:
        """Sum over the samples of a name that have these labels; 0 without any."""
        return sum(value for _, value in self.values(name, **having))


def parse_page(url: str, text: str, *, at_s: float) -> Page:
    """The framefeed metrics on a page that was read then. Never raises: what cannot be parsed is the page's trouble."""
    lines = [line for line in text[:MAX_PAGE_BYTES].split("\n") if line.startswith(_PREFIX)]
    if any(len(line) > _MAX_LINE_CHARS for line in lines) or len(lines) > _MAX_SAMPLES:
        return Page(url=url, at_s=at_s, trouble="its page is none of framefeed's: too many or too long lines")
    samples: dict[str, dict[Labels, float]] = {}
    try:
        for family in text_string_to_metric_families("\n".join(lines) + "\n"):
            for sample in family.samples:
                if abs(sample.value) <= LARGEST:  # neither infinite nor NaN
                    samples.setdefault(sample.name, {})[_labels(sample.labels)] = sample.value
    except Exception as error:  # the parser promises nothing for a page that is none
        trouble = one_line(f"its page cannot be read: {str(error) or type(error).__name__}", chars=120)
        return Page(url=url, at_s=at_s, trouble=trouble)
    return Page(url=url, at_s=at_s, samples=samples, trouble="" if samples else "its page has no framefeed metric")


def _labels(labels: Mapping[str, str]) -> Labels:
    """Printable, bounded, in order: what is shown of them, and what they are known by."""
    shown = ((one_line(k, chars=_MAX_LABEL_CHARS), one_line(v, chars=_MAX_LABEL_CHARS)) for k, v in labels.items())
    return tuple(sorted(shown))
