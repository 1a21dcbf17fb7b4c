"""How text is normalised and split into words before WordPiece: two sets of rules, done by the `tokenizers`
library.

`bert`: BERT's own, and those of the `tokenization.py` that came with the first ERNIE releases. A symbol
beyond ASCII belongs to its word: 42℃, 5×3, mc², 二〇〇七's 〇〇 and ～～ are one word each, and [UNK] where
the vocabulary has no pieces such as ##℃; the released Chinese one has none.

`ernie`: those of PaddleNLP's ErnieTokenizer. Such a symbol is a token by itself: 42 ℃. Symbols are Unicode's
category S and the characters of `_MORE_SYMBOLS`. Besides, where the library holds an older edition of
Unicode, that of the running Python counts, as it does in PaddleNLP: it knows more marks, accents and CJK
characters, and drops code points that are not assigned. (Left as they are: U+1734, U+11938 and U+111C9,
letters of scripts hardly anyone writes.)

Text without symbols and without such rarities comes out the same under both."""

from __future__ import annotations

import functools
import unicodedata

import numpy as np
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from ernie2.characters import to_text
from ernie2.strict import ConfigError

RULES = ("bert", "ernie")
DEFAULT_RULES = "ernie"
MAX_WORD_CHARS = 100
"""A longer word is [UNK]; the figure of BERT and of PaddleNLP."""

# Where characters are assigned; beyond, code points are free or for private use.
_LISTED = (range(0x40000), range(0xE0000, 0xE1000))
_MORE_SYMBOLS = "²º〇µØŋƱ"
# The extension that the library begins 256 characters too late.
_CJK_EXTENSION_E = slice(0x2B820, 0x2CEB0)
# The CJK blocks of everyday text. The rarer planes need no table: as runs they cost a little more, that is
# all.
_CJK_BLOCKS = ((0x3400, 0x4DC0), (0x4E00, 0xA000))
_CJK_COMPATIBILITY = range(0xF900, 0xFB00)
_PROBES_AT_ONCE = 2_000


def make_backend(
    token_to_id: dict[str, int], lower_case: bool, rules: str = DEFAULT_RULES
) -> tokenizers.Tokenizer:
    """The reference for a set of rules.

    Args:
        token_to_id: The vocabulary. lower_case: Lower-case and strip accents. rules: "bert" is the library's
        BertNormalizer, BertPreTokenizer and WordPiece as they are; "ernie" adds to them.

    Raises:
        ConfigError: no such rules."""
    if rules not in RULES:
        raise ConfigError(f"splitting rules {rules!r}; use {' or '.join(RULES)}")
    backend = tokenizers.Tokenizer(
        models.WordPiece(vocab=token_to_id, unk_token="[UNK]", max_input_chars_per_word=MAX_WORD_CHARS)
    )
    normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=lower_case, lowercase=lower_case
    )
    splitter = pre_tokenizers.BertPreTokenizer()
    if rules == "ernie":
        dropped, accents, alone = _ernie_classes()
        steps = [normalizers.Replace(tokenizers.Regex(dropped), ""), normalizer]
        steps += [normalizers.Replace(tokenizers.Regex(accents), "")] if lower_case else []
        normalizer = normalizers.Sequence(steps)
        splitter = pre_tokenizers.Sequence(
            [splitter, pre_tokenizers.Split(tokenizers.Regex(alone), "isolated")]
        )
    backend.normalizer, backend.pre_tokenizer = normalizer, splitter
    return backend


@functools.cache
def _ernie_classes() -> tuple[str, str, str]:
    """Regular expressions of the characters that are dropped, that are accents, and that are tokens by
    themselves."""
    major, minor = _categories().T
    dropped = (major == ord("C")) & (minor != ord("s"))
    dropped[[ord(space) for space in "\t\n\r"]] = False
    alone = (major == ord("P")) | (major == ord("S"))
    alone[[ord(symbol) for symbol in _MORE_SYMBOLS]] = True
    alone[_CJK_EXTENSION_E] = True
    return _class(dropped), _class((major == ord("M")) & (minor == ord("n"))), _class(alone)


@functools.cache
def _categories() -> np.ndarray:
    """uint8 (0x110000, 2): the two letters of Unicode's category of each code point."""
    categories = np.full((0x110000, 2), ord("C"), dtype=np.uint8)  # unassigned, or for private use
    for plane in _LISTED:
        listed = "".join(map(unicodedata.category, to_text(np.arange(plane.start, plane.stop))))
        categories[plane.start : plane.stop] = np.frombuffer(listed.encode(), dtype=np.uint8).reshape(-1, 2)
    return categories


def _class(members: np.ndarray) -> str:
    """A regular expression for one of the code points that bool (0x110000) marks."""
    edges = np.flatnonzero(np.diff(members, prepend=False, append=False)).tolist()
    return (
        "["
        + "".join(f"\\x{{{first:X}}}-\\x{{{stop - 1:X}}}" for first, stop in zip(edges[0::2], edges[1::2]))
        + "]"
    )


@functools.cache
def single_characters(lower_case: bool, rules: str = DEFAULT_RULES) -> tuple[np.ndarray, np.ndarray]:
    """Code points whose treatment never depends on their neighbours, as the library itself treats them.

    The letters among the CJK characters are tokens by themselves under any rules. Each other candidate is put
    between two letters: if it comes out as one word of its own, it is a token by itself; if nothing comes out
    and the letters are parted, it is a space. All others are left to the library.

    Returns:
        int64 code points that are a token by themselves (CJK characters, punctuation), and those that are
        spaces."""
    letters, major = plain_cjk(), _categories()[:0x10000, 0]
    is_mark = np.isin(major, [*b"PSZ"])
    is_mark[:0x80] = [not chr(code).isalnum() for code in range(0x80)]
    others = np.setdiff1d(_cjk_codes(), letters, assume_unique=True)
    candidates = np.concatenate([others, _CJK_COMPATIBILITY, np.flatnonzero(is_mark)])
    backend = make_backend(
        {"[UNK]": 0}, lower_case, rules
    )  # nothing is known, so that each word is one token
    words_over, by_itself = np.zeros((2, len(candidates)), dtype=np.int64)
    for first in range(0, len(candidates), _PROBES_AT_ONCE):
        some = candidates[first : first + _PROBES_AT_ONCE]
        probes = np.full((len(some) + 1, 2), ord("a"))
        probes[:-1, 1] = some
        starts, ends = np.array(backend.encode(to_text(probes)[:-1], add_special_tokens=False).offsets).T
        begun, ended = np.bincount(starts, minlength=probes.size), np.bincount(ends, minlength=probes.size)
        words_over[first : first + len(some)] = np.cumsum(begun - ended)[1:-2:2]
        by_itself[first : first + len(some)] = np.bincount(starts[ends - starts == 1], minlength=probes.size)[
            1:-2:2
        ]
    return np.concatenate([letters, candidates[(words_over == 1) & (by_itself == 1)]]), candidates[
        words_over == 0
    ]


@functools.cache
def plain_cjk() -> np.ndarray:
    """int64 code points, rising: CJK characters that no rule changes, each a token by itself."""
    codes = _cjk_codes()
    return codes[(_categories()[codes] == [*b"Lo"]).all(axis=1)]


def _cjk_codes() -> np.ndarray:
    return np.concatenate([np.arange(first, stop) for first, stop in _CJK_BLOCKS])
