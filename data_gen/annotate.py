"""What every generator starts from: sentences with tokens, words, phrases, entities and casing, annotated once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_gen.dictionaries import load_entries
from data_gen.documents import RawDocument, RawPair, RejectCounter, is_dev
from data_gen.sentences import split_sentences
from data_gen.words import ChineseUnits, EnglishUnits, capital_label, surface_words
from ernie2.config import ConfigError
from ernie2.tokenizer import Encoding, Tokenizer

MAX_SENTENCE_CHARS = 2_000
"""A longer "sentence" (a table, text without punctuation) is cut into several; counted as the note `long_sentence`."""
BATCH_CHARS = 32_000
"""Characters annotated in one go: enough to make array overhead vanish, little enough to stay in cache."""
LANGUAGE_CHARS, CHINESE_SHARE = 2_000, 0.1
"""A page in a Chinese corpus is English if under a tenth of the letters of its first 2,000 characters is not Latin."""

_BREAK = re.compile(r"[，、；：,;:\s]")
_LINE_BREAKS = re.compile("[\n\r]")


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
        text, starts = self.text[first:last], self.starts[lo:hi] - np.int32(first)
        return Sentence(text, self.token_ids[lo:hi], starts, words, phrases, entities, self.capital[lo:hi])


@dataclass(slots=True)
class Document:
    """An annotated document.

    Attributes:
        source: Where it comes from, `file:line` of its first line.
        sentences: In reading order; none is empty.
        paragraph_starts: Index in `sentences` of the first sentence of each paragraph, rising, the first is 0.
        dev: Whether it belongs to the dev split: a hash of its content decides, the same in every task.
        language: "zh" or "en", by whose rules it was split and annotated.
    """

    source: str
    sentences: list[Sentence]
    paragraph_starts: list[int]
    dev: bool
    language: str = "zh"


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
        self._entries = load_entries(dictionaries, encoding)
        self._units: dict[str, ChineseUnits | EnglishUnits] = {}
        self._units_of(language)

    def __reduce__(self) -> tuple:
        """Another process loads dictionaries and tables anew; counts stay behind."""
        return Annotator, self._arguments

    def sentence(self, text: str) -> Sentence:
        """Annotates one sentence as it is, up to `MAX_SENTENCE_CHARS`; the rest of a longer one is dropped, noted."""
        if len(text) > MAX_SENTENCE_CHARS:
            self.rejects.note("sentence", "long_sentence", text)
            text = next(_pieces(text))
        return next(self._annotate([text], self._language_of(text)))

    def document(self, raw: RawDocument, dev_share: float = 0.005) -> Document:
        """Splits and annotates a document. Sentences without tokens are left out, so a document may come out empty."""
        texts, paragraphs = [], []
        language = self._language_of("\n".join(raw.paragraphs))
        for number, paragraph in enumerate(raw.paragraphs):
            for sentence in split_sentences(paragraph, language):
                if len(sentence) > MAX_SENTENCE_CHARS:
                    self.rejects.note(raw.source, "long_sentence", sentence)
                pieces = list(_pieces(sentence))
                texts += pieces
                paragraphs += [number] * len(pieces)
        sentences, paragraph_starts, last = [], [], -1
        for number, sentence in zip(paragraphs, self._annotate(texts, language)):
            if len(sentence) == 0:
                continue
            if number != last:
                paragraph_starts.append(len(sentences))
            sentences.append(sentence)
            last = number
        return Document(raw.source, sentences, paragraph_starts, is_dev(raw, dev_share), language)

    def pair(self, raw: RawPair, dev_share: float = 0.005) -> Pair:
        """Annotates query and title, each as one sentence."""
        return Pair(raw.source, self.sentence(raw.query), self.sentence(raw.title), raw.label, is_dev(raw, dev_share))

    def _language_of(self, text: str) -> str:
        """"en" where the corpus is English, or where hardly a letter of the text's beginning is Chinese."""
        if self.language == "en":
            return "en"
        beginning = text[:LANGUAGE_CHARS]
        letters = sum(character.isalpha() for character in beginning)
        ascii_letters = sum(character.isascii() and character.isalpha() for character in beginning)
        return "en" if letters and letters - ascii_letters < CHINESE_SHARE * letters else "zh"

    def _units_of(self, language: str) -> ChineseUnits | EnglishUnits:
        """Finder of words, phrases and entities; that of a language met on the way is made at its first page."""
        if language not in self._units:
            self._units[language] = (EnglishUnits if language == "en" else ChineseUnits)(self._entries)
        return self._units[language]

    def _annotate(self, texts: list[str], language: str) -> Iterator[Sentence]:
        """Annotates sentences, in order, in batches of about BATCH_CHARS characters."""
        batch, size = [], 0
        for text in texts:
            if size + len(text) > BATCH_CHARS and batch:
                yield from self._annotate_batch(batch, language)
                batch, size = [], 0
            batch.append(text)
            size += len(text) + 1
        if batch:
            yield from self._annotate_batch(batch, language)

    def _annotate_batch(self, texts: list[str], language: str) -> Iterator[Sentence]:
        # A line feed is white space to tokenizer and segmenter alike: joined by it, texts do not touch each other.
        text = "\n".join(_LINE_BREAKS.sub(" ", one) for one in texts)
        tokens = self.tokenizer.encode(text)
        first_char = np.cumsum([0] + [len(one) + 1 for one in texts], dtype=np.int32)
        edges = np.searchsorted(tokens.starts, first_char)
        sizes = np.diff(edges)
        units, capital = self._levels(text, tokens, language)
        # Units count from 0 in each sentence: its first token's number is taken off.
        heads = np.minimum(edges[:-1], max(len(tokens.ids) - 1, 0))
        units = (units - np.repeat(units[:, heads], sizes, axis=1)).astype(np.int16) if len(tokens.ids) else units
        starts = tokens.starts - np.repeat(first_char[:-1], sizes)
        for one, a, b in zip(texts, edges.tolist(), edges[1:].tolist()):
            yield Sentence(one, tokens.ids[a:b], starts[a:b], units[0, a:b], units[1, a:b], units[2, a:b], capital[a:b])

    def _levels(self, text: str, tokens: Encoding, language: str) -> tuple[np.ndarray, np.ndarray]:
        """Running unit numbers int32 (3, T) of word, phrase and entity, and capital labels int8 (T)."""
        if len(tokens.ids) == 0:
            return np.zeros((3, 0), np.int16), np.zeros(0, np.int8)
        inside = self.tokenizer.vocab.continuation[tokens.ids]
        units = np.cumsum(self._units_of(language).find(text, tokens, inside), axis=1, dtype=np.int32)
        if text.lower() == text.upper():
            return units, np.full(len(inside), -100, np.int8)
        _, sizes, words = surface_words(text, tokens, inside)
        return units, np.repeat(np.array([capital_label(word) for word in words], np.int8), sizes)


def _pieces(sentence: str) -> Iterator[str]:
    """The sentence, or where it is too long stretches of it that end at a comma, a space or, failing both, anywhere."""
    while len(sentence) > MAX_SENTENCE_CHARS:
        breaks = [found.end() for found in _BREAK.finditer(sentence, MAX_SENTENCE_CHARS // 2, MAX_SENTENCE_CHARS)]
        stop = breaks[-1] if breaks else MAX_SENTENCE_CHARS
        yield sentence[:stop].strip()
        sentence = sentence[stop:].strip()
    yield sentence
