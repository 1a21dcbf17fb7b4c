"""Discourse relation (paper section 3.2.3): which connective stood between two sentences?

Mined as Discovery is (Sileo et al. 2019, arXiv 1903.11850): the second of two adjacent sentences opens with a
listed connective, which is removed, with the comma after it, and becomes the label. Class 0, `[no-conn]`:
pairs whose second sentence opens with none. The classes are those of `data_gen.generators.connectives` for
data.language; one head serves both lists, so num_classes is that of the longer one. `balance` and
`max_per_class` in the YAML even the classes out when the blocks are merged. Pairs that are already marked
(data.marked_pairs) are taken as they are, through the same filters.

The filters are Discovery's (`pair_filter.py`). Not taken over: its language identifier (a page in another
language is left out by the annotation) and the random thinning of "and", "but" and pairs without a connective
(`balance`, `no_conn_share`). `max_words` is higher, because Chinese sentences are longer: 31 would cost 39%
of the pairs, 64 cost 4%."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Annotated

import numpy as np

from data_gen.generators import Labels, connectives
from data_gen.generators.pair_filter import PairFilter
from data_gen.packing import Packed, Packer
from data_gen.text.tokens import ALL_LEVELS, Document, Pair, Sentence, Tokens
from ernie2.characters import code_points
from ernie2.schema import between

_STAYS = "connective that stays in its sentence"
_MARKS = re.compile(r"^\W+")


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
    are there.

    "Adjacent" is over paragraph ends too: in corpora of one sentence a line paragraphs mean nothing.

    Args:
        source: Documents of a block; or its marked pairs, whose label is a connective. rng: Draws the pairs
        without a connective. packer: Makes the examples. language: Chooses the list. min_tokens: Fewest
        tokens of each sentence, the connective not counted. no_conn_share: Pairs of class 0 for each pair of
        another class in the block. max_words: Most words of each sentence, punctuation marks counted
        (Discovery: 31). min_letters: Each sentence has more than this share of letters among its characters
        (Discovery: 0.5). balanced: Leave out sentences with a bracket or quotation mark that has no partner
        (as Discovery does)."""
    if not source:
        return
    marked = isinstance(source[0], Pair)
    tokens = source[0].query.tokens if marked else source[0].sentences.tokens
    codes = code_points(tokens.text)
    pairs = PairFilter(tokens, codes, language, min_tokens, max_words, min_letters, balanced)
    if marked:
        yield from _marked(source, tokens, pairs, packer, language)
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
        yield from _Adjacent(usable, codes, language).examples(rng, pairs, packer, no_conn_share)


class _Adjacent:
    """The adjacent sentences of a block's documents.

    Attributes:
        rows: int64 (S, 4), all sentences, as `data_gen.text.tokens.Sentences.rows`.
        first: Number of each document's first sentence.
        second: int64, numbers of the sentences that have one before them in their document, in order."""

    def __init__(self, documents: Sequence[Document], codes: np.ndarray, language: str) -> None:
        self.documents, self.tokens, self.language, self._codes = (
            documents,
            documents[0].sentences.tokens,
            language,
            codes,
        )
        self.rows = np.concatenate([document.sentences.rows for document in documents])
        sizes = np.array([len(document.sentences) for document in documents])
        self.first = np.cumsum(sizes) - sizes
        self.second = np.delete(np.arange(len(self.rows)), self.first)

    def examples(
        self, rng: np.random.Generator, pairs: PairFilter, packer: Packer, no_conn_share: float
    ) -> Iterator[Packed]:
        """See `generate`."""
        second, rest, labels = self._openings()
        faults = _freed(
            pairs.faults(self.rows[second - 1], rest), self.tokens.text, rest, labels, self.language
        )
        documents = (np.searchsorted(self.first, second, "right") - 1).tolist()
        for i, fault in enumerate(faults):
            if fault is not None:
                packer.reject(
                    self.documents[documents[i]].source, fault, self.tokens.text[rest[i, 2] : rest[i, 3]]
                )
        mined = np.flatnonzero([fault is None for fault in faults])
        plain = self._without_connective(rng, round(no_conn_share * len(mined)), pairs)
        first, rest = np.append(second[mined], plain) - 1, np.concatenate([rest[mined], self.rows[plain]])
        if len(first):
            yield _packed(
                packer, self.tokens, self.rows[first], rest, np.append(labels[mined], np.zeros_like(plain))
            )

    def _openings(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Sentences that open with a connective: int64 (n) their numbers, (n, 4) what they are without it,
        (n) its class."""
        # Most sentences open with none: they must cost no more than this look-up.
        likely = self.second[connectives.may_open(self._codes, self.rows[self.second, 2], self.language)]
        text, found = self.tokens.text, []
        for i, (begin, end) in zip(likely.tolist(), self.rows[likely, 2:].tolist(), strict=True):
            connective = connectives.opening_connective(text[begin:end], self.language)
            if connective is not None and connective[0]:
                found.append((i, *connective[:2]))
        second, labels, ends = np.array(found, np.int64).reshape(-1, 3).T
        rest, whole = without_openings(self.tokens, self.rows[second], ends)
        return second[whole], rest[whole], labels[whole]

    def _without_connective(self, rng: np.random.Generator, wanted: int, pairs: PairFilter) -> np.ndarray:
        """Up to `wanted` sentences, drawn at random, that open with no connective and have one before them;
        int64."""
        drawn: list[int] = []
        order = rng.permutation(self.second) if wanted else self.second[:0]
        while wanted > len(drawn) and len(order):
            some, order = np.split(order, [2 * (wanted - len(drawn)) + 8])
            texts = (self.tokens.text[begin:end] for begin, end in self.rows[some, 2:].tolist())
            some = some[[connectives.opening_connective(text, self.language) is None for text in texts]]
            faults = pairs.faults(self.rows[some - 1], self.rows[some])
            drawn += [i for i, fault in zip(some.tolist(), faults, strict=True) if fault is None]
        return np.array(drawn[:wanted], np.int64)


def _marked(
    source: Sequence[Pair], tokens: Tokens, pairs: PairFilter, packer: Packer, language: str
) -> Iterator[Packed]:
    """Marked pairs. A second sentence that still opens with its connective is freed of it, or left out where
    it cannot be: it would give the label away."""
    known, rows, opened, classes = [], [], [], []
    for pair in source:
        label = connectives.class_of(pair.label, language)
        if label is None:
            packer.reject(pair.source, "marker that is no connective of data.language", pair.label)
            continue
        found = connectives.opening_connective(pair.title.text, language)
        if found is not None and found[0] > 0 == label:
            packer.reject(pair.source, "marked as having no connective, and opens with one", pair.title.text)
            continue
        opened.append(found[1] if found is not None and found[0] == label > 0 else 0)
        classes.append(label)
        known.append(pair)
        rows.append((_row(pair.query), _row(pair.title)))
    first, second = np.array(rows, np.int64).reshape(-1, 2, 4).swapaxes(0, 1)
    ends = np.array(opened, np.int64)
    rest, whole = without_openings(tokens, second, ends)
    second = np.where((whole & (ends > 0))[:, None], rest, second)
    free = (ends == 0) | whole
    faults: list[str | None] = [_STAYS] * len(known)
    labels = np.array(classes, np.int64)
    found = _freed(pairs.faults(first[free], second[free]), tokens.text, second[free], labels[free], language)
    for i, fault in zip(np.flatnonzero(free).tolist(), found, strict=True):
        faults[i] = fault
    for pair, fault, (_, _, begin, end) in zip(known, faults, second.tolist(), strict=True):
        if fault is not None:
            packer.reject(pair.source, fault, tokens.text[begin:end])
    kept = np.flatnonzero([fault is None for fault in faults])
    if len(kept):
        yield _packed(packer, tokens, first[kept], second[kept], labels[kept])


def _freed(
    faults: list[str | None], text: str, second: np.ndarray, labels: np.ndarray, language: str
) -> list[str | None]:
    """The faults, and one for each second sentence that still begins with its connective: said twice, in
    quotation marks, or part of a longer one. `second`: int64 (n, 4); `labels`: int64 (n)."""
    names, spaced = connectives.class_names(language), language == "en"
    for i, (label, begin, end) in enumerate(zip(labels.tolist(), *second[:, 2:].T.tolist(), strict=True)):
        if faults[i] is None and label > 0:
            name, opening = (
                names[label].lower(),
                _MARKS.sub("", text[begin : min(end, begin + 60)].lower(), count=1),
            )
            if opening.startswith(name) and not (spaced and opening[len(name) : len(name) + 1].isalnum()):
                faults[i] = _STAYS
    return faults


def _row(sentence: Sentence) -> tuple[int, int, int, int]:
    return sentence.first, sentence.last, sentence.begin, sentence.end


def _packed(
    packer: Packer, tokens: Tokens, first: np.ndarray, second: np.ndarray, labels: np.ndarray
) -> Packed:
    return packer.pack_many(tokens, np.stack([first[:, :2], second[:, :2]], axis=1), labels, keep_joint=True)


def without_openings(tokens: Tokens, rows: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sentences from some character on.

    Without a comma after a connective the segmenter decides: 而 opens 而他们, but not 而立之年.

    Args:
        tokens: The table.
        rows: int64 (n, 4), the sentences, as `data_gen.text.tokens.Sentences.rows`.
        ends: int64 (n), the character of each where the rest begins.

    Returns:
        int64 (n, 4), the rests; bool (n), False where what is left off is only the beginning of a longer word
        or phrase, or all."""
    _, last, begin, end = rows.T
    begin = begin + ends
    first = np.searchsorted(tokens.starts, begin.astype(tokens.starts.dtype))
    inside = first < last
    first = np.minimum(first, len(tokens) - 1)
    whole = inside & (tokens.starts[first] == begin) & (tokens.begins[first] == ALL_LEVELS)
    return np.stack([first, last, begin, end], axis=1), whole
