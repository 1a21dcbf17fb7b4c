"""ernie2.tokenizer, ernie2.splitting_rules: equal to the `tokenizers` library and to PaddleNLP's
ErnieTokenizer."""

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
from ernie2.splitting_rules import RULES, make_backend, single_characters
from ernie2.tokenizer import SPECIAL_TOKENS, Tokenizer, Vocab

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("ERNIE2_SHARED", ROOT.parent / "shared"))
PIECES = [
    "一",
    "中",
    "文",
    "的",
    "，",
    "。",
    "?",
    "!",
    "-",
    ".",
    "a",
    "b",
    "c",
    "e",
    "##a",
    "##b",
    "##c",
    "##e",
    "##é",
    "é",
    "the",
    "un",
    "##believ",
    "##able",
    "1",
    "##9",
    "##0",
    "A",
    "B",
    "##X",
    "ß",
    "ss",
    "ａ",
    "ᄀ",
    "##ᅡ",
    "한",
    "の",
    "##の",
    "σ",
    "##ς",
    "℃",
    "##℃",
    "²",
    "∞",
]
# Code points that interact: marks, controls, all kinds of space, CJK of all planes, Hangul, emoji, full
# width.
POOLS = [
    range(0x20, 0x7F),
    range(0x180),
    range(0x300, 0x370),
    range(0x370, 0x400),
    range(0x2000, 0x2070),
    range(0x3000, 0x3100),
    range(0x3400, 0x3420),
    range(0x4DB0, 0x4E20),
    range(0x9FC0, 0xA000),
    range(0xAC00, 0xAC80),
    range(0xF900, 0xFB10),
    range(0xFE00, 0xFE10),
    range(0xFF00, 0xFFF0),
    range(0xFFF8, 0x10000),
    range(0x1F300, 0x1F400),
    range(0x20000, 0x20010),
    range(0x2A6D0, 0x2A710),
    range(0x2B730, 0x2B930),
    range(0x2CEA0, 0x2CEC0),
    range(0x2F7F0, 0x2FA30),
    range(0x30000, 0x30010),
    range(0xE0000, 0xE0080),
    range(0x10FFF0, 0x110000),
    range(0xD800),
    range(0xE000, 0x110000),
]


@pytest.fixture(scope="module")
def vocab() -> Vocab:
    return Vocab([*SPECIAL_TOKENS, *PIECES])


def assert_same(tokenizer: Tokenizer, texts: list[str]) -> None:
    reference = make_backend(tokenizer.vocab.token_to_id, tokenizer.lower_case, tokenizer.rules)
    many = tokenizer.encode_many(texts)
    for text, batched in zip(texts, many, strict=True):
        mine, theirs = tokenizer.encode(text), reference.encode(text, add_special_tokens=False)
        assert mine.ids.tolist() == theirs.ids, ascii(text)
        assert list(zip(mine.starts.tolist(), mine.ends.tolist(), strict=True)) == theirs.offsets, ascii(text)
        for one, other in zip(mine, batched, strict=True):
            assert one.dtype == other.dtype == np.int32 and one.tolist() == other.tolist(), ascii(text)


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("lower_case", [True, False])
def test_equals_library_on_random_text(vocab: Vocab, lower_case: bool, rules: str) -> None:
    rng = random.Random(7)
    texts = [
        "".join(chr(rng.choice(rng.choice(POOLS))) for _ in range(rng.randrange(30))) for _ in range(1500)
    ]
    words = [
        "".join(rng.choice(PIECES).removeprefix("##") for _ in range(rng.randrange(12))) for _ in range(500)
    ]
    assert_same(Tokenizer(vocab, lower_case, rules), [*texts, *words])


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("lower_case", [True, False])
def test_equals_library_on_every_code_point(vocab: Vocab, lower_case: bool, rules: str) -> None:
    """Each code point between two letters, at the end of a word, and alone; a sample where blocks are
    alike."""
    codes = [*range(0x3400), *range(0x3400, 0x9FF0, 7), *range(0x9FF0, 0xD800, 7), *range(0xE000, 0x20000, 7)]
    tokenizer = Tokenizer(vocab, lower_case, rules)
    reference = make_backend(vocab.token_to_id, lower_case, rules)
    for first in range(0, len(codes), 500):
        text = "".join(f"a{chr(c)}a {chr(c)} ab{chr(c)}\n" for c in codes[first : first + 500])
        assert tokenizer.encode(text).ids.tolist() == reference.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "\n\t\r",
        "\x00",
        "\ufeff中文",
        "a\u200bb",
        "e\u0301",
        "\u0301",
        "中\u0301文",
        "[SEP] [MASK]",
        "##a",
        "a" * 100,
        "a" * 101,
        "中" * 300,
        "ＡＢＣ，１２３",
        "👨‍👩‍👧中",
        "\U00020000中\U0002f800",
        "\u3000　x",
        "3.14%",
        "UnBelievable-ish",
        "한국어",
        "ひらがな",
        "a\u00a0b",
        "19℃",
        "ab²∞∞",
        "a\u0378b",
        "=\u0338≠",
        "a\u0660\u06dd1",
    ],
)
@pytest.mark.parametrize("rules", RULES)
def test_equals_library_on_hard_cases(vocab: Vocab, text: str, rules: str) -> None:
    assert_same(Tokenizer(vocab, rules=rules), [text])
    assert_same(Tokenizer(vocab, lower_case=False, rules=rules), [text])


def test_offsets_point_into_the_given_text(vocab: Vocab) -> None:
    text = " É的\u200b Unbelievable，中\x00文"
    tokens = Tokenizer(vocab).encode(text)
    pieces = [text[a:b] for a, b in zip(tokens.starts, tokens.ends, strict=True)]
    assert pieces == ["É", "的", "Un", "believ", "able", "，", "中", "文"]
    assert Tokenizer(vocab).tokenize(text) == ["e", "的", "un", "##believ", "##able", "，", "中", "文"]


def test_rules_differ_at_symbols(vocab: Vocab) -> None:
    bert, ernie = (Tokenizer(vocab, rules=rules) for rules in RULES)
    assert bert.tokenize("19℃") == ["1", "##9", "##℃"] and ernie.tokenize("19℃") == ["1", "##9", "℃"]
    assert bert.tokenize("a²，∞∞中") == ["[UNK]", "，", "[UNK]", "中"]
    assert ernie.tokenize("a²，∞∞中") == ["a", "²", "，", "∞", "∞", "中"]
    tokens = ernie.encode(" a∞\u200b1九")
    assert tokens.starts.tolist() == [1, 2, 4, 5] and tokens.ends.tolist() == [2, 3, 5, 6]
    for text in ("the unbelievable A-b, 中文。a=b $9.00", "É a\u0301b [SEP] ~^|"):
        assert bert.tokenize(text) == ernie.tokenize(text)
    with pytest.raises(ConfigError, match="'Bert'; use bert or ernie"):
        Tokenizer(vocab, rules="Bert")


@pytest.mark.parametrize("rules", RULES)
def test_characters_by_themselves_are_asked_of_the_library_once(rules: str) -> None:
    alone, spaces = (frozenset(map(chr, codes)) for codes in single_characters(True, rules))
    assert set("中一龥㐀，。“+~\u2014") <= alone and set(" \n\t\r\u3000\u2028") <= spaces
    assert not alone & set("aé1の한\u200b\x00") and ("℃" in alone) == (rules == "ernie")
    assert single_characters(True, rules) is single_characters(True, rules)


def test_lone_surrogate_is_dropped_like_a_bad_character(vocab: Vocab) -> None:
    tokens = Tokenizer(vocab).encode("a\ud800 中")
    assert [vocab.id_to_token[i] for i in tokens.ids] == ["a", "中"] and tokens.starts.tolist() == [0, 3]


def test_answers_do_not_depend_on_what_was_asked_before(
    vocab: Vocab, monkeypatch: pytest.MonkeyPatch
) -> None:
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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[PAD]\n[CLS]\n[SEP]\n[MASK]\na\n", r"vocab.txt: .*no \[UNK\]"),
        (b"[PAD]\n[CLS]\n[SEP]\n[MASK]\n[UNK]\na\nb\na\n", r"vocab.txt:8: token 'a' is in line 6"),
        (b"[PAD]\n[CLS]\n\n[SEP]\n[MASK]\n[UNK]\n", r"vocab.txt:3: empty line"),
        (b"[PAD]\t0\n[CLS]\t1\n[SEP]\t2\n[MASK]\t3\n[UNK]\t7\n", r"vocab.txt:5: id '7'.*0 to 4"),
        (b"[PAD]\t0\n[CLS]\t1\n[SEP]\t1\n[MASK]\t3\n[UNK]\t4\n", r"vocab.txt:3: id '1'"),
        (b"[PAD]\n\xff\xfe\n", r"not UTF-8 at byte 6"),
        (b"", r"no \[PAD\]"),
    ],
)
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


def is_odd(character: str) -> bool:
    """Whether the two sets of rules can see a character differently."""
    return ord(character) > 0x7F and (unicodedata.category(character)[0] in "SCM" or character in "²º〇µØŋƱ")


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
@pytest.mark.parametrize("name", ["vocab.txt", "vocab_en.txt"])
def test_equals_paddlenlp(tmp_path: Path, name: str) -> None:
    """A sample of all lines, and every line with something of what the two sets of rules see differently."""
    from paddlenlp.transformers import ErnieTokenizer

    vocab = Vocab.load(SHARED / "data/official" / name)
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(vocab.id_to_token) + "\n", encoding="utf-8")
    lines = [line for line in shared_lines(10**9) if any(is_odd(c) for c in line)]
    assert len(lines) > 700
    lines += shared_lines(100)
    ernie, bert, theirs = (
        Tokenizer(vocab, rules="ernie"),
        Tokenizer(vocab, rules="bert"),
        ErnieTokenizer(str(path)),
    )
    for line, tokens in zip(lines, ernie.encode_many(lines), strict=True):
        assert tokens.ids.tolist() == theirs.convert_tokens_to_ids(theirs.tokenize(line)), line
    assert sum(ernie.tokenize(line) != bert.tokenize(line) for line in lines) > 700


@pytest.mark.slow
@pytest.mark.parametrize("lower_case", [True, False])
def test_ernie_rules_split_every_code_point_as_paddlenlp(lower_case: bool) -> None:
    from paddlenlp.transformers import BasicTokenizer

    backend, theirs = (
        make_backend({"[UNK]": 0}, lower_case, "ernie"),
        BasicTokenizer(do_lower_case=lower_case),
    )
    # Vowel signs that an older Unicode called accents, and a mark that it called punctuation.
    other = {0x1734, 0x11938, 0x111C9}
    for code in [
        *range(0x3400),
        *range(0x3400, 0xD800, 31),
        *range(0xE000, 0x32000),
        *range(0x32000, 0x110000, 997),
    ]:
        text = f"a{chr(code)}b"
        words = backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(text))
        # ErnieTokenizer lower-cases character by character before anything else.
        expected = theirs.tokenize("".join(map(str.lower, text)) if lower_case else text)
        assert [word for word, _ in words] == expected or code in other, hex(code)
