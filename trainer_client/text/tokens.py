"""Texts as rows of token numbers: the layout that text encoders take. It knows no words and no vocabulary.

Axes: B texts, L token numbers of a text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from framefeed.errors import BadInput

TokenRows = npt.NDArray[np.int64]
CLIP_CONTEXT = 77


class Tokenizer(Protocol):
    """What a recipe needs to feed a text encoder: `layout.vocabulary` and `layout.context` are the encoder's sizes."""

    @property
    def layout(self) -> TokenLayout: ...

    def encode(self, texts: Sequence[str]) -> TokenRows: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLayout:
    """CLIP's rows: [start, tokens, end, 0, 0…] of `context` numbers below `vocabulary`.

    `end` is the largest number of all, so that an encoder finds it as the row's maximum. Raises BadInput for a context
    without room for a token.
    """

    vocabulary: int
    context: int = CLIP_CONTEXT

    def __post_init__(self) -> None:
        if self.context < 3:
            raise BadInput(f"tokenizer: context is {self.context}, wanted at least 3: start, one token, end")

    @property
    def start(self) -> int:
        """The number before every text."""
        return self.vocabulary - 2

    @property
    def end(self) -> int:
        """The number behind every text, and the last of one that is cut."""
        return self.vocabulary - 1

    def rows(self, texts: Iterable[Sequence[int]]) -> TokenRows:
        """Texts as token numbers to int64 (B, L = context). A text that is too long loses its tail, never its end."""
        rows = [[self.start, *tokens[: self.context - 2], self.end] for tokens in texts]
        out_BL = np.zeros((len(rows), self.context), np.int64)
        for row, out_L in zip(rows, out_BL, strict=True):
            out_L[: len(row)] = row
        return out_BL
