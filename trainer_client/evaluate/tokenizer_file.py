"""The tokenizer that a model's texts go through: a run's own, or CLIP's. It knows no texts."""

from __future__ import annotations

from pathlib import Path

from framefeed.errors import BadInput
from framefeed_models.text import TextConfig
from trainer_client.beside_weights import find_beside
from trainer_client.text.clip_bpe import ClipTokenizer
from trainer_client.text.narration_bpe import TOKENIZER_NAME, NarrationTokenizer
from trainer_client.text.tokens import Tokenizer

_CLIP_VOCABULARY = 49_408


def open_tokenizer(chosen: Path | None, weights: Path, text: TextConfig) -> Tokenizer:
    """The file that was chosen; or tokenizer.json beside the weights, or above; or CLIP's for a model of its
    vocabulary.

    Raises BadInput for a file that is no tokenizer, or if none of these is there.
    """
    if chosen is not None and chosen.suffix == ".gz":
        return ClipTokenizer(chosen, context=text.context)
    path = chosen or find_beside(weights, TOKENIZER_NAME)
    if path is not None:
        return NarrationTokenizer.load(path)
    if text.vocabulary != _CLIP_VOCABULARY:
        raise BadInput(
            f"the model's vocabulary has {text.vocabulary} tokens and no {TOKENIZER_NAME} is beside {weights}; wanted "
            "--tokenizer"
        )
    return ClipTokenizer(context=text.context)
