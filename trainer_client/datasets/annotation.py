"""What a data set says of one sample beside its span: its row, texts and labels. It knows no files and no videos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from framefeed.draws import TEXT, draw_below
from framefeed.errors import BadInput


@runtime_checkable
class RatedTexts(Protocol):
    """Texts that are not all equally right for their clip."""

    def relevancy(self, at: int) -> float: ...


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
        return self.texts[self._drawn(seed)]

    def relevancy(self, seed: int) -> float:
        """How right the text is that this seed draws, above 0 and at most 1. Raises BadInput where nobody says it."""
        if not isinstance(self.texts, RatedTexts):
            raise BadInput(f"row {self.row} of the annotations has no relevancies, wanted EPIC-Kitchens' retrieval")
        return self.texts.relevancy(self._drawn(seed))

    def _drawn(self, seed: int | None) -> int:
        if not self.texts:
            raise BadInput(f"row {self.row} of the annotations has no text, wanted at least one")
        return 0 if seed is None else draw_below(seed, len(self.texts), stream=TEXT)


def text_of(target: object, seed: int | None = None) -> str:
    """A sample's text: what Annotation.text gives, or the target itself where that is a string.

    Raises BadInput for a target that has none.
    """
    if isinstance(target, str):
        return target
    return _annotation(target, "a text").text(seed)


def relevancy_of(target: object, seed: int) -> float:
    """How right the text is that `text_of` gives for this seed. Raises BadInput for a target that does not say it."""
    return _annotation(target, "relevancies").relevancy(seed)


def labels_of(target: object) -> Mapping[str, int]:
    """A sample's class numbers by name. Raises BadInput for a target that has none."""
    return _annotation(target, "labels").labels


def _annotation(target: object, wanted: str) -> Annotation:
    if not isinstance(target, Annotation):
        raise BadInput(f"a sample's target is a {type(target).__name__}, wanted one with {wanted}")
    return target
