"""Which two sentences may be a pair: the filters of the script that Discovery was made with, for all pairs of
a block at once.

They are those of github.com/sileod/Discovery, demo.ipynb, for both sentences: 2 to 31 words, more than half
of the characters letters, round brackets balanced and an even number of double quotes, more lower-case than
upper-case letters."""

from __future__ import annotations

import numpy as np

from data_gen.text.tokens import WORD, Tokens

# White space, digits, punctuation and symbols, by their blocks.
_NO_LETTERS = (
    (0x0, 0x40),
    (0x5B, 0x60),
    (0x7B, 0xA9),
    (0x2000, 0x2BFF),
    (0x3000, 0x303F),
    (0xFE30, 0xFE6F),
    (0xFF00, 0xFF20),
)
_BRACKETS = ("()", "（）", "“”", "「」", "《》")


def _table(*ranges: tuple[int, int]) -> np.ndarray:
    """bool (65536): characters of the ranges, ends included. All beyond are letters, as the last one is."""
    table = np.zeros(1 << 16, bool)
    for first, last in ranges:
        table[first : last + 1] = True
    return table


_NO_LETTER = _table(*_NO_LETTERS)
_PAIRED = _table(*((ord(one), ord(one)) for one in '"' + "".join(_BRACKETS)))


class PairFilter:
    """What keeps pairs of a table's sentences out; the same pair counts once.

    Args:
        tokens: The table.
        codes: uint32 (characters of its text).
        language: "en" has capitals.
        min_tokens: Fewest tokens of a sentence.
        max_words: Most words of a sentence, punctuation marks counted.
        min_letters: A sentence has more than this share of letters among its characters.
        balanced: Leave out sentences with a bracket or quotation mark that has no partner."""

    def __init__(
        self,
        tokens: Tokens,
        codes: np.ndarray,
        language: str,
        min_tokens: int,
        max_words: int,
        min_letters: float,
        balanced: bool,
    ) -> None:
        self._text, self._language, self._balanced = tokens.text, language, balanced
        self._min_tokens, self._max_words, self._min_letters = min_tokens, max_words, min_letters
        self._words = _before(tokens.begins & WORD)
        self._others, self._paired = (
            _before(table.take(codes, mode="clip")) for table in (_NO_LETTER, _PAIRED)
        )
        self._seen: set[tuple[str, str]] = set()

    def faults(self, first: np.ndarray, second: np.ndarray) -> list[str | None]:
        """Why each pair is left out; None where it may be used, which counts as used.

        Args:
            first: int (n, 4), the first sentences, as `data_gen.text.tokens.Sentences.rows`.
            second: Those that follow them."""
        found = [one or other for one, other in zip(self._faults(first), self._faults(second), strict=True)]
        text = self._text
        for i, (a, b, c, d) in enumerate(np.concatenate([first[:, 2:], second[:, 2:]], axis=1).tolist()):
            pair = text[a:b], text[c:d]
            if pair in self._seen:
                found[i] = "pair seen before in its block"
            elif found[i] is None:
                self._seen.add(pair)
        return found

    def _faults(self, rows: np.ndarray) -> list[str | None]:
        first, last, begin, end = rows.T
        size = end - begin
        faults: list[str | None] = [None] * len(rows)
        long = self._words[last] - self._words[first] > self._max_words
        poor = size - (self._others[end] - self._others[begin]) <= self._min_letters * size
        for i in np.flatnonzero(poor).tolist():
            faults[i] = "too few letters in a sentence"
        for i in np.flatnonzero(long).tolist():
            faults[i] = f"sentence of more than {self._max_words} words"
        for i in np.flatnonzero(last - first < self._min_tokens).tolist():
            faults[i] = f"sentence of fewer than {self._min_tokens} tokens"
        for test, reason, likely in (
            (_in_capitals, "sentence in capitals", np.full(len(rows), self._language == "en")),
            (
                _is_unbalanced,
                "bracket or quotation mark without its partner",
                (self._paired[end] > self._paired[begin]) & self._balanced,
            ),
        ):
            for i in np.flatnonzero(likely).tolist():  # few: the others need not be read
                if faults[i] is None and test(self._text[begin[i] : end[i]]):
                    faults[i] = reason
        return faults


def _before(counted: np.ndarray) -> np.ndarray:
    """int32 (n + 1): how many of a stretch's places count before each, and in all; `counted` is 0 or 1
    (n)."""
    counts = np.zeros(len(counted) + 1, np.int32)
    np.cumsum(counted, out=counts[1:])
    return counts


def _in_capitals(text: str) -> bool:
    return sum(map(str.isupper, text)) >= sum(map(str.islower, text))


def _is_unbalanced(text: str) -> bool:
    return not is_balanced(text)


def is_balanced(text: str) -> bool:
    """Whether every bracket and quotation mark has its partner, in order."""
    if text.count('"') % 2:
        return False
    for left, right in _BRACKETS:
        count = text.count(left)
        if count != text.count(right) or count and not _in_order(text, left, right):
            return False
    return True


def _in_order(text: str, left: str, right: str) -> bool:
    """Whether no right bracket comes before its left one."""
    opened = 0
    for closed, part in enumerate(text.split(right)[:-1], 1):
        opened += part.count(left)
        if opened < closed:
            return False
    return True
