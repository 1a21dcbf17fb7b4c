"""What every generator starts from: the documents or pairs of a block, annotated once, as views of one table
of tokens."""

import functools
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from data_gen.reading.documents import RawDocument, RawMarkedPair, RawPair
from data_gen.reading.rejects import RejectCounter
from data_gen.text.dictionaries import load_entries
from data_gen.text.sentences import sentence_spans
from data_gen.text.tokens import ALL_LEVELS, CODES, Document, Pair, Sentence, Sentences, Tokens, codes_of
from data_gen.text.words import ChineseUnits, EnglishUnits
from ernie2.characters import code_points, to_text
from ernie2.strict import ConfigError
from ernie2.tokenizer import Tokenizer

LANGUAGE_CHARS, CHINESE_SHARE = 2_000, 0.1
"""A page of a Chinese corpus is English if under a tenth of the letters of its first 2,000 characters is not
Latin."""
CHINESE_PAGE = "chinese_page"
"""Note on a page of an English corpus half of whose letters are Chinese."""


class Annotator:
    """Sentences, tokens, words, phrases and entities of a block.

    Loading dictionaries takes a second: a process makes one and keeps it. `rejects` takes the notes of the
    current block."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        language: str = "zh",
        dictionaries: Sequence[str | Path] = (),
        segmenter: str = "auto",
        encoding: str = "utf-8",
    ) -> None:
        """Loads what the language ("zh" or "en") needs; `encoding` is that of the dictionaries.

        Raises:
            ConfigError: unknown language or segmenter, unusable dictionary."""
        if language not in ("zh", "en"):
            raise ConfigError(f"data.language: {language!r}; use zh or en")
        self.tokenizer, self.language, self.rejects = tokenizer, language, RejectCounter()
        self._unknown: Counter[str] = Counter()
        self._hits: list[np.ndarray] = []
        self._segmenter = segmenter
        self._entries = load_entries(dictionaries, encoding)
        self._units: dict[str, ChineseUnits | EnglishUnits] = {}
        self._units_of(language)

    def documents(self, raws: Sequence[RawDocument], dev: bool = False) -> list[Document]:
        """Annotates documents, all of the dev split or none; one without a token gets no sentences."""
        languages = self._languages(raws)
        parts, made = [], {}
        for language in dict.fromkeys(languages):
            numbers = [i for i, one in enumerate(languages) if one == language]
            parts.append((numbers, *self._annotate([raws[i].text for i in numbers], language)))
        tokens = Tokens.joined([part for _, part, _ in parts]) if parts else None
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
        """Annotates pairs, each text as one sentence, empty if it has no token."""
        texts = [text.replace("\n", " ") for raw in raws for text in _two_texts(raw)]
        if not texts:
            return []
        tokens, sentences = self._annotate(texts, self.language, split=False)
        views = [Sentence(tokens, *row) for row in sentences.tolist()]
        labels = [raw.label if isinstance(raw, RawPair) else raw.marker for raw in raws]
        return [
            Pair(raw.source, query, title, label, dev)
            for raw, query, title, label in zip(raws, views[0::2], views[1::2], labels, strict=True)
        ]

    @property
    def skipped(self) -> Counter[str]:
        """Lines of the dictionaries that are not used, by reason."""
        return self._entries.skipped

    def forget(self) -> None:
        """Drops the counts of a block that failed half-way."""
        self.take_unknown()
        self.take_hits()

    def take_unknown(self) -> Counter[str]:
        """How often which text became [UNK] since the last call."""
        unknown, self._unknown = self._unknown, Counter()
        return unknown

    def take_hits(self) -> dict[int, int]:
        """Number of each dictionary entry found since the last call -> how often."""
        rows, counts = np.unique(np.concatenate([np.zeros(0, np.int32), *self._hits]), return_counts=True)
        self._hits = []
        return dict(zip(rows.tolist(), counts.tolist(), strict=True))

    def found_by_file(self, rows: Iterable[int]) -> list[tuple[str, int, int]]:
        """(dictionary, its entries, how many of them are among these numbers)."""
        return list(self._entries.found_by_file(rows))

    def named(self, number: int) -> tuple[str, str]:
        """A dictionary entry, and "entity" or "phrase"."""
        return self._entries.word(number), "entity" if self._entries.is_entity[number] else "phrase"

    def _annotate(self, texts: Sequence[str], language: str, split: bool = True) -> tuple[Tokens, np.ndarray]:
        """Table of the texts joined by line feeds, and its sentences: int64 (S, 4) rows first, last,
        characters begin, end. Without `split` each text is one sentence, empty ones too."""
        text = "\n".join(texts)
        if split:
            spans, too_long = sentence_spans(text, language)
            for first, last in too_long:
                self.rejects.note("", "long_sentence", text[first:last][:80])
        else:
            ends = np.cumsum([len(one) + 1 for one in texts]) - 1
            spans = np.stack([ends - [len(one) for one in texts], ends], axis=1)
        found = self.tokenizer.encode(text)
        inside, begins = self.tokenizer.vocab.continuation[found.ids], np.zeros(0, np.uint8)
        if len(found.ids):
            bounded = _with_line_feeds(text, spans) if language == "en" else text
            begins, hits = self._units_of(language).find(bounded, found, inside)
            self._hits.append(hits)
        tokens = Tokens(text, found.ids, found.starts, found.ends, begins, inside)
        rows = np.searchsorted(found.starts, spans.ravel()).reshape(-1, 2)
        full = rows[:, 0] < rows[:, 1]
        tokens.begins[rows[full, 0]] = ALL_LEVELS  # no unit reaches over the end of a sentence
        if split:
            rows, spans = rows[full], spans[full]
        self._count_unknown(tokens)
        self._split_runs(tokens)
        return tokens, np.concatenate([rows, spans], axis=1).astype(np.int64)

    def _count_unknown(self, tokens: Tokens) -> None:
        unknown = np.flatnonzero(tokens.ids == self.tokenizer.vocab.unk_id)
        places = zip(tokens.starts[unknown].tolist(), tokens.ends[unknown].tolist(), strict=True)
        self._unknown.update([tokens.text[start:end] for start, end in places])

    def _split_runs(self, tokens: Tokens) -> None:
        """Makes each mark of a run (◆◆◆, ------) a unit: the run is no word of a hundred tokens."""
        codes = code_points(tokens.text)[tokens.starts]
        again = np.flatnonzero(codes[1:] == codes[:-1]) + 1
        marks = again[_letter_kinds()[np.minimum(codes[again], CODES - 1)] == 0]
        digits = np.char.isdigit(codes[marks].astype("<u4").view("<U1")) if len(marks) else np.zeros(0, bool)
        tokens.begins[marks[~digits & ~tokens.inside[marks]]] = ALL_LEVELS

    def _languages(self, raws: Sequence[RawDocument]) -> list[str]:
        """Language of each page: "en" if the corpus is English, or if hardly a letter of its beginning is
        Chinese."""
        beginnings = [raw.text[:LANGUAGE_CHARS] for raw in raws]
        codes = codes_of("".join(beginnings))
        kinds = _letter_kinds()[codes]
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
        """What finds the units of a language; made at its first page."""
        if language not in self._units:
            chinese = language == "zh"
            self._units[language] = (
                ChineseUnits(self._entries, self._segmenter) if chinese else EnglishUnits(self._entries)
            )
        return self._units[language]


def _with_line_feeds(text: str, spans: np.ndarray) -> str:
    """The text with a line feed for the space after each sentence: no unit reaches over one."""
    codes = code_points(text).copy()
    after = spans[:, 1][spans[:, 1] < len(codes)]
    codes[after[codes[after] == ord(" ")]] = ord("\n")
    return to_text(codes)


def _two_texts(raw: RawPair | RawMarkedPair) -> tuple[str, str]:
    return (raw.query, raw.title) if isinstance(raw, RawPair) else (raw.first, raw.second)


@functools.cache
def _letter_kinds() -> np.ndarray:
    """uint8 (CODES): 2 for ASCII letters, 1 for other letters, as which all from 0x20000 on count, 0 for the
    rest."""
    kinds = np.array([*map(str.isalpha, map(chr, range(CODES)))]).view(np.uint8)
    kinds[:0x80] *= 2
    kinds[0x20000:] = 1
    return kinds
