"""User dictionaries of entities and phrases, and the matchers that find their entries in text.

Which entry wins: the match that begins furthest left; of those that begin together the longest; a word that
is both entity and phrase is an entity. Matches never overlap. A match neither begins nor ends inside a token.
In Chinese it does not cut a word of jieba's own dictionary either (财政部 is not found in 财政|部门); it may
cut a word that jieba guessed, where the entry has three characters or more."""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import ItemsView, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from data_gen.reading.dictionary_lines import read_words
from data_gen.reading.streams import expand_paths
from data_gen.text.hash_table import (
    MAX_LENGTH,
    HashTable,
    SequenceTable,
    joined_hashes,
    leftmost,
    sequence_hashes,
    symbols_of,
)
from ernie2.characters import code_points, to_text
from ernie2.config import ConfigError

MIN_CHARS, MAX_CHARS = 2, MAX_LENGTH
"""Characters of the shortest and longest entry that is used."""

MAX_ENTRIES = (1 << 24) - 2

_LINES = 1 << 16
_CODES = 0x30000
_SPACE, _LETTER, _MARK = 0, 1, 2


class Entries(Mapping[str, bool]):
    """Dictionary entries: word -> True for an entity, False for a phrase; 60 MB for a million.

    Attributes:
        text: All words end to end, in the order in which they were first met. starts: int64 (n + 1), where
        each begins in `text`, and where the last ends. is_entity: bool (n). skipped: How many lines were not
        used, by reason: "header", "blank" (a tag without a word), "one_character", "too_long",
            "duplicate". A word that is there as an entity and as a phrase is an entity and a duplicate."""

    def __init__(
        self,
        pairs: Iterable[tuple[str, bool]] = (),
        skipped: Mapping[str, int] | None = None,
        files: Mapping[str, int] | None = None,
        where: str = "dictionaries",
    ) -> None:
        """Takes (word, whether it is an entity), words of 1 to MAX_CHARS characters; a word may come several
        times.

        Args:
            pairs: The words, file after file. skipped: Counts of lines that are not among them; looked at
            when `pairs` is at its end, as is `files`. files: File -> how many of the words it gave. where:
            What they are, for messages.

        Raises:
            ConfigError: 2^24 - 1 words or more; the message begins with `where`."""
        parts, sizes, entities, hashes = (
            [],
            [np.zeros(0, np.int64)],
            [np.zeros(0, bool)],
            [np.zeros(0, np.uint64)],
        )
        pairs = iter(pairs)
        while chunk := list(itertools.islice(pairs, _LINES)):
            words, flags = zip(*chunk)
            parts.append("".join(words))
            sizes.append(np.fromiter(map(len, words), np.int64, len(words)))
            entities.append(np.array(flags, bool))
            hashes.append(joined_hashes(symbols_of(parts[-1]), sizes[-1]))
        self.text, self.is_entity = "".join(parts), np.concatenate(entities)
        self.starts = np.append(0, np.cumsum(np.concatenate(sizes)))
        self.skipped = Counter(skipped or {})
        if len(self) > MAX_ENTRIES:
            raise ConfigError(
                f"{where}: {len(self):,} entries; at most {MAX_ENTRIES:,} can be used, so leave some out"
            )
        given = np.concatenate(hashes)
        self.rows = HashTable(self._without_duplicates(given))
        self._files, self._rows_given = dict(files or {}), self.rows.find(given) if files else None

    def _without_duplicates(self, hashes: np.ndarray) -> np.ndarray:
        """The hashes with each word once, at its first place; it is an entity if it is one anywhere."""
        ordered = np.sort(hashes)
        if (ordered[1:] != ordered[:-1]).all():
            return hashes
        _, first, group = np.unique(hashes, return_index=True, return_inverse=True)
        entity = np.zeros(len(first), bool)
        entity[group[self.is_entity]] = True
        self.skipped["duplicate"] += len(hashes) - len(first)
        keep, sizes = np.zeros(len(hashes), bool), np.diff(self.starts)
        keep[first] = True
        self.text = to_text(code_points(self.text)[np.repeat(keep, sizes)])
        self.starts, self.is_entity = np.append(0, np.cumsum(sizes[keep])), entity[group[keep]]
        return hashes[keep]

    @classmethod
    def of(cls, entries: Mapping[str, bool]) -> Entries:
        """The same entries in this form."""
        return entries if isinstance(entries, cls) else cls(entries.items())

    def found_by_file(self, rows: Iterable[int]) -> Iterator[tuple[str, int, int]]:
        """(file, its entries, how many of them are among `rows`); an entry of several files counts in
        each."""
        found, first = np.zeros(len(self), bool), 0
        found[list(rows)] = True
        for file, count in self._files.items():
            mine = np.unique(self._rows_given[first : first + count])
            yield file, len(mine), int(found[mine].sum())
            first += count

    def word(self, row: int) -> str:
        """The row-th entry."""
        return self.text[self.starts[row] : self.starts[row + 1]]

    def __getitem__(self, word: str) -> bool:
        if isinstance(word, str) and 0 < len(word) <= MAX_CHARS:
            row = int(
                self.rows.find(sequence_hashes(symbols_of(word), np.array([0]), np.array([len(word)])))[0]
            )
            if row >= 0 and self.word(row) == word:
                return bool(self.is_entity[row])
        raise KeyError(word)

    def items(self) -> ItemsView[str, bool]:
        """As of any mapping; much faster than looking up one word after the other."""
        return _Items(self)

    def __iter__(self) -> Iterator[str]:
        return (self.text[a:b] for a, b in itertools.pairwise(self.starts.tolist()))

    def __len__(self) -> int:
        return len(self.is_entity)


class _Items(ItemsView[str, bool]):
    def __iter__(self) -> Iterator[tuple[str, bool]]:
        return zip(self._mapping, self._mapping.is_entity.tolist())


def load_entries(paths: Iterable[str | Path], encoding: str = "utf-8") -> Entries:
    """Reads dictionaries, see `data_gen.reading.dictionary_lines.read_words`.

    Entries without a tag that says it are phrases in a file whose name begins with `phrase`, and entities in
    any other (person_x.txt, place.txt). They may hold spaces; those of a single character and those of more
    than MAX_CHARS are left out.

    Raises:
        ConfigError: a file is missing or cannot be used, or too many entries."""
    skipped: Counter[str] = Counter()
    files: dict[str, int] = {}
    found = expand_paths(paths, "dictionary") if paths else []
    return Entries(
        (pair for path in found for pair in _usable(path, encoding, skipped, files)),
        skipped,
        files,
        "data.entity_dicts",
    )


def _usable(
    path: Path, encoding: str, skipped: Counter[str], files: dict[str, int]
) -> Iterator[tuple[str, bool]]:
    """Entries of a file that can be used; puts their number under `files`."""
    files[str(path)] = 0
    for word, is_entity in read_words(path, encoding, skipped):
        if MIN_CHARS <= len(word) <= MAX_CHARS:
            files[str(path)] += 1
            yield word, is_entity
        else:
            skipped["too_long" if word[MAX_CHARS:] else "one_character" if word else "blank"] += 1


class Matches:
    """Matches in a text, left to right, M of them.

    Attributes:
        first, last: int (M) each: [first, last) in characters (Chinese) or words (English).
        is_entity: bool (M).
        rows: int32 (M), which entries they are."""

    __slots__ = ("first", "last", "is_entity", "rows")

    def __init__(self, first: np.ndarray, lengths: np.ndarray, rows: np.ndarray, entries: Entries) -> None:
        """Takes the longest match at each place where there is one, and keeps those that the matches left of
        them leave."""
        kept = leftmost(first, first + lengths)
        self.first, self.rows = first[kept], rows[kept]
        self.last = self.first + lengths[kept]
        self.is_entity = entries.is_entity[self.rows]

    def keep(self, kept: np.ndarray) -> None:
        """Leaves only the matches that bool (M) names."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name)[kept])


class ChineseMatcher:
    """Finds entries character by character."""

    def __init__(self, entries: Entries) -> None:
        """Takes a second and 60 MB for a million entries."""
        self._entries = entries
        self._table = SequenceTable(
            symbols_of(entries.text), entries.starts[:-1], np.diff(entries.starts), entries.rows
        )

    def find(self, symbols: np.ndarray, edges: np.ndarray) -> Matches:
        """Matches in characters.

        Args:
            symbols: uint64 (N), the text, see `data_gen.text.hash_table.symbols_of`. edges: uint8 (N + 1),
            places between characters: 0 where no match may begin or end, 2 where a word does, 1 at
                any other place where one may."""

        def fits(at: np.ndarray, lengths: np.ndarray) -> np.ndarray:
            last = edges.take(at + lengths)
            return (last > 0) & (lengths > 2) | (edges.take(at) + last == 4) & (lengths == 2)

        return Matches(*self._table.longest(symbols, edges[:-1] > 0, fits), self._entries)


class EnglishMatcher:
    """Finds entries word by word, whatever white space parts them; entities as written, phrases in any
    case."""

    def __init__(self, entries: Entries) -> None:
        """Entries with Chinese characters, which never are one word with others, are passed over."""
        self._entries = entries
        codes = codes_of(entries.text)
        kinds = word_kinds()[codes]
        begins = (kinds == _MARK) | (kinds == _LETTER)
        begins[1:] &= (kinds[1:] == _MARK) | (kinds[:-1] != _LETTER)
        begins[entries.starts[:-1]] = kinds[entries.starts[:-1]] != _SPACE
        # A word ends before the next character that is no letter, or where the next begins.
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
            symbols = word_symbols(codes if is_entity else lower_codes()[codes], first, sizes)
            self._tables.append((SequenceTable(symbols, words[rows], np.diff(words)[rows]), rows))

    def find(self, codes: np.ndarray, first: np.ndarray, sizes: np.ndarray, lines: np.ndarray) -> Matches:
        """Matches in words.

        Args:
            codes: The text, see `codes_of`.
            first: int (W), first character of each of its words.
            sizes: int (W), characters of each.
            lines: int (W), line of each."""

        def fits(at: np.ndarray, lengths: np.ndarray) -> np.ndarray:
            return lines[at] == lines[at + lengths - 1]

        lengths, found = np.zeros((2, len(first)), np.int32)
        for is_entity, (table, rows) in enumerate(self._tables):
            symbols = word_symbols(codes if is_entity else lower_codes()[codes], first, sizes)
            at, sizes_found, found_rows = table.longest(symbols, np.ones(len(first), bool), fits)
            # Entities come second: of two of the same length the entity stays.
            better = sizes_found >= lengths[at]
            at = at[better]
            lengths[at], found[at] = sizes_found[better], rows[found_rows[better]]
        at = np.flatnonzero(lengths)
        return Matches(at, lengths[at], found[at], self._entries)


def codes_of(text: str) -> np.ndarray:
    """Characters of a text as numbers below _CODES: int32 (len(text)). Rare ones beyond share the last."""
    return np.minimum(code_points(text).view(np.int32), _CODES - 1)


def word_symbols(codes: np.ndarray, first: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """uint64 (W): one symbol for each different word; arguments as for `EnglishMatcher.find`."""
    return sequence_hashes(codes.astype(np.uint64) + np.uint64(1), first, sizes) | np.uint64(1)


@functools.cache
def word_kinds() -> np.ndarray:
    """uint8 (_CODES): white space; letters and digits, which make words; other marks, which are words of
    their own."""
    characters = map(chr, range(_CODES))
    return np.array(
        [_LETTER if c.isalnum() else _SPACE if c.isspace() else _MARK for c in characters], np.uint8
    )


@functools.cache
def lower_codes() -> np.ndarray:
    """int32 (_CODES): the lower case of each character, where it is a single one."""
    return np.array(
        [ord(c.lower()) if len(c.lower()) == 1 else ord(c) for c in map(chr, range(_CODES))], np.int32
    )
