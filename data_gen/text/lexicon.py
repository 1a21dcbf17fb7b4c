"""jieba's dictionary: which words it knows, how frequent they are and what their tags say.

It is read from the dictionary file of the installed jieba, without jieba itself and without its prefix table,
which takes a second to build and 90 MB."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
from pathlib import Path

import numpy as np

from data_gen.text.hash_table import HashTable, sequence_hashes, symbols_of
from ernie2.config import ConfigError

MODIFIER_TAGS = frozenset(["a", "b", "vn", "an"])
"""jieba's tags of words that may stand before a noun in a noun phrase: adjectives, nominal verbs and the
like.
"""

NO_PHRASE_WORDS = (
    "时",
    "内",
    "年",
    "问",
    "方面",
    "有所",
    "依法",
    "时候",
    "期间",
    "以内",
    "以外",
    "之内",
    "之外",
)
"""Words that the dictionary calls nouns or adverbial nouns and that belong to no noun phrase: 调查时,
依法逮捕.
"""

SAMPLED = 5_000
"""Of so many words one is in `Lexicon.sample`."""

FREQUENT = 50
"""Frequency in the dictionary from which a word is put where it is found fastest."""

_SINGLE_SYMBOLS = (
    1 << 16
)  # words of one character beyond are unknown; jieba's rule for words knows no such character

UNKNOWN, OTHER, MODIFIER, NOUN = -1, 0, 1, 2
"""Kinds of words: not in the dictionary, in it, may stand before a noun, noun."""


class Lexicon:
    """The words of a dictionary file in jieba's format, `word frequency tag` a line, UTF-8.

    The tags are those of the file. jieba's tagger (jieba.posseg) guesses a tag for unknown words too, at a
    third of the speed of segmentation; unknown words have no tag here.

    Attributes:
        total: Sum of all frequencies.
        sample: Every five-thousandth word with its frequency, in the order of the file.
        ascii_words: The words of two or more characters that are all ASCII (AT&T, C++)."""

    def __init__(self, path: Path) -> None:
        """Reads the file. Raises ConfigError where it cannot be read or is no such dictionary."""
        try:
            text = path.read_bytes().decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{path}: jieba's dictionary cannot be read ({error}); install jieba again"
            ) from None
        symbols = symbols_of(text)
        ends, blanks = np.flatnonzero(symbols == ord("\n") + 1), np.flatnonzero(symbols == ord(" ") + 1)
        first, last, frequency_end = np.append(0, ends[:-1] + 1), blanks[0::2], blanks[1::2]
        if (
            not text.endswith("\n")
            or len(blanks) != 2 * len(ends)
            or not ((first < last) & (frequency_end + 1 < ends)).all()
        ):
            raise ConfigError(f"{path}: not a dictionary of jieba; install jieba again")
        frequencies = _numbers(symbols, last + 1, frequency_end)
        self.total = int(frequencies.sum())
        self.sample = [
            (text[first[row] : last[row]], int(frequencies[row])) for row in range(0, len(ends), SAMPLED)
        ]
        ascii_words = np.flatnonzero(
            (symbols[first] <= 0x80) & (symbols[last - 1] <= 0x80) & (last - first > 1)
        )
        words = (text[first[row] : last[row]] for row in ascii_words)
        self.ascii_words = frozenset(word for word in words if word.isascii())
        kinds = _kinds(symbols, frequency_end + 1, ends - frequency_end - 1)
        kinds[frequencies == 0] = UNKNOWN
        # Of a word in two lines the later counts, as in jieba; frequent words first, where the table finds
        # them at once.
        self._single = np.full(_SINGLE_SYMBOLS, UNKNOWN, np.int8)
        single = np.flatnonzero((last - first == 1) & (symbols[first] < _SINGLE_SYMBOLS - 1))
        self._single[symbols[first[single]]] = kinds[single]
        order = np.arange(len(ends))[::-1]
        frequent = frequencies[order] >= FREQUENT
        order = np.concatenate([order[frequent], order[~frequent]])
        self._table = HashTable(sequence_hashes(symbols, first, last - first).take(order))
        self._kinds = np.append(
            kinds[order], np.int8(UNKNOWN)
        )  # the last is found by row -1: not in the table
        for word in NO_PHRASE_WORDS:
            if len(word) == 1:
                self._single[symbols_of(word)] = OTHER
            else:
                self._kinds[
                    self._table.find(sequence_hashes(symbols_of(word), np.array([0]), np.array([len(word)])))
                ] = OTHER
        self._kinds[-1] = UNKNOWN

    def kinds(self, symbols: np.ndarray, first: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """int8 (n): UNKNOWN, OTHER, MODIFIER or NOUN of words; arguments as in
        `data_gen.text.hash_table.sequence_hashes`."""
        kinds = self._single.take(symbols.take(first).view(np.int64), mode="clip")  # the last is UNKNOWN
        several = np.flatnonzero(sizes > 1)
        hashes = sequence_hashes(symbols, first.take(several), sizes.take(several))
        kinds[several] = self._kinds[self._table.find(hashes)]
        return kinds


def _kinds(symbols: np.ndarray, first: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """int8 (n): kinds of words by their tags, of which those that count have one or two characters."""
    kinds = np.full(len(first), OTHER, np.int8)
    # Behind a tag of one character stands the line feed.
    tags = np.where(sizes < 3, symbols.take(first) << np.uint64(32) | symbols.take(first + 1), 0)
    for tag in ("n", *MODIFIER_TAGS):
        one, other = symbols_of((tag + "\n")[:2])
        kinds[tags == one << np.uint64(32) | other] = NOUN if tag == "n" else MODIFIER
    return kinds


def _numbers(symbols: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """int64 (n): the decimal numbers at [first, last)."""
    numbers, rest = np.zeros(len(first), np.int64), np.arange(len(first))
    while len(rest):
        numbers[rest] = 10 * numbers.take(rest) + symbols.take(first).view(np.int64) - ord("0") - 1
        more = np.flatnonzero(first + 1 < last)
        rest, first, last = rest.take(more), first.take(more) + 1, last.take(more)
    return numbers


@functools.cache
def jieba_lexicon() -> Lexicon:
    """The dictionary of the installed jieba. Raises ConfigError where there is none."""
    found = importlib.util.find_spec("jieba")
    if found is None or found.origin is None:
        raise ConfigError(
            "the package jieba, whose dictionary Chinese text needs, is not installed; pip install jieba"
        )
    return Lexicon(Path(found.origin).with_name("dict.txt"))


def jieba_version() -> str:
    """Version of the installed jieba."""
    return importlib.metadata.version("jieba")
