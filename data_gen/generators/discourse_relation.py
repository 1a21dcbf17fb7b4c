"""Discourse relation (paper section 3.2.3): which connective stood between two sentences?

Mined as Discovery is (Sileo et al. 2019, arXiv 1903.11850): the second of two adjacent sentences opens with a
listed connective, which is removed, with the comma after it, and becomes the label. Class 0, `[no-conn]`:
pairs whose second sentence opens with none. The classes are those of `data_gen.generators.connectives` for
data.language; one head serves both lists, so num_classes is that of the longer one. `balance` and
`max_per_class` in the YAML even the classes out when the blocks are merged. Pairs that are already marked
(data.marked_pairs) are taken as they are, through the same filters.

The filters of both sentences are those of github.com/sileod/Discovery, demo.ipynb: 2 to 31 words, more than
half of the characters letters, round brackets balanced and an even number of double quotes, more lower-case
than upper-case letters. Not taken over: its language identifier (a page in another language is left out by
the annotation) and the random thinning of "and", "but" and pairs without a connective (`balance`,
`no_conn_share`). `max_words` is higher, because Chinese sentences are longer: 31 would cost 39% of the pairs,
64 cost 4%."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Annotated

import numpy as np

from data_gen.generators import Labels, connectives
from data_gen.packing import Packed, Packer
from data_gen.text.tokens import ALL_LEVELS, WORD, Document, Pair, Tokens
from ernie2.characters import code_points
from ernie2.schema import between

_STAYS = "connective that stays in its sentence"
_MARKS = re.compile(r"^\W+")
# White space, digits, punctuation and symbols, by their blocks.
_NO_LETTERS = (
    *((0x0, 0x40), (0x5B, 0x60), (0x7B, 0xA9), (0x2000, 0x2BFF)),
    *((0x3000, 0x303F), (0xFE30, 0xFE6F), (0xFF00, 0xFF20)),
)
_BRACKETS = ("()", "（）", "“”", "「」", "《》")


def labels(*, language: str) -> Labels:
    """Classes of the sentence head, whose size serves every language."""
    names = connectives.class_names(language)
    unused = range(len(names), connectives.num_classes())
    return Labels([*names, *(f"class {label} (not used in this language)" for label in unused)])


def generate(
    source: Sequence[Document] | Sequence[Pair],
    rng: np.random.Generator,
    *,
    packer: Packer,
    language: str,
    min_tokens: Annotated[int, between(1)] = 4,
    no_conn_share: Annotated[float, between(0, 10)] = 0.1,
    max_words: Annotated[int, between(1)] = 64,
    min_letters: Annotated[float, between(0, 1)] = 0.5,
    balanced: bool = True,
) -> Iterator[Packed]:
    """Yields every pair with a connective, and `no_conn_share` as many without; of marked pairs those that
    are there. Sentences are adjacent over paragraph ends too: a corpus may have one sentence a line.

    Args:
        min_tokens: Fewest tokens of each sentence, the connective not counted.
        no_conn_share: Pairs of class 0 for each pair of another class in the block.
        max_words: Most words of each sentence, punctuation marks counted (Discovery: 31).
        min_letters: Each sentence has more than this share of letters among its characters.
        balanced: Leave out sentences with a bracket or quotation mark that has no partner."""
    if not source:
        return
    marked = isinstance(source[0], Pair)
    tokens = source[0].query.tokens if marked else source[0].sentences.tokens
    pairs = _Pairs(tokens, language, packer, min_tokens, max_words, min_letters, balanced)
    if marked:
        yield from pairs.marked(source)
        return
    usable = []
    for document in source:
        if document.language != language:
            packer.reject(document.source, "page in another language than data.language")
        elif len(document.sentences) < 2:
            packer.reject(document.source, "document of one sentence", document.sentences[0].text)
        else:
            usable.append(document)
    if usable:
        yield from pairs.mined(usable, rng, no_conn_share)


@dataclass
class _Pairs:
    """Makes the pairs of a block. Sentences are int64 (n, 4), see `data_gen.text.tokens.Sentences.rows`."""

    tokens: Tokens
    language: str
    packer: Packer
    min_tokens: int
    max_words: int
    min_letters: float
    balanced: bool

    def __post_init__(self) -> None:
        self._seen: set[tuple[str, str]] = set()
        self._codes = code_points(self.tokens.text)
        self._words = _counts(self.tokens.begins & WORD)
        self._others = _counts(_characters(*_NO_LETTERS).take(self._codes, mode="clip"))
        paired = _characters(*((ord(one), ord(one)) for one in '"' + "".join(_BRACKETS)))
        self._paired = _counts(paired.take(self._codes, mode="clip"))

    def mined(
        self, documents: Sequence[Document], rng: np.random.Generator, share: float
    ) -> Iterator[Packed]:
        """Adjacent sentences of documents; `share`: see `no_conn_share`."""
        rows = np.concatenate([document.sentences.rows for document in documents])
        sizes = np.array([len(document.sentences) for document in documents])
        first = np.cumsum(sizes) - sizes  # number of each document's first sentence
        second = np.delete(np.arange(len(rows)), first)
        opened, rest, labels = self._openings(rows, second)
        faults = self._faults(rows[opened - 1], rest, labels)
        number = np.searchsorted(first, opened, "right") - 1
        self._reject(faults, [documents[i].source for i in number.tolist()], rest)
        mined = np.flatnonzero([fault is None for fault in faults])
        plain = self._without_connective(rows, second, rng, round(share * len(mined)))
        yield from self._packed(
            rows[np.append(opened[mined], plain) - 1],
            np.concatenate([rest[mined], rows[plain]]),
            np.append(labels[mined], np.zeros_like(plain)),
        )

    def _openings(self, rows: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Sentences that open with a connective: int64 (n) their numbers, (n, 4) what they are without it,
        (n) its class."""
        likely = second[connectives.may_open(self._codes, rows[second, 2], self.language)]
        text, found = self.tokens.text, []
        for i, (begin, end) in zip(likely.tolist(), rows[likely, 2:].tolist(), strict=True):
            connective = connectives.opening_connective(text[begin:end], self.language)
            if connective is not None and connective[0]:
                found.append((i, *connective))
        opened, labels, ends = np.array(found, np.int64).reshape(-1, 3).T
        rest, whole = without_openings(self.tokens, rows[opened], ends)
        return opened[whole], rest[whole], labels[whole]

    def _without_connective(
        self, rows: np.ndarray, second: np.ndarray, rng: np.random.Generator, wanted: int
    ) -> np.ndarray:
        """Up to `wanted` of the numbers `second`, drawn at random, of sentences that open with no connective;
        int64."""
        drawn: list[int] = []
        order = rng.permutation(second) if wanted else second[:0]
        while wanted > len(drawn) and len(order):
            some, order = np.split(order, [2 * (wanted - len(drawn)) + 8])
            texts = (self.tokens.text[begin:end] for begin, end in rows[some, 2:].tolist())
            some = some[[connectives.opening_connective(text, self.language) is None for text in texts]]
            faults = self._faults(rows[some - 1], rows[some], np.zeros_like(some))
            drawn += [i for i, fault in zip(some.tolist(), faults, strict=True) if fault is None]
        return np.array(drawn[:wanted], np.int64)

    def marked(self, source: Sequence[Pair]) -> Iterator[Packed]:
        """Marked pairs. From a second sentence that still opens with its connective, which would give the
        label away, it is removed; where it cannot be, the pair is left out."""
        known, rows, classes, opened = [], [], [], []
        for pair in source:
            label = connectives.class_of(pair.label, self.language)
            found, end = connectives.opening_connective(pair.title.text, self.language) or (0, 0)
            if label is None:
                reason = "marker that is no connective of data.language"
                self.packer.reject(pair.source, reason, pair.label)
            elif found > 0 == label:
                reason = "marked as having no connective, and opens with one"
                self.packer.reject(pair.source, reason, pair.title.text)
            else:
                known.append(pair)
                rows.append([(one.first, one.last, one.begin, one.end) for one in (pair.query, pair.title)])
                classes.append(label)
                opened.append(end if found == label > 0 else 0)
        first, second = np.array(rows, np.int64).reshape(-1, 2, 4).swapaxes(0, 1)
        labels, ends = np.array(classes, np.int64), np.array(opened, np.int64)
        rest, whole = without_openings(self.tokens, second, ends)
        second = np.where((whole & (ends > 0))[:, None], rest, second)
        faults: list[str | None] = [_STAYS] * len(known)
        free = np.flatnonzero((ends == 0) | whole)
        for i, fault in zip(
            free.tolist(), self._faults(first[free], second[free], labels[free]), strict=True
        ):
            faults[i] = fault
        self._reject(faults, [pair.source for pair in known], second)
        kept = np.flatnonzero([fault is None for fault in faults])
        yield from self._packed(first[kept], second[kept], labels[kept])

    def _packed(self, first: np.ndarray, second: np.ndarray, labels: np.ndarray) -> Iterator[Packed]:
        if len(first):
            stretches = np.stack([first[:, :2], second[:, :2]], axis=1)
            yield self.packer.pack_many(self.tokens, stretches, labels, keep_joint=True)

    def _reject(self, faults: Sequence[str | None], sources: Sequence[str], second: np.ndarray) -> None:
        for fault, source, (begin, end) in zip(faults, sources, second[:, 2:].tolist(), strict=True):
            if fault is not None:
                self.packer.reject(source, fault, self.tokens.text[begin:end])

    def _faults(self, first: np.ndarray, second: np.ndarray, labels: np.ndarray) -> list[str | None]:
        """Why each pair is left out; None if it may be used. The same pair counts once."""
        both = map(self._sentence_faults, (first, second))
        found = [one or other for one, other in zip(*both, strict=True)]
        places = np.concatenate([first[:, 2:], second[:, 2:]], axis=1).tolist()
        for i, ((a, b, c, d), label) in enumerate(zip(places, labels.tolist(), strict=True)):
            pair = self.tokens.text[a:b], self.tokens.text[c:d]
            if pair in self._seen:
                found[i] = "pair seen before in its block"
            elif found[i] is None:
                self._seen.add(pair)
                found[i] = _STAYS if label and self._still_opens(pair[1], label) else None
        return found

    def _still_opens(self, text: str, label: int) -> bool:
        """Whether a sentence still begins with its connective: written twice, in quotation marks, or part of
        a longer one."""
        name = connectives.class_names(self.language)[label].lower()
        opening = _MARKS.sub("", text[:60].lower(), count=1)
        longer_word = self.language == "en" and opening[len(name) : len(name) + 1].isalnum()
        return opening.startswith(name) and not longer_word

    def _sentence_faults(self, rows: np.ndarray) -> list[str | None]:
        first, last, begin, end = rows.T
        size = end - begin
        faults: list[str | None] = [None] * len(rows)
        letters = size - (self._others[end] - self._others[begin])
        words = self._words[last] - self._words[first]
        for reason, found in (
            ("too few letters in a sentence", letters <= self.min_letters * size),
            (f"sentence of more than {self.max_words} words", words > self.max_words),
            (f"sentence of fewer than {self.min_tokens} tokens", last - first < self.min_tokens),
        ):
            for i in np.flatnonzero(found).tolist():
                faults[i] = reason
        paired = (self._paired[end] > self._paired[begin]) & self.balanced
        # Only what may fail is read.
        for i in np.flatnonzero(paired | (self.language == "en")).tolist():
            if faults[i] is None:
                text = self.tokens.text[begin[i] : end[i]]
                if self.language == "en" and sum(map(str.isupper, text)) >= sum(map(str.islower, text)):
                    faults[i] = "sentence in capitals"
                elif paired[i] and not is_balanced(text):
                    faults[i] = "bracket or quotation mark without its partner"
        return faults


def _characters(*ranges: tuple[int, int]) -> np.ndarray:
    """bool (65536): characters of the ranges, ends included; the last one, which is in none, stands for all
    beyond."""
    table = np.zeros(1 << 16, bool)
    for first, last in ranges:
        table[first : last + 1] = True
    return table


def _counts(counted: np.ndarray) -> np.ndarray:
    """int32 (n + 1): how many of the places before each count; `counted`: 0 or 1 (n)."""
    return np.concatenate([[0], np.cumsum(counted, dtype=np.int32)], dtype=np.int32)


def is_balanced(text: str) -> bool:
    """Whether every bracket and quotation mark has its partner, in order."""
    return text.count('"') % 2 == 0 and all(_in_order(text, *pair) for pair in _BRACKETS)


def _in_order(text: str, left: str, right: str) -> bool:
    steps = [1 if mark == left else -1 for mark in text if mark in (left, right)]
    return sum(steps) == 0 and min(accumulate(steps), default=0) >= 0


def without_openings(tokens: Tokens, rows: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sentences from some character on, int64 (n, 4); and bool (n), False if what is left off is only the
    beginning of a longer word or phrase, or all: 而 opens 而他们, but not 而立之年.

    `ends`: int64 (n), the character of each sentence where the rest begins."""
    _, last, begin, end = rows.T
    begin = begin + ends
    first = np.searchsorted(tokens.starts, begin.astype(tokens.starts.dtype))
    inside = first < last
    first = np.minimum(first, len(tokens) - 1)
    whole = inside & (tokens.starts[first] == begin) & (tokens.begins[first] == ALL_LEVELS)
    return np.stack([first, last, begin, end], axis=1), whole
