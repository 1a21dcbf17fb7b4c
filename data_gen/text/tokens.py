"""The table of tokens of a block, and the documents, sentences and pairs that are views of it.

The table is flat: one row a token, all sentences end to end, so that array work is done once for a block and
not once for a sentence."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from operator import ne, or_

import numpy as np

from ernie2.characters import code_points

WORD, PHRASE, ENTITY = 1, 2, 4
"""Bits of `Tokens.begins`, in the order of ernie2.shards.LEVELS."""
ALL_LEVELS = WORD | PHRASE | ENTITY

CODES = 0x30000
"""Characters of tables by character; all rarer ones share the last."""


@dataclass(slots=True)
class Tokens:
    """The tokens of a block, end to end. T is their number; all arrays have shape (T,).

    Attributes:
        text: The text of the block as written, before any lower-casing.
        ids: int32, rows of the vocabulary; no special tokens.
        starts: int32, where each token begins in `text`, in characters.
        ends: int32, where it ends.
        begins: uint8, what begins at the token: bits WORD, PHRASE, ENTITY. A unit of a level reaches to the
            next token with that level's bit; where there is no phrase (entity) the word is the unit.
        inside: bool, pieces that continue a surface word."""

    text: str
    ids: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    begins: np.ndarray
    inside: np.ndarray
    codes: np.ndarray | None = field(default=None, init=False, repr=False)
    """uint32, ids and begins as `data_gen.packing` needs them; it fills this in."""

    def __len__(self) -> int:
        """Number of tokens."""
        return len(self.ids)

    @classmethod
    def joined(cls, parts: Sequence["Tokens"]) -> "Tokens":
        """Tables end to end, a line feed between their texts."""
        shifts = np.cumsum([0] + [len(part.text) + 1 for part in parts[:-1]]).astype(np.int32)
        ids, begins, inside = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("ids", "begins", "inside")
        )
        starts, ends = (
            np.concatenate([getattr(part, name) + shift for part, shift in zip(parts, shifts, strict=True)])
            for name in ("starts", "ends")
        )
        return cls("\n".join(part.text for part in parts), ids, starts, ends, begins, inside)


@dataclass(slots=True)
class Sentence:
    """A sentence: rows [first:last) of a table, characters [begin:end) of its text."""

    tokens: Tokens
    first: int
    last: int
    begin: int
    end: int

    def __len__(self) -> int:
        """Number of tokens."""
        return self.last - self.first

    @property
    def text(self) -> str:
        """The sentence as written."""
        return self.tokens.text[self.begin : self.end]

    @property
    def token_ids(self) -> np.ndarray:
        """int32 (T)."""
        return self.tokens.ids[self.first : self.last]

    @property
    def starts(self) -> np.ndarray:
        """int32 (T): where each token begins in `text`."""
        return self.tokens.starts[self.first : self.last] - np.int32(self.begin)

    @property
    def begins(self) -> np.ndarray:
        """uint8 (T): what begins at each token, see `Tokens`."""
        return self.tokens.begins[self.first : self.last]

    def cut(self, start: int, stop: int) -> "Sentence":
        """The tokens [start:stop), as a sentence of its own.

        A range that begins or ends inside a unit shrinks to the unit's edge; only if nothing would be left it
        is taken as it is."""
        start = max(start, 0)
        stop = max(start, min(stop, len(self)))
        begins = self.tokens.begins
        lo, hi = self.first + start, self.first + stop
        while lo < hi and lo > self.first and begins[lo] != ALL_LEVELS:
            lo += 1
        while hi > lo and hi < self.last and begins[hi] != ALL_LEVELS:
            hi -= 1
        if lo >= hi:
            lo, hi = self.first + start, self.first + stop
        begin = int(self.tokens.starts[lo]) if self.first < lo < self.last else self.begin
        end = int(self.tokens.starts[hi]) if hi < self.last else self.end
        return Sentence(self.tokens, lo, hi, begin, end)


@dataclass(slots=True, eq=False)
class Sentences(Sequence[Sentence]):
    """Consecutive sentences of a table; `rows`: int64 (S, 4), the fields of each `Sentence`."""

    tokens: Tokens
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, which: int | slice) -> "Sentence | Sentences":
        if isinstance(which, slice):
            return Sentences(self.tokens, self.rows[which])
        return Sentence(self.tokens, *self.rows[which].tolist())

    def __iter__(self) -> Iterator[Sentence]:
        return (Sentence(self.tokens, *row) for row in self.rows.tolist())


@dataclass(slots=True)
class Document:
    """An annotated document, whose first line is `source` (`file:line`).

    No sentence is empty; `dev`: of the dev split; `language`: "zh" or "en", by its text."""

    source: str
    sentences: Sentences
    dev: bool
    language: str

    @property
    def paragraph_starts(self) -> list[int]:
        """Number of the first sentence of each paragraph."""
        text, rows = self.sentences.tokens.text, self.sentences.rows[:, 2:].tolist()
        return [0][: len(rows)] + [
            i for i, ((_, end), (begin, _)) in enumerate(pairwise(rows), 1) if "\n" in text[end:begin]
        ]


@dataclass(slots=True)
class Pair:
    """A query and a title with their class as label, or the two sentences of a marked pair with the
    marker."""

    source: str
    query: Sentence
    title: Sentence
    label: int | str
    dev: bool


def codes_of(text: str) -> np.ndarray:
    """int32 (len(text)): characters as rows of tables of CODES rows."""
    return np.minimum(code_points(text).view(np.int32), CODES - 1)


@functools.cache
def case_tables() -> tuple[np.ndarray, np.ndarray]:
    """bool (CODES) each: characters that have case, and those that are upper (or title) case."""
    characters = [*map(chr, range(CODES))]
    cased = np.array([*map(ne, map(str.lower, characters), map(str.upper, characters))])
    return cased, np.array([*map(or_, map(str.isupper, characters), map(str.istitle, characters))])
