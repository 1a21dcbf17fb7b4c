"""What every generator starts from: sentences with tokens, words, phrases, entities and casing, annotated once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(slots=True)
class Sentence:
    """One annotated sentence. T is the number of tokens; all arrays have shape (T,).

    The three id arrays number the units of a level from 0, left to right, without gaps, and every token has one:
    `phrase_ids` is the phrase where there is one and the word elsewhere, `entity_ids` likewise.

    Attributes:
        text: The sentence as written, before any lower-casing.
        token_ids: int32, rows of the vocabulary; no special tokens.
        starts: int32, where each token begins in `text`, in characters.
        word_ids: int16, word of each token.
        phrase_ids: int16, phrase (or word) of each token.
        entity_ids: int16, entity (or word) of each token.
        capital: int8; 1 = the surface word of this piece begins with an upper-case letter, 0 = a word of letters that
            does not, -100 = no cased letters. Computed before lower-casing.
    """

    text: str
    token_ids: np.ndarray
    starts: np.ndarray
    word_ids: np.ndarray
    phrase_ids: np.ndarray
    entity_ids: np.ndarray
    capital: np.ndarray

    def __len__(self) -> int:
        """Number of tokens."""
        return len(self.token_ids)

    def cut(self, start: int, stop: int) -> Sentence:
        """The tokens [start:stop), as a sentence of its own; ids and offsets count from 0 again.

        No unit of any level is split: a range that ends inside one shrinks to the unit's edge, so the result may hold
        FEWER tokens than asked for (never more). Only where nothing would be left, the range is taken as it is.
        """
        start, stop = max(start, 0), min(stop, len(self))
        lo, hi = start, stop
        levels = (self.word_ids, self.phrase_ids, self.entity_ids)
        while lo < hi and any(0 < lo and ids[lo - 1] == ids[lo] for ids in levels):
            lo += 1
        while hi > lo and any(hi < len(ids) and ids[hi - 1] == ids[hi] for ids in levels):
            hi -= 1
        if lo >= hi:
            lo, hi = start, max(start, stop)
        first = int(self.starts[lo]) if lo > 0 and lo < len(self) else 0
        last = int(self.starts[hi]) if hi < len(self) else len(self.text)
        words, phrases, entities = (ids[lo:hi] - ids[lo] if hi > lo else ids[lo:hi] for ids in levels)
        return Sentence(self.text[first:last], self.token_ids[lo:hi], self.starts[lo:hi] - np.int32(first), words, phrases,
                        entities, self.capital[lo:hi])


@dataclass(slots=True)
class Document:
    """An annotated document.

    Attributes:
        source: Where it comes from, `file:line` of its first line.
        sentences: In reading order; none is empty.
        paragraph_starts: Index in `sentences` of the first sentence of each paragraph, rising, the first is 0.
        dev: Whether it belongs to the dev split: a hash of its content decides, the same in every task.
    """

    source: str
    sentences: list[Sentence]
    paragraph_starts: list[int]
    dev: bool


@dataclass(slots=True)
class Pair:
    """A query and a title shown for it.

    Attributes:
        source: `file:line` of the row.
        query: Annotated query.
        title: Annotated title.
        label: 0 strong, 1 weak (paper section 3.2.3, IR relevance; class 2 is sampled by the generator).
        dev: Whether it belongs to the dev split: a hash of the query decides, so a query is never in both.
    """

    source: str
    query: Sentence
    title: Sentence
    label: int
    dev: bool
