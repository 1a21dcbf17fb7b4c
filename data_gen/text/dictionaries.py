"""Dictionaries: jieba's, which says what kind of word a word is, and the user's, of entities and phrases,
with the search for their entries in text.

Of the user's entries that match, the one that begins furthest left is taken; of those that begin together the
longest; a word that is both entity and phrase is an entity. Matches never overlap, and never begin or end
inside a token."""

import functools
import importlib.util
import io
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_gen.reading.dictionary_lines import read_words
from data_gen.reading.streams import expand_paths
from data_gen.text.hash_table import (
    MAX_LENGTH,
    HashTable,
    SequenceTable,
    leftmost,
    sequence_hashes,
    symbols_of,
)
from data_gen.text.tokens import CODES, codes_of
from ernie2.characters import code_points, to_text
from ernie2.strict import ConfigError

UNKNOWN, OTHER, MODIFIER, NOUN = -1, 0, 1, 2
"""Kinds of words: not in jieba's dictionary, in it, may stand before a noun in a noun phrase, noun."""
KIND_OF_TAG = {"n": NOUN} | dict.fromkeys(("a", "b", "vn", "an"), MODIFIER)
"""jieba's tags of nouns; and of adjectives, nominal verbs and the like."""
NO_PHRASE_WORDS = frozenset("时 内 年 问 方面 有所 依法 时候 期间 以内 以外 之内 之外".split())
"""Nouns by jieba's dictionary that belong to no noun phrase: 调查时, 依法逮捕."""
_SAMPLED = 5_000  # of so many words one is in `Lexicon.sample`

MIN_CHARS, MAX_CHARS = 2, MAX_LENGTH
"""Characters of the shortest and longest user's entry that is used."""
MAX_ENTRIES = (1 << 24) - 2
_SPACE, _LETTER, _MARK = 0, 1, 2


class Lexicon:
    """A dictionary file in jieba's format, `word frequency tag` a line, UTF-8.

    Attributes:
        total: Sum of all frequencies.
        sample: Every five-thousandth word with its frequency.
        ascii_words: The words of two or more characters that are all ASCII (AT&T, C++)."""

    def __init__(self, path: Path) -> None:
        """Reads the file. Raises ConfigError if it cannot be read or is no such dictionary."""
        try:
            text = path.read_text("utf-8")
            fields = text.split()
            words, tags = fields[0::3], fields[2::3]
            frequencies = np.fromiter(map(int, fields[1::3]), np.int64, len(tags))
            assert 0 < 3 * text.count("\n") == len(fields), "not `word frequency tag` a line"
        except (OSError, ValueError, AssertionError) as error:
            raise ConfigError(f"{path}: not jieba's dictionary ({error}); install jieba again") from None
        self.total = int(frequencies.sum())
        self.sample = list(zip(words[::_SAMPLED], frequencies[::_SAMPLED].tolist()))
        self.ascii_words = frozenset(word for word in words if len(word) > 1 and word.isascii())
        kinds = [
            OTHER if word in NO_PHRASE_WORDS else KIND_OF_TAG.get(tag, OTHER)
            for word, tag in zip(words, tags)
        ]
        sizes = np.fromiter(map(len, words), np.int64, len(words))
        hashes = sequence_hashes(symbols_of("".join(words)), np.cumsum(sizes) - sizes, sizes)
        # The table finds its first hashes fastest.
        order = np.argsort(-frequencies, kind="stable")
        self._table = HashTable(hashes[order])
        self._kinds = np.append(np.array(kinds, np.int8)[order], np.int8(UNKNOWN))  # row -1: not found

    def kinds(self, symbols: np.ndarray, first: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """int8 (n): UNKNOWN, OTHER, MODIFIER or NOUN; arguments as in `hash_table.sequence_hashes`."""
        return self._kinds[self._table.find(sequence_hashes(symbols, first, sizes))]


@functools.cache
def jieba_lexicon() -> Lexicon:
    """The dictionary of the installed jieba, read without jieba itself (a second, 90 MB). Raises ConfigError
    if jieba is not installed."""
    found = importlib.util.find_spec("jieba")
    if found is None or found.origin is None:
        raise ConfigError(
            "the package jieba, whose dictionary Chinese text needs, is not installed; pip install jieba"
        )
    return Lexicon(Path(found.origin).with_name("dict.txt"))


class Entries:
    """Entries of the user's dictionaries, each once, in the order in which they were first met; 60 MB for a
    million.

    Attributes:
        text: All entries end to end.
        starts: int64 (n + 1), where each begins in `text`, and where the last ends.
        is_entity: bool (n), True for an entity, False for a phrase.
        table: Hash of an entry -> its row.
        skipped: Lines not used, by reason: "blank" (a tag without a word), "one_character", "too_long",
            "duplicate"."""

    def __init__(
        self,
        words: Iterable[tuple[str, bool]],
        skipped: Mapping[str, int] | None = None,
        counts: Mapping[str, int] | None = None,
    ) -> None:
        """Takes words of 1 to MAX_CHARS characters with True for entities; one that comes several times is an
        entity if it is one anywhere.

        Args:
            words: File after file.
            skipped: Lines that are not among them; complete when `words` is at its end, as is `counts`.
            counts: File -> number of its words."""
        text, sizes, entities = io.StringIO(), array("q"), array("b")
        for word, is_entity in words:
            text.write(word)
            sizes.append(len(word))
            entities.append(is_entity)
        if len(sizes) > MAX_ENTRIES:
            raise ConfigError(
                f"data.entity_dicts: {len(sizes):,} entries, expected at most {MAX_ENTRIES:,}; leave some out"
            )
        lengths, codes = np.array(sizes, np.int64), code_points(text.getvalue())
        hashes = sequence_hashes(symbols_of(text.getvalue()), np.cumsum(lengths) - lengths, lengths)
        _, first, group = np.unique(hashes, return_index=True, return_inverse=True)
        is_entity = np.zeros(len(first), bool)
        is_entity[group[np.array(entities, bool)]] = True
        kept = np.zeros(len(hashes), bool)
        kept[first] = True
        self.text = to_text(codes[np.repeat(kept, lengths)])
        self.starts, self.is_entity = np.append(0, np.cumsum(lengths[kept])), is_entity[group[kept]]
        self.table = HashTable(hashes[kept])
        self.skipped = Counter(skipped or {}) + Counter(duplicate=len(hashes) - len(first))
        self._counts, self._rows = dict(counts or {}), self.table.find(hashes) if counts else None

    def __len__(self) -> int:
        return len(self.is_entity)

    def word(self, row: int) -> str:
        """The row-th entry."""
        return self.text[self.starts[row] : self.starts[row + 1]]

    def found_by_file(self, rows: Iterable[int]) -> Iterator[tuple[str, int, int]]:
        """(file, its entries, how many of them are among `rows`); an entry of several files counts in
        each."""
        found, first = np.zeros(len(self), bool), 0
        found[list(rows)] = True
        for file, count in self._counts.items():
            mine = np.unique(self._rows[first : first + count])
            yield file, len(mine), int(found[mine].sum())
            first += count


def load_entries(paths: Iterable[str | Path], encoding: str = "utf-8") -> Entries:
    """Reads dictionaries, see `data_gen.reading.dictionary_lines.read_words`; entries shorter than MIN_CHARS
    or longer than MAX_CHARS are left out.

    Raises:
        ConfigError: a file is missing or cannot be used, or too many entries."""
    skipped: Counter[str] = Counter()
    counts: dict[str, int] = {}

    def words() -> Iterator[tuple[str, bool]]:
        for path in expand_paths(paths, "dictionary") if paths else ():
            counts[str(path)] = 0
            for word, is_entity in read_words(path, encoding, skipped):
                if MIN_CHARS <= len(word) <= MAX_CHARS:
                    counts[str(path)] += 1
                    yield word, is_entity
                else:
                    skipped["too_long" if word[MAX_CHARS:] else "one_character" if word else "blank"] += 1

    return Entries(words(), skipped, counts)


class Matches(NamedTuple):
    """M matches in a text, left to right.

    Attributes:
        first, last: int (M) each: [first, last) in characters (Chinese) or words (English).
        rows: int32 (M), which entries they are.
        is_entity: bool (M)."""

    first: np.ndarray
    last: np.ndarray
    rows: np.ndarray
    is_entity: np.ndarray

    @classmethod
    def of(cls, entries: Entries, first: np.ndarray, lengths: np.ndarray, rows: np.ndarray) -> "Matches":
        """Of the longest match at each place those that do not overlap one further left."""
        kept = leftmost(first, first + lengths)
        first, lengths, rows = first[kept], lengths[kept], rows[kept]
        return cls(first, first + lengths, rows, entries.is_entity[rows])


class EnglishMatcher:
    """Finds entries word by word, whatever white space is between them; entities as written, phrases in any
    case."""

    def __init__(self, entries: Entries) -> None:
        """Entries with Chinese characters, which never are one word with others, are passed over."""
        self._entries = entries
        codes = codes_of(entries.text)
        kinds = _word_kinds()[codes]
        begins = (kinds == _MARK) | (kinds == _LETTER)
        begins[1:] &= (kinds[1:] == _MARK) | (kinds[:-1] != _LETTER)
        begins[entries.starts[:-1]] = kinds[entries.starts[:-1]] != _SPACE
        # A word ends before the next white space, or where the next begins.
        first = np.flatnonzero(begins)
        breaks = np.append(np.flatnonzero(begins | (kinds == _SPACE)), len(codes))
        sizes = breaks[np.searchsorted(breaks, first, "right")] - first
        words = np.searchsorted(first, entries.starts)
        usable = np.diff(words) > 0
        chinese = (
            (codes >= 0x3400) & (codes < 0xA000) | (codes >= 0xF900) & (codes < 0xFB00) | (codes >= 0x20000)
        )
        usable[np.searchsorted(entries.starts, np.flatnonzero(chinese), "right") - 1] = False
        self._tables = []
        for is_entity in (False, True):
            rows = np.flatnonzero(usable & (entries.is_entity == is_entity))
            symbols = _word_symbols(codes, first, sizes, is_entity)
            self._tables.append((SequenceTable(symbols, words[rows], np.diff(words)[rows]), rows))

    def find(self, codes: np.ndarray, first: np.ndarray, sizes: np.ndarray, lines: np.ndarray) -> Matches:
        """Matches in words; `codes` are those of the text, `first`, `sizes` and `lines` the first character,
        the characters and the line of each word, int (W)."""

        def fits(at: np.ndarray, lengths: np.ndarray) -> np.ndarray:
            return lines[at] == lines[at + lengths - 1]

        lengths, found = np.zeros((2, len(first)), np.int32)
        for is_entity, (table, rows) in enumerate(self._tables):
            symbols = _word_symbols(codes, first, sizes, is_entity)
            at, sizes_found, found_rows = table.longest(symbols, np.ones(len(first), bool), fits)
            # Entities come second: of two of the same length the entity stays.
            better = sizes_found >= lengths[at]
            at = at[better]
            lengths[at], found[at] = sizes_found[better], rows[found_rows[better]]
        at = np.flatnonzero(lengths)
        return Matches.of(self._entries, at, lengths[at], found[at])


def _word_symbols(codes: np.ndarray, first: np.ndarray, sizes: np.ndarray, exact: bool) -> np.ndarray:
    """uint64 (W): one symbol for each different word, in lower case unless `exact`."""
    codes = codes if exact else _lower_codes()[codes]
    return sequence_hashes(codes.astype(np.uint64) + np.uint64(1), first, sizes) | np.uint64(1)


@functools.cache
def _word_kinds() -> np.ndarray:
    """uint8 (CODES): white space; letters and digits, which make words; marks, which are words of their
    own."""
    characters = map(chr, range(CODES))
    return np.array(
        [_LETTER if c.isalnum() else _SPACE if c.isspace() else _MARK for c in characters], np.uint8
    )


@functools.cache
def _lower_codes() -> np.ndarray:
    """int32 (CODES): the lower case of each character, if it is a single one."""
    lower = [c.lower() for c in map(chr, range(CODES))]
    return np.array([ord(low) if len(low) == 1 else code for code, low in enumerate(lower)], np.int32)
