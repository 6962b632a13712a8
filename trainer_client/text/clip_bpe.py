"""CLIP's tokenizer: text to the token numbers that OpenAI's, open_clip's, LaViLa's and AVION's weights were trained on.

It knows words and bytes, no tensors. Byte-pair encoding after Sennrich et al. 2016, algorithm 1, over the bytes of
lower-cased words, the last of each marked as a word's end (Radford et al. 2021, §2.4).
"""

from __future__ import annotations

import gzip
import html
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

from framefeed.errors import BadInput
from framefeed.show_value import show_value
from trainer_client.text.tokens import CLIP_CONTEXT, TokenLayout, TokenRows

VOCABULARY_NAME = "bpe_simple_vocab_16e6.txt.gz"
_MERGES = 49_152 - 256 - 2
_START, _END = "<|startoftext|>", "<|endoftext|>"
_WORD_END = "</w>"
_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
_INSTALL = "pip install 'framefeed[clip]'"


class ClipTokenizer:
    """CLIP's byte-pair encoding of 49,408 tokens. One thread at a time: it remembers the words it has seen."""

    def __init__(self, vocabulary: Path | None = None, *, context: int = CLIP_CONTEXT) -> None:
        """`vocabulary` is the file bpe_simple_vocab_16e6.txt.gz; by default the one that open_clip_torch ships.

        Reads 1.3 MB. Raises BadInput if the file, ftfy or regex is not there, or the file is not CLIP's.
        """
        merges = _read_merges(find_vocabulary() if vocabulary is None else vocabulary)
        self._repair, self._words = _text_tools()
        self._bytes = _byte_characters()
        characters = list(self._bytes.values())
        pieces = [*characters, *(c + _WORD_END for c in characters), *("".join(pair) for pair in merges), _START, _END]
        self._numbers = {piece: number for number, piece in enumerate(pieces)}
        self._ranks = {pair: rank for rank, pair in enumerate(merges)}
        self.layout = TokenLayout(vocabulary=len(pieces), context=context)
        self._encode_word = lru_cache(maxsize=1 << 16)(self._encode_unseen)

    def __repr__(self) -> str:
        return f"ClipTokenizer(vocabulary={self.layout.vocabulary}, context={self.layout.context})"

    def encode(self, texts: Sequence[str]) -> TokenRows:
        """Texts to int64 (B, context): start, tokens, end, zeros; a text that is too long keeps its end token."""
        return self.layout.rows([self.tokens(text) for text in texts])

    def tokens(self, text: str) -> list[int]:
        """The token numbers of one text, without start and end; as many as there are."""
        clean = " ".join(html.unescape(html.unescape(self._repair(text))).split()).lower()
        return [number for word in self._words(clean) for number in self._encode_word(word)]

    def _encode_unseen(self, word: str) -> tuple[int, ...]:
        if word in (_START, _END):
            return (self._numbers[word],)
        pieces = [self._bytes[byte] for byte in word.encode()]
        pieces[-1] += _WORD_END
        while len(pieces) > 1:
            first = min(pairwise(pieces), key=lambda pair: self._ranks.get(pair, _MERGES))
            if first not in self._ranks:
                break
            pieces = _merge(pieces, first)
        return tuple(self._numbers[piece] for piece in pieces)


def find_vocabulary() -> Path:
    """CLIP's vocabulary file in the installed open_clip_torch, which is not imported. Raises BadInput without it."""
    spec = find_spec("open_clip")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (path := Path(folder) / VOCABULARY_NAME).is_file():
            return path
    raise BadInput(f"tokenizer: CLIP's vocabulary {VOCABULARY_NAME} is not installed; {_INSTALL}, or give its path")


def _read_merges(path: Path) -> list[tuple[str, str]]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            lines = file.read().splitlines()[1 : _MERGES + 1]
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise BadInput(f"tokenizer: vocabulary {path} cannot be read: {error}") from None
    pairs = [(left, right) for left, _, right in (line.partition(" ") for line in lines) if left and right]
    if len(pairs) != _MERGES:
        raise BadInput(f"tokenizer: vocabulary {path} has {len(pairs)} merges, wanted CLIP's {_MERGES}")
    return pairs


def _merge(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    """The pieces with every occurrence of the pair, from the left, made one."""
    merged: list[str] = []
    for piece in pieces:
        if merged and (merged[-1], piece) == pair:
            merged[-1] += piece
        else:
            merged.append(piece)
    return merged


def _byte_characters() -> dict[int, str]:
    """A visible character for each byte: itself if it prints in Latin-1, else one from U+0100 on; in CLIP's order."""
    printing = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printing]
    return {byte: chr(byte) for byte in printing} | {byte: chr(256 + n) for n, byte in enumerate(others)}


def _text_tools() -> tuple[Callable[[str], str], Callable[[str], list[str]]]:
    """ftfy's repair of broken encodings, and the split into words; both come with the extra `clip`."""
    try:
        ftfy, regex = import_module("ftfy"), import_module("regex")
    except ModuleNotFoundError as error:
        raise BadInput(f"tokenizer: CLIP's needs the package {show_value(error.name)}; {_INSTALL}") from None
    return ftfy.fix_text, regex.compile(_WORDS, regex.IGNORECASE).findall
