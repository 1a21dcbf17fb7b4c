"""ernie2.tokenizer: equal to the `tokenizers` library and to PaddleNLP, with offsets in the text as given."""

from __future__ import annotations

import gzip
import os
import pickle
import random
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from ernie2.config import ConfigError
from ernie2.tokenizer import SPECIAL_TOKENS, Tokenizer, Vocab, make_backend

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("ERNIE2_SHARED", ROOT.parent / "shared"))
PIECES = ["一", "中", "文", "的", "，", "。", "?", "!", "-", ".", "a", "b", "c", "e", "##a", "##b", "##c", "##e", "##é",
          "é", "the", "un", "##believ", "##able", "1", "##9", "##0", "A", "B", "##X", "ß", "ss", "ａ", "ᄀ", "##ᅡ", "한",
          "の", "##の", "σ", "##ς"]
# Code points that interact: marks, controls, all kinds of space, CJK of all planes, Hangul, emoji, full width.
POOLS = [range(0x20, 0x7F), range(0x180), range(0x300, 0x370), range(0x370, 0x400), range(0x2000, 0x2070),
         range(0x3000, 0x3100), range(0x3400, 0x3420), range(0x4DB0, 0x4E20), range(0x9FC0, 0xA000),
         range(0xAC00, 0xAC80), range(0xF900, 0xFB10), range(0xFE00, 0xFE10), range(0xFF00, 0xFFF0),
         range(0xFFF8, 0x10000), range(0x1F300, 0x1F400), range(0x20000, 0x20010), range(0x2A6D0, 0x2A710),
         range(0x2B730, 0x2B930), range(0x2CEA0, 0x2CEC0), range(0x2F7F0, 0x2FA30), range(0x30000, 0x30010),
         range(0xE0000, 0xE0080), range(0x10FFF0, 0x110000), range(0xD800), range(0xE000, 0x110000)]


@pytest.fixture(scope="module")
def vocab() -> Vocab:
    return Vocab([*SPECIAL_TOKENS, *PIECES])


def assert_same(tokenizer: Tokenizer, texts: list[str]) -> None:
    reference = make_backend(tokenizer.vocab.token_to_id, tokenizer.lower_case)
    many = tokenizer.encode_many(texts)
    for text, batched in zip(texts, many, strict=True):
        mine, theirs = tokenizer.encode(text), reference.encode(text, add_special_tokens=False)
        assert mine.ids.tolist() == theirs.ids, ascii(text)
        assert list(zip(mine.starts.tolist(), mine.ends.tolist(), strict=True)) == theirs.offsets, ascii(text)
        for one, other in zip(mine, batched, strict=True):
            assert one.dtype == other.dtype == np.int32 and one.tolist() == other.tolist(), ascii(text)


@pytest.mark.parametrize("lower_case", [True, False])
def test_equals_library_on_random_text(vocab: Vocab, lower_case: bool) -> None:
    rng = random.Random(7)
    texts = ["".join(chr(rng.choice(rng.choice(POOLS))) for _ in range(rng.randrange(30))) for _ in range(1500)]
    words = ["".join(rng.choice(PIECES).removeprefix("##") for _ in range(rng.randrange(12))) for _ in range(500)]
    assert_same(Tokenizer(vocab, lower_case), [*texts, *words])


@pytest.mark.parametrize("lower_case", [True, False])
def test_equals_library_on_every_code_point(vocab: Vocab, lower_case: bool) -> None:
    """Each code point between two letters, at the end of a word, and alone; a sample where blocks are alike."""
    codes = [*range(0x3400), *range(0x3400, 0x9FF0, 7), *range(0x9FF0, 0xD800, 7), *range(0xE000, 0x20000, 7)]
    tokenizer = Tokenizer(vocab, lower_case)
    reference = make_backend(vocab.token_to_id, lower_case)
    for first in range(0, len(codes), 500):
        text = "".join(f"a{chr(c)}a {chr(c)} ab{chr(c)}\n" for c in codes[first:first + 500])
        assert tokenizer.encode(text).ids.tolist() == reference.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("text", [
    "", " ", "\n\t\r", "\x00", "\ufeff中文", "a\u200bb", "e\u0301", "\u0301", "中\u0301文", "[SEP] [MASK]", "##a",
    "a" * 100, "a" * 101, "中" * 300, "ＡＢＣ，１２３", "👨‍👩‍👧中", "\U00020000中\U0002f800", "\u3000　x", "3.14%",
    "UnBelievable-ish", "한국어", "ひらがな", "a\u00a0b",
])
def test_equals_library_on_hard_cases(vocab: Vocab, text: str) -> None:
    assert_same(Tokenizer(vocab), [text])
    assert_same(Tokenizer(vocab, lower_case=False), [text])


def test_offsets_point_into_the_given_text(vocab: Vocab) -> None:
    text = " É的\u200b Unbelievable，中\x00文"
    tokens = Tokenizer(vocab).encode(text)
    pieces = [text[a:b] for a, b in zip(tokens.starts, tokens.ends, strict=True)]
    assert pieces == ["É", "的", "Un", "believ", "able", "，", "中", "文"]
    assert Tokenizer(vocab).tokenize(text) == ["e", "的", "un", "##believ", "##able", "，", "中", "文"]


def test_lone_surrogate_is_dropped_like_a_bad_character(vocab: Vocab) -> None:
    tokens = Tokenizer(vocab).encode("a\ud800 中")
    assert [vocab.id_to_token[i] for i in tokens.ids] == ["a", "中"] and tokens.starts.tolist() == [0, 3]


def test_answers_do_not_depend_on_what_was_asked_before(vocab: Vocab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Remembered words are thrown away when they are too many; a copy made by pickle starts without any."""
    monkeypatch.setattr("ernie2.tokenizer._REMEMBERED_WORDS", 10)
    tokenizer = Tokenizer(vocab)
    texts = [f"abc{n} the{n} 中{'a' * n}" for n in range(120)]
    before = [tokenizer.encode(text).ids.tolist() for text in texts]
    assert before == [tokenizer.encode(text).ids.tolist() for text in reversed(texts)][::-1]
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert before == [copy.encode(text).ids.tolist() for text in texts]


def test_a_million_characters(vocab: Vocab) -> None:
    tokens = Tokenizer(vocab).encode("中文。the " * 150_000)
    assert len(tokens.ids) == 600_000 and tokens.ends[-1] == 150_000 * 7 - 1


def test_decode_is_readable(vocab: Vocab) -> None:
    tokenizer = Tokenizer(vocab)
    ids = [vocab.cls_id, *tokenizer.encode("中文，the unbelievable a.").ids, vocab.sep_id, vocab.pad_id]
    assert tokenizer.decode(ids) == "[CLS] 中文，the unbelievable a. [SEP]"
    assert tokenizer.decode([]) == ""


def test_vocab_reads_both_formats(tmp_path: Path) -> None:
    plain, numbered = tmp_path / "plain.txt", tmp_path / "numbered.txt"
    tokens = ["[PAD]", "[CLS]", "中", "##a", "[SEP]", "[MASK]", "[UNK]", "[unused3]", "##", "\u2028"]
    plain.write_bytes(("\r\n".join(tokens) + "\r\n").encode())
    shuffled = sorted(enumerate(tokens), key=lambda pair: -pair[0])
    numbered.write_text("\n".join(f"{token}\t{row}" for row, token in shuffled), encoding="utf-8", newline="")
    for vocab in (Vocab.load(plain), Vocab.load(numbered)):
        assert vocab.id_to_token == tokens and len(vocab) == 10
        assert (vocab.pad_id, vocab.cls_id, vocab.sep_id, vocab.mask_id, vocab.unk_id) == (0, 1, 4, 5, 6)
        assert np.flatnonzero(vocab.continuation).tolist() == [3]
        assert np.flatnonzero(vocab.special).tolist() == [0, 1, 4, 5, 6, 7]
    assert Vocab.load(plain).digest == Vocab.load(numbered).digest != Vocab(tokens[::-1]).digest


@pytest.mark.parametrize(("content", "message"), [
    (b"[PAD]\n[CLS]\n[SEP]\n[MASK]\na\n", r"vocab.txt: .*no \[UNK\]"),
    (b"[PAD]\n[CLS]\n[SEP]\n[MASK]\n[UNK]\na\nb\na\n", r"vocab.txt:8: token 'a' is in line 6"),
    (b"[PAD]\n[CLS]\n\n[SEP]\n[MASK]\n[UNK]\n", r"vocab.txt:3: empty line"),
    (b"[PAD]\t0\n[CLS]\t1\n[SEP]\t2\n[MASK]\t3\n[UNK]\t7\n", r"vocab.txt:5: id '7'.*0 to 4"),
    (b"[PAD]\t0\n[CLS]\t1\n[SEP]\t1\n[MASK]\t3\n[UNK]\t4\n", r"vocab.txt:3: id '1'"),
    (b"[PAD]\n\xff\xfe\n", r"not UTF-8 at byte 6"),
    (b"", r"no \[PAD\]"),
])
def test_bad_vocabulary_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "vocab.txt"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        Vocab.load(path)


def test_missing_vocabulary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere.txt"):
        Vocab.load(tmp_path / "nowhere.txt")


def test_needs_no_paddle() -> None:
    code = "import sys, ernie2.tokenizer; sys.exit('paddle' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def shared_lines(count: int) -> list[str]:
    """Lines from each file of the shared corpora."""
    lines = []
    for path in sorted((SHARED / "data/corpus").glob("*/*.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            lines += [line.rstrip("\n") for _, line in zip(range(count), file)]
    return lines


@pytest.mark.skipif(not (SHARED / "data/official/vocab.txt").exists(), reason="shared data is not here")
@pytest.mark.parametrize("name", ["vocab.txt", "vocab_en.txt"])
def test_equals_library_on_real_text(name: str) -> None:
    assert_same(Tokenizer(Vocab.load(SHARED / "data/official" / name)), shared_lines(60))


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "data/official/vocab.txt").exists(), reason="shared data is not here")
def test_equals_paddlenlp(tmp_path: Path) -> None:
    from paddlenlp.transformers import ErnieTokenizer

    vocab = Vocab.load(SHARED / "data/official/vocab.txt")
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(vocab.id_to_token) + "\n", encoding="utf-8")
    mine, theirs = Tokenizer(vocab), ErnieTokenizer(str(path))
    differ = [line for line in shared_lines(200) if mine.tokenize(line) != theirs.tokenize(line)]
    # PaddleNLP also splits at symbols beyond ASCII (42℃, 5×3); the `tokenizers` library and BERT do not.
    assert [line for line in differ if not any(ord(c) > 0x7F and unicodedata.category(c)[0] == "S" for c in line)] == []
