"""What a data set says of one sample beside its span: its row, texts and labels. It knows no files and no videos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from framefeed.draws import TEXT, draw_below
from framefeed.errors import BadInput


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """The `target` of a data set's Sample.

    `row` counts from 0 in the annotations, rows that were left out included; `texts` are all that describe the clip
    alike, so a training takes one at random; `labels` are class numbers by the name of what they classify: "label", or
    "verb", "noun" and "action".
    """

    row: int
    texts: Sequence[str] = ()
    labels: Mapping[str, int] = field(default_factory=dict)

    def text(self, seed: int | None = None) -> str:
        """One of the texts, drawn by the clip's seed (Batch.seeds), the same for the same seed; None is the first.

        Raises BadInput if there is none.
        """
        if not self.texts:
            raise BadInput(f"row {self.row} of the annotations has no text, wanted at least one")
        return self.texts[0 if seed is None else draw_below(seed, len(self.texts), stream=TEXT)]


def text_of(target: object, seed: int | None = None) -> str:
    """A sample's text: what Annotation.text gives, or the target itself where that is a string.

    Raises BadInput for a target that has none.
    """
    if isinstance(target, str):
        return target
    return _annotation(target, "a text").text(seed)


def labels_of(target: object) -> Mapping[str, int]:
    """A sample's class numbers by name. Raises BadInput for a target that has none."""
    return _annotation(target, "labels").labels


def _annotation(target: object, wanted: str) -> Annotation:
    if not isinstance(target, Annotation):
        raise BadInput(f"a sample's target is a {type(target).__name__}, wanted one with {wanted}")
    return target
