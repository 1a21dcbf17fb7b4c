"""What every generator starts from: sentences with tokens, words, phrases, entities and casing, annotated once.

Chinese: words are jieba's. A phrase is an entry of a phrase dictionary, or two to four jieba words that form a noun phrase
(adjectives, nominal verbs, nouns; the last is a noun) of at most `MAX_PHRASE_CHARS` characters; jieba's idioms and fixed
expressions are single words, so units already. An entity is an entry of an entity dictionary, which may join words; the names
in jieba's own dictionary are single words likewise. Where an entry cuts a word, the parts left over become words of their own.
English: words are runs of letters and digits, and single punctuation marks; phrases and entities come from dictionaries, and a
run of up to `MAX_NAME_WORDS` capitalised words that does not open a sentence is an entity (a substitute for a name tagger).
Pieces of one surface word are never parted, whatever a segmenter says.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_gen.dictionaries import ChineseMatcher, EnglishMatcher, jieba_segmenter, load_entries
from data_gen.documents import RawDocument, RawPair, RejectCounter, is_dev
from data_gen.sentences import split_sentences
from ernie2.config import ConfigError
from ernie2.tokenizer import Encoding, Tokenizer

MAX_SENTENCE_CHARS = 2_000
"""A longer "sentence" (a table, text without punctuation) is cut into several; counted as the note `long_sentence`."""
MAX_PHRASE_CHARS = 8
MAX_NAME_WORDS = 5

_NOUN_PHRASE = re.compile("[mn]{1,3}n")
_BREAK = re.compile(r"[，、；：,;:\s]")
# After one of these a capital is the beginning of a sentence, not a name.
_OPENERS = frozenset(".!?:…“‘\"'([—-")


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


class Annotator:
    """Turns raw text into annotated sentences. Make one per process: it loads jieba's dictionary (about a second)."""

    def __init__(self, tokenizer: Tokenizer, language: str = "zh", dictionaries: Sequence[str | Path] = (),
                 segmenter: str = "jieba", encoding: str = "utf-8", rejects: RejectCounter | None = None) -> None:
        """Loads what the language needs.

        Args:
            tokenizer: Gives the tokens.
            language: "zh" or "en".
            dictionaries: Entity and phrase dictionaries, see `data_gen.dictionaries.load_entries`.
            segmenter: "jieba", the only one; English needs none.
            encoding: Of the dictionaries.
            rejects: Where notes are counted.

        Raises:
            ConfigError: unknown language or segmenter, unusable dictionary.
        """
        if language not in ("zh", "en"):
            raise ConfigError(f"data.language: {language!r}; use zh or en")
        if segmenter != "jieba":
            raise ConfigError(f"data.segmenter: {segmenter!r}; use jieba")
        self.tokenizer, self.language = tokenizer, language
        self.rejects = RejectCounter() if rejects is None else rejects
        self._arguments = (tokenizer, language, tuple(map(str, dictionaries)), segmenter, encoding)
        entries = load_entries(dictionaries, encoding)
        if language == "en":
            self._english = EnglishMatcher(entries)
        else:
            self._chinese = ChineseMatcher(entries) if entries else None
            self._jieba, self._kinds = jieba_segmenter()

    def __reduce__(self) -> tuple:
        """Another process loads dictionaries and tables anew; counts stay behind."""
        return Annotator, self._arguments

    def sentence(self, text: str) -> Sentence:
        """Annotates one sentence as it is, up to `MAX_SENTENCE_CHARS`; the rest of a longer one is dropped and noted."""
        if len(text) > MAX_SENTENCE_CHARS:
            self.rejects.note("sentence", "long_sentence", text)
            text = next(_pieces(text))
        return self._annotate(text, self.tokenizer.encode(text))

    def document(self, raw: RawDocument, dev_share: float = 0.005) -> Document:
        """Splits and annotates a document. Sentences without tokens are left out, so a document may come out empty."""
        texts, paragraphs = [], []
        for number, paragraph in enumerate(raw.paragraphs):
            for sentence in split_sentences(paragraph, self.language):
                if len(sentence) > MAX_SENTENCE_CHARS:
                    self.rejects.note(raw.source, "long_sentence", sentence)
                pieces = list(_pieces(sentence))
                texts += pieces
                paragraphs += [number] * len(pieces)
        sentences, paragraph_starts, last = [], [], -1
        for text, number, tokens in zip(texts, paragraphs, self.tokenizer.encode_many(texts)):
            if len(tokens.ids) == 0:
                continue
            if number != last:
                paragraph_starts.append(len(sentences))
            sentences.append(self._annotate(text, tokens))
            last = number
        return Document(raw.source, sentences, paragraph_starts, is_dev(raw, dev_share))

    def pair(self, raw: RawPair, dev_share: float = 0.005) -> Pair:
        """Annotates query and title, each as one sentence."""
        return Pair(raw.source, self.sentence(raw.query), self.sentence(raw.title), raw.label, is_dev(raw, dev_share))

    def _annotate(self, text: str, tokens: Encoding) -> Sentence:
        if len(tokens.ids) == 0:
            none = np.zeros(0, np.int16)
            return Sentence(text, tokens.ids, tokens.starts, none, none, none, np.zeros(0, np.int8))
        inside = self.tokenizer.vocab.continuation[tokens.ids]
        if self.language == "en":
            words = _surface_words(text, tokens, inside)
            capital = _capitals(words)
            units = self._english_units([word for word, _ in words], capital, np.flatnonzero(~inside), len(inside))
        else:
            units = self._chinese_units(text, tokens, inside)
            cased = text.lower() != text.upper()
            words = _surface_words(text, tokens, inside) if cased else []
            capital = _capitals(words) if cased else None
        labels = np.full(len(inside), -100, np.int8) if capital is None else np.repeat(capital, [n for _, n in words])
        return Sentence(text, tokens.ids, tokens.starts, units[0], units[1], units[2], labels)

    def _chinese_units(self, text: str, tokens: Encoding, inside: np.ndarray) -> np.ndarray:
        """Word, phrase and entity ids, int16 (3, T)."""
        words = self._jieba.lcut(text)
        stops = np.cumsum([len(word) for word in words])
        # (3, characters + 1): 1 where a unit of the level begins.
        begins = np.zeros((3, len(text) + 1), np.int8)
        begins[:, 0] = begins[:, stops] = 1
        matches = self._chinese.find(text, _edges(text, tokens, inside, stops)) if self._chinese is not None else []
        for first, last, _ in matches:
            begins[:, (first, last)] = 1
        for first, last, is_entity in matches:
            begins[2 if is_entity else 1, first + 1:last] = 0
        for first, last in self._noun_phrases(words, stops, matches):
            begins[1, first + 1:last] = 0
        units = np.cumsum(begins, axis=1, dtype=np.int16)[:, tokens.starts]
        return _unit_ids(units[:, 1:] != units[:, :-1], inside)

    def _noun_phrases(self, words: list[str], stops: np.ndarray, matches: list[tuple[int, int, bool]]) -> Iterator[tuple[int, int]]:
        """Noun phrases [first, last) in characters, found by the tags of the words; none touches a dictionary match."""
        kinds = self._kinds
        pattern = "".join([kinds.get(word, ".") for word in words])
        at, found = 0, _NOUN_PHRASE.search(pattern)
        while found is not None:
            at, stop = found.start(), found.end()
            first = int(stops[at]) - len(words[at])
            while stop - at >= 2 and (pattern[stop - 1] != "n" or stops[stop - 1] - first > MAX_PHRASE_CHARS):
                stop -= 1
            last = int(stops[stop - 1])
            if stop - at >= 2 and all(b <= first or last <= a for a, b, _ in matches):
                yield first, last
                at = stop
            else:
                at += 1
            found = _NOUN_PHRASE.search(pattern, at)

    def _english_units(self, words: list[str], capital: np.ndarray, first: np.ndarray, tokens: int) -> np.ndarray:
        """Word, phrase and entity ids, int16 (3, T); `first` is the first token of each word."""
        begins = np.zeros((3, tokens), bool)
        begins[:, first] = True
        taken = np.zeros(len(words), bool)
        for start, stop, is_entity in self._english.find(words):
            begins[2 if is_entity else 1, first[start + 1:stop]] = False
            taken[start:stop] = True
        for start, stop in _names(words, capital, taken):
            begins[2, first[start + 1:stop]] = False
        return _unit_ids(begins[:, 1:], np.zeros(tokens, bool))


def _pieces(sentence: str) -> Iterator[str]:
    """The sentence, or where it is too long stretches of it that end at a comma, a space or, failing both, anywhere."""
    while len(sentence) > MAX_SENTENCE_CHARS:
        breaks = [found.end() for found in _BREAK.finditer(sentence, MAX_SENTENCE_CHARS // 2, MAX_SENTENCE_CHARS)]
        stop = breaks[-1] if breaks else MAX_SENTENCE_CHARS
        yield sentence[:stop].strip()
        sentence = sentence[stop:].strip()
    yield sentence


def _edges(text: str, tokens: Encoding, inside: np.ndarray, stops: np.ndarray) -> bytes:
    """For each place between characters: 0 inside a surface word, 1 between tokens, 2 where a jieba word ends too."""
    edges = np.ones(len(text) + 1, np.uint8)
    if len(tokens.ids) != len(text):
        wide = np.flatnonzero(tokens.ends - tokens.starts > 1)
        for first, last in zip(tokens.starts[wide].tolist(), tokens.ends[wide].tolist()):
            edges[first + 1:last] = 0
        edges[tokens.starts[inside]] = 0
    edges[0] *= 2
    edges[stops] *= 2
    return edges.tobytes()


def _unit_ids(begins: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Unit numbers, int16 (3, T), from where units begin, bool (3, T - 1) without the first token. Pieces never begin one."""
    ids = np.zeros((3, len(inside)), np.int16)
    np.cumsum(begins & ~inside[1:], axis=1, dtype=np.int16, out=ids[:, 1:])
    return ids


def _surface_words(text: str, tokens: Encoding, inside: np.ndarray) -> list[tuple[str, int]]:
    """Each word as it is written, with its number of tokens."""
    first = np.flatnonzero(~inside)
    last = np.append(first[1:], len(inside)) - 1
    return [(text[a:b], n) for a, b, n in
            zip(tokens.starts[first].tolist(), tokens.ends[last].tolist(), (last - first + 1).tolist())]


def _capitals(words: list[tuple[str, int]]) -> np.ndarray:
    """int8 (words): 1 begins with a capital, 0 has cased letters but does not, -100 has none."""
    labels = []
    for word, _ in words:
        if word.lower() == word.upper():
            labels.append(-100)
        else:
            labels.append(int(word[0].isupper() or word[0].istitle()))
    return np.array(labels, np.int8)


def _names(words: list[str], capital: np.ndarray, taken: np.ndarray) -> Iterator[tuple[int, int]]:
    """Runs of two to `MAX_NAME_WORDS` capitalised words that do not open a sentence; a heading in capitals has none."""
    letters = capital >= 0
    if not letters.any() or capital[letters].all():
        return
    fits = (capital == 1) & ~taken
    fits[0] = False
    start = 1
    while start < len(words):
        if not fits[start] or words[start - 1] in _OPENERS or words[start] == "I":
            start += 1
            continue
        stop = start
        while stop < len(words) and fits[stop] and stop - start < MAX_NAME_WORDS:
            stop += 1
        if stop - start > 1:
            yield start, stop
        start = stop
