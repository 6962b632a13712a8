"""A tokenizer trained on the user's own narrations, for those without CLIP's vocabulary. It knows no tensors.

Byte-pair encoding (Sennrich et al. 2016) over bytes, so that no text is unknown, as the library `tokenizers` does it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from framefeed.errors import BadInput
from framefeed.new_file import write_whole
from framefeed.regular_file import read_regular
from trainer_client.text.tokens import CLIP_CONTEXT, TokenLayout, TokenRows

FORMAT = 1
TOKENIZER_NAME = "tokenizer.json"  # of the file in a run's folder
_MAX_FILE_BYTES = 1 << 28
_SMALLEST = 256 + 3  # every byte, and what is not text: padding, start, end


class NarrationTokenizer:
    """Lower-cased, byte-level BPE; number 0 is padding, the two largest are start and end as CLIP has them."""

    def __init__(self, bpe: Tokenizer, *, context: int = CLIP_CONTEXT) -> None:
        self._bpe = bpe
        self.layout = TokenLayout(vocabulary=bpe.get_vocab_size() + 3, context=context)

    def __repr__(self) -> str:
        return f"NarrationTokenizer(vocabulary={self.layout.vocabulary}, context={self.layout.context})"

    @classmethod
    def train(
        cls, narrations: Iterable[str], *, vocabulary: int = 8_192, context: int = CLIP_CONTEXT
    ) -> NarrationTokenizer:
        """Learn at most `vocabulary` tokens. The same narrations, in any order, give the same tokenizer.

        Blocks for some seconds a million narrations. Raises BadInput for no text, or room for less than all bytes.
        """
        if vocabulary < _SMALLEST:
            raise BadInput(f"tokenizer: vocabulary is {vocabulary}, wanted at least {_SMALLEST}: every byte is a token")
        texts = sorted(narrations)
        if not any(text.strip() for text in texts):
            raise BadInput("tokenizer: there is no text in the narrations, wanted at least one word")
        bpe = Tokenizer(models.BPE())
        bpe.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase(), normalizers.Strip()])
        bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        bpe.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary - 3,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        bpe.train_from_iterator(texts, trainer, length=len(texts))
        return cls(bpe, context=context)

    @classmethod
    def load(cls, path: Path) -> NarrationTokenizer:
        """One that was saved. Raises BadInput for a file that is not one."""
        try:
            saved = json.loads(read_regular(path, limit_bytes=_MAX_FILE_BYTES))
            if saved["framefeed_tokenizer"] != FORMAT:
                raise BadInput(f"tokenizer {path} has format {saved['framefeed_tokenizer']!r}, wanted {FORMAT}")
            bpe, context = Tokenizer.from_str(json.dumps(saved["bpe"])), int(saved["context"])
        except BadInput:
            raise
        except OSError as error:
            raise BadInput(f"tokenizer {path} cannot be read: {error.strerror}") from None
        except Exception as error:  # the library raises bare Exception for what is no tokenizer
            raise BadInput(f"tokenizer {path} is none that NarrationTokenizer has saved: {error!r}") from None
        return cls(bpe, context=context)

    def save(self, path: Path) -> None:
        """Write it as JSON. Raises BadInput if the file cannot be written."""
        saved = {
            "framefeed_tokenizer": FORMAT,
            "context": self.layout.context,
            "bpe": json.loads(self._bpe.to_str()),
        }
        try:
            write_whole(path, (json.dumps(saved, ensure_ascii=False, indent=1) + "\n").encode())
        except OSError as error:
            raise BadInput(f"tokenizer {path} cannot be written: {error.strerror}") from None

    def encode(self, texts: Sequence[str]) -> TokenRows:
        """Texts to int64 (B, context): start, tokens, end, zeros; a text that is too long keeps its end token."""
        encodings = self._bpe.encode_batch(list(texts), add_special_tokens=False)
        return self.layout.rows([[number + 1 for number in encoding.ids] for encoding in encodings])

    def decode(self, row: Sequence[int]) -> str:
        """The text of a row, lower-cased, as far as it was not cut."""
        return self._bpe.decode([number - 1 for number in row if 0 < number < self.layout.start]).strip()
