"""Tokenizers: CLIP's numbers, whatever is typed; a trained one that is the same wherever it is trained."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from framefeed.errors import BadInput
from trainer_client.text import clip_bpe
from trainer_client.text.clip_bpe import ClipTokenizer, find_vocabulary
from trainer_client.text.narration_bpe import NarrationTokenizer
from trainer_client.text.tokens import Tokenizer, TokenLayout

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT.parent / "shared/data/golden/clip_bpe_tokens.json"
NARRATIONS = ["#C C takes the plate", "#C C puts down the knife", "rinse fork", "#O man X looks around"] * 3


@pytest.fixture(scope="module")
def clip() -> ClipTokenizer:
    return ClipTokenizer()


@pytest.fixture(scope="module")
def trained() -> NarrationTokenizer:
    return NarrationTokenizer.train(NARRATIONS, vocabulary=320, context=16)


@pytest.mark.skipif(not GOLDEN.is_file(), reason="no golden tokens here")
def test_clips_numbers_are_the_golden_ones(clip: ClipTokenizer) -> None:
    golden = json.loads(GOLDEN.read_text())
    seen = clip.encode([each["text"] for each in golden])
    assert (seen.shape, seen.dtype) == ((len(golden), 77), np.int64)
    for row, each in zip(seen.tolist(), golden, strict=True):
        assert row == each["ids"], each["text"]


def test_known_texts(clip: ClipTokenizer) -> None:
    assert (clip.layout.vocabulary, clip.layout.start, clip.layout.end) == (49_408, 49_406, 49_407)
    assert clip.encode(["take plate"])[0, :5].tolist() == [49406, 1172, 5135, 49407, 0]
    assert clip.encode([""])[0, :3].tolist() == [49406, 49407, 0]
    assert clip.tokens("<|endoftext|>") == [49407], "as CLIP's own does"
    assert clip.encode([]).shape == (0, 77)


def theirs() -> transformers.CLIPTokenizer:
    with gzip.open(find_vocabulary(), "rt", encoding="utf-8") as file:
        merges = [tuple(line.split()) for line in file.read().splitlines()[1 : 49_152 - 256 - 1]]
    alphabet = list(clip_bpe._byte_characters().values())
    pieces = [*alphabet, *(c + "</w>" for c in alphabet), *map("".join, merges), "<|startoftext|>", "<|endoftext|>"]
    return transformers.CLIPTokenizer(vocab={piece: n for n, piece in enumerate(pieces)}, merges=merges)


@pytest.fixture(scope="module")
def peer() -> transformers.CLIPTokenizer:
    return theirs()


PRINTING = st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="&<"), max_size=60)
WORDS = st.lists(st.sampled_from(["plate", "it's", "knife2", "naïve", "café", "straße", "日本", "¿qué?", "…"])).map(
    " ".join
)


@settings(max_examples=150, deadline=None)
@given(text=st.one_of(PRINTING, WORDS))
def test_agrees_with_transformers(clip: ClipTokenizer, peer: transformers.CLIPTokenizer, text: str) -> None:
    """Where neither ftfy nor HTML has a say: theirs does without both."""
    assert clip.tokens(text) == peer(text)["input_ids"][1:-1]


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=60))
def test_any_text_becomes_a_row(clip: ClipTokenizer, trained: NarrationTokenizer, text: str) -> None:
    for tokenizer in (clip, trained):
        layout = tokenizer.layout
        row = tokenizer.encode([text])[0]
        length = 1 + int(row.argmax())
        assert row.shape == (layout.context,)
        assert row[0] == layout.start
        assert row.max() == layout.end == row[length - 1]
        assert not row[length:].any()
        assert ((row >= 0) & (row < layout.vocabulary)).all()


def test_a_long_text_is_cut_and_keeps_its_end(clip: ClipTokenizer) -> None:
    row = clip.encode(["word " * 200])[0]
    assert row[-1] == clip.layout.end
    assert (row[1:-1] == clip.tokens("word")[0]).all()
    short = ClipTokenizer(context=5).encode(["a b c d e f"])[0]
    assert short.tolist() == [49406, *clip.tokens("a b c"), 49407]


def test_text_is_repaired_as_clip_does(clip: ClipTokenizer) -> None:
    assert clip.tokens("cafÃ©") == clip.tokens("café")
    assert clip.tokens("&amp;lt;b") == clip.tokens("<b")
    assert clip.tokens("  A \t B\n") == clip.tokens("a b")


def test_without_the_vocabulary_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip_bpe, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"bpe_simple_vocab_16e6.*pip install 'framefeed\[clip\]', or give its path"):
        ClipTokenizer()


def test_without_ftfy_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ftfy", None)
    with pytest.raises(BadInput, match=r"needs the package 'ftfy'; pip install 'framefeed\[clip\]'"):
        ClipTokenizer()


def test_the_vocabulary_is_found_without_importing_its_package() -> None:
    code = "import sys; from trainer_client.text.clip_bpe import ClipTokenizer; ClipTokenizer()\n"
    code += "assert not {'open_clip', 'torch', 'transformers'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_vocabulary_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.gz"
    with pytest.raises(BadInput, match=r"vocabulary\.gz cannot be read"):
        ClipTokenizer(path)
    path.write_bytes(b"not gzip")
    with pytest.raises(BadInput, match=r"vocabulary\.gz cannot be read"):
        ClipTokenizer(path)
    path.write_bytes(gzip.compress(b"header\na b\n"))
    with pytest.raises(BadInput, match="has 1 merges, wanted CLIP's 48894"):
        ClipTokenizer(path)


def test_a_context_without_room_is_refused() -> None:
    with pytest.raises(BadInput, match="context is 2, wanted at least 3"):
        TokenLayout(vocabulary=10, context=2)


def test_a_trained_tokenizer_gives_back_what_it_was_given(trained: NarrationTokenizer) -> None:
    texts = ["#c c takes the knife", "unseen 🙂 wörds", "<pad> & \x00"]
    rows = NarrationTokenizer.train(NARRATIONS, vocabulary=320).encode(texts)
    assert [trained.decode(row) for row in rows.tolist()] == texts
    assert trained.layout.vocabulary <= 320
    longer = NarrationTokenizer.train(NARRATIONS, vocabulary=259).encode(texts[:1])
    assert (rows[0] > 0).sum() < (longer[0] > 0).sum(), "it has learned whole words"


def test_saved_and_loaded_it_is_the_same(trained: NarrationTokenizer, tmp_path: Path) -> None:
    trained.save(tmp_path / "tokenizer.json")
    again = NarrationTokenizer.load(tmp_path / "tokenizer.json")
    assert repr(again) == repr(trained) == "NarrationTokenizer(vocabulary=309, context=16)"
    assert np.array_equal(again.encode(NARRATIONS), trained.encode(NARRATIONS))
    again.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "tokenizer.json").read_bytes()


def test_training_is_deterministic_in_any_order_and_process(tmp_path: Path) -> None:
    code = (
        "import random, sys; from pathlib import Path\n"
        "from trainer_client.text.narration_bpe import NarrationTokenizer\n"
        "words = [f'{a}{b} {b}{a}' for a in 'abcdefgh' for b in 'stuvwxyz'] * 2\n"
        "random.Random(int(sys.argv[2])).shuffle(words)\n"
        "NarrationTokenizer.train(words, vocabulary=300).save(Path(sys.argv[1]))"
    )
    for n in range(2):
        environment = {**os.environ, "PYTHONHASHSEED": str(n)}
        command = [sys.executable, "-c", code, str(tmp_path / f"{n}.json"), str(n)]
        subprocess.run(command, cwd=ROOT, env=environment, check=True)
    assert len({(tmp_path / f"{n}.json").read_bytes() for n in range(2)}) == 1, "all pairs are equally frequent"


@pytest.mark.parametrize("text", ["[]", "{}", "no json", '{"framefeed_tokenizer": 1, "context": 77, "bpe": {}}'])
def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(text)
    with pytest.raises(BadInput, match=r"tokenizer\.json is none that"):
        NarrationTokenizer.load(path)


def test_what_cannot_be_trained_loaded_or_saved_is_one_line(trained: NarrationTokenizer, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="vocabulary is 258, wanted at least 259"):
        NarrationTokenizer.train(NARRATIONS, vocabulary=258)
    with pytest.raises(BadInput, match="there is no text"):
        NarrationTokenizer.train(["", "  "])
    with pytest.raises(BadInput, match=r"cannot be read: No such file"):
        NarrationTokenizer.load(tmp_path / "missing.json")
    with pytest.raises(BadInput, match=r"cannot be written: No such file"):
        trained.save(tmp_path / "no" / "folder.json")
    newer = tmp_path / "newer.json"
    newer.write_text('{"framefeed_tokenizer": 2}')
    with pytest.raises(BadInput, match="has format 2, wanted 1"):
        NarrationTokenizer.load(newer)


def test_both_are_tokenizers(clip: ClipTokenizer, trained: NarrationTokenizer) -> None:
    for tokenizer in (clip, trained):
        named: Tokenizer = tokenizer
        assert named.encode(["a"]).shape == (1, named.layout.context)
