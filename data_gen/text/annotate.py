"""What every generator starts from: the documents or pairs of a block, annotated once, as views of one table
of tokens."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from data_gen.reading.documents import RawDocument, RawMarkedPair, RawPair
from data_gen.reading.rejects import RejectCounter
from data_gen.text.dictionaries import load_entries
from data_gen.text.sentences import sentence_spans
from data_gen.text.tokens import ALL_LEVELS, Document, Pair, Sentence, Sentences, Tokens
from data_gen.text.words import ChineseUnits, EnglishUnits
from ernie2.characters import code_points, to_text
from ernie2.strict import ConfigError
from ernie2.tokenizer import Tokenizer

LANGUAGE_CHARS, CHINESE_SHARE = 2_000, 0.1
"""A page in a Chinese corpus is English if under a tenth of the letters of its first 2,000 characters is not
Latin.
"""
CHINESE_PAGE = "chinese_page"
"""Note on a page of an English corpus whose letters are Chinese, half of them at least."""

_LETTER_CODES = 0x20000  # all beyond are letters


class Annotator:
    """Sentences, tokens, words, phrases and entities of a block.

    Loading dictionaries takes a second: a process makes one and keeps it. `rejects` takes the notes of the
    block at hand."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        language: str = "zh",
        dictionaries: Sequence[str | Path] = (),
        segmenter: str = "auto",
        encoding: str = "utf-8",
    ) -> None:
        """Loads what the language needs.

        Args:
            tokenizer: Gives the tokens.
            language: "zh" or "en".
            dictionaries: Entity and phrase dictionaries, see `data_gen.text.dictionaries.load_entries`.
            segmenter: A name of `data_gen.text.segmenters`; English needs none.
            encoding: Of the dictionaries.

        Raises:
            ConfigError: unknown language or segmenter, unusable dictionary."""
        if language not in ("zh", "en"):
            raise ConfigError(f"data.language: {language!r}; use zh or en")
        self.tokenizer, self.language, self.rejects = tokenizer, language, RejectCounter()
        self._unknown: Counter[str] = Counter()
        self._segmenter = segmenter
        self._entries = load_entries(dictionaries, encoding)
        self._units: dict[str, ChineseUnits | EnglishUnits] = {}
        self._units_of(language)

    def documents(self, raws: Sequence[RawDocument], dev: bool = False) -> list[Document]:
        """Annotates documents, all of the dev split or none. Those without a token come out with no
        sentence."""
        languages = self._languages(raws)
        parts, made = [], {}
        for language in dict.fromkeys(languages):
            numbers = [i for i, one in enumerate(languages) if one == language]
            texts = [raws[i].text for i in numbers]
            parts.append((numbers, *self._annotate(texts, language)))
        tokens = Tokens.joined([part[1] for part in parts]) if parts else None
        first, begin = 0, 0
        for numbers, part, sentences in parts:
            stops = np.cumsum([len(raws[i].text) + 1 for i in numbers])
            edges = [0, *np.searchsorted(sentences[:, 2], stops).tolist()]
            rows = sentences + np.array([first, first, begin, begin])
            for i, a, b in zip(numbers, edges, edges[1:]):
                made[i] = Document(raws[i].source, Sentences(tokens, rows[a:b]), dev, languages[i])
            first, begin = first + len(part), begin + len(part.text) + 1
        return [made[i] for i in range(len(raws))]

    def pairs(self, raws: Sequence[RawPair | RawMarkedPair], dev: bool = False) -> list[Pair]:
        """Annotates pairs, each text as one sentence whatever stands in it; texts without a token come out
        empty."""
        texts = [text.replace("\n", " ") for raw in raws for text in _two_texts(raw)]
        if not texts:
            return []
        tokens, sentences = self._annotate(texts, self.language, split=False)
        views = [Sentence(tokens, *row) for row in sentences.tolist()]
        return [
            Pair(
                raw.source,
                views[2 * i],
                views[2 * i + 1],
                raw.label if isinstance(raw, RawPair) else raw.marker,
                dev,
            )
            for i, raw in enumerate(raws)
        ]

    @property
    def skipped(self) -> Counter[str]:
        """Lines of the dictionaries that are not used, by reason."""
        return self._entries.skipped

    def forget(self) -> None:
        """Drops what was counted since the last calls of take_unknown and take_hits: a block that failed
        half-way."""
        self.take_unknown()
        for units in self._units.values():
            units.take_hits()

    def take_unknown(self) -> Counter[str]:
        """How often which text became [UNK] since the last call."""
        unknown, self._unknown = self._unknown, Counter()
        return unknown

    def take_hits(self) -> dict[int, int]:
        """Number of each dictionary entry found since the last call -> how often."""
        hits: Counter[int] = Counter()
        for units in self._units.values():
            hits.update(units.take_hits())
        return hits

    def found_by_file(self, rows: Iterable[int]) -> list[tuple[str, int, int]]:
        """(dictionary, its entries, how many of them are among these numbers); one of several files counts in
        each."""
        return list(self._entries.found_by_file(rows))

    def named(self, number: int) -> tuple[str, str]:
        """A dictionary entry, and "entity" or "phrase"."""
        return self._entries.word(number), "entity" if self._entries.is_entity[number] else "phrase"

    def _annotate(self, texts: Sequence[str], language: str, split: bool = True) -> tuple[Tokens, np.ndarray]:
        """Table of the texts joined by line feeds, and its sentences: int64 (S, 4) rows first, last,
        characters begin, end.

        With `split` false every text is one sentence, empty ones too."""
        text = "\n".join(texts)
        if split:
            spans, too_long = sentence_spans(text, language)
            for first, last in too_long:
                self.rejects.note("", "long_sentence", text[first:last][:80])
        else:
            ends = np.cumsum([len(one) + 1 for one in texts]) - 1
            spans = np.stack([ends - [len(one) for one in texts], ends], axis=1)
        found = self.tokenizer.encode(text)
        inside = self.tokenizer.vocab.continuation[found.ids]
        begins = np.zeros(0, np.uint8)
        if len(found.ids):
            begins = self._units_of(language).find(
                _parted(text, spans) if language == "en" else text, found, inside
            )
        tokens = Tokens(text, found.ids, found.starts, found.ends, begins, inside)
        rows = np.searchsorted(found.starts, spans.ravel()).reshape(-1, 2)
        if split:
            full = rows[:, 0] < rows[:, 1]
            rows, spans = rows[full], spans[full]
        tokens.begins[rows[rows[:, 0] < rows[:, 1], 0]] = (
            ALL_LEVELS  # no unit reaches over the end of a sentence
        )
        self._look_closer(tokens)
        return tokens, np.concatenate([rows, spans], axis=1).astype(np.int64)

    def _look_closer(self, tokens: Tokens) -> None:
        """Counts what became [UNK]; parts runs of one mark (◆◆◆, ------), which are no word of a hundred
        tokens."""
        text = tokens.text
        unknown = np.flatnonzero(tokens.ids == self.tokenizer.vocab.unk_id)
        places = zip(tokens.starts[unknown].tolist(), tokens.ends[unknown].tolist(), strict=True)
        self._unknown.update([text[start:end] for start, end in places])
        codes = code_points(text)[tokens.starts]
        again = np.flatnonzero(codes[1:] == codes[:-1]) + 1
        marks = again[_letter_kinds()[np.minimum(codes[again], _LETTER_CODES - 1)] == 0]
        digits = np.char.isdigit(codes[marks].astype("<u4").view("<U1")) if len(marks) else np.zeros(0, bool)
        tokens.begins[marks[~digits & ~tokens.inside[marks]]] = ALL_LEVELS

    def _languages(self, raws: Sequence[RawDocument]) -> list[str]:
        """Language of each page: "en" where the corpus is English, or where hardly a letter of its beginning
        is Chinese."""
        beginnings = [raw.text[:LANGUAGE_CHARS] for raw in raws]
        codes = code_points("".join(beginnings))
        kinds = _letter_kinds()[np.minimum(codes, _LETTER_CODES - 1)]
        edges = np.cumsum([0] + [len(beginning) for beginning in beginnings])
        letters, latin, chinese = (
            np.diff(np.concatenate([[0], np.cumsum(some)])[edges])
            for some in (kinds >= 1, kinds >= 2, (codes >= 0x4E00) & (codes <= 0x9FFF))
        )
        if self.language == "en":
            for i in np.flatnonzero(2 * chinese > letters).tolist():
                self.rejects.note(raws[i].source, CHINESE_PAGE, raws[i].text[:80])
            return ["en"] * len(raws)
        english = (letters > 0) & (letters - latin < CHINESE_SHARE * letters)
        return ["en" if one else "zh" for one in english.tolist()]

    def _units_of(self, language: str) -> ChineseUnits | EnglishUnits:
        """Finder of words, phrases and entities; that of a language met on the way is made at its first
        page."""
        if language not in self._units:
            self._units[language] = (
                EnglishUnits(self._entries)
                if language == "en"
                else ChineseUnits(self._entries, self._segmenter)
            )
        return self._units[language]


def _parted(text: str, spans: np.ndarray) -> str:
    """The text with a line feed for the space after each sentence: no unit reaches over one."""
    codes = code_points(text).copy()
    after = spans[:, 1][spans[:, 1] < len(codes)]
    codes[after[codes[after] == ord(" ")]] = ord("\n")
    return to_text(codes)


def _two_texts(raw: RawPair | RawMarkedPair) -> tuple[str, str]:
    return (raw.query, raw.title) if isinstance(raw, RawPair) else (raw.first, raw.second)


@functools.cache
def _letter_kinds() -> np.ndarray:
    """uint8 (_LETTER_CODES): 2 for ASCII letters, 1 for other letters, 0 for the rest; the last stands for
    all beyond."""
    kinds = np.array([*map(str.isalpha, map(chr, range(_LETTER_CODES)))]).view(np.uint8)
    kinds[:0x80] *= 2
    kinds[-1] = 1
    return kinds
