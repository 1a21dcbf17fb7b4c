"""Sentence splitting for Chinese and English.

Decisions (none is given by the paper):

* Chinese sentences end at 。 ！ ？ and at …… (half-width ! ? where no Latin text follows); ； and ： do not
end one.
* Closing quotes and brackets stay with the sentence they close.
* A quotation or a bracket that closes within `MAX_QUOTE` characters is kept whole, whatever stands in it.
After it the
  sentence ends when an end mark stands right before the closing quote, unless a comma or the like follows:
  “走吧。”，他说。 is one sentence. A longer quotation is split inside.
* An ellipsis inside a stammer (我……我不知道) or before a comma is a pause, not an end.
* English sentences end at . ! ? before white space and a capital, digit or opening quote; never after a title
or an
  initial (Dr. Smith, J. Smith), after other abbreviations (U.S., etc., p.m.) only before a word that opens
  sentences.
* Lines of Chinese text without a single CJK character are split by the English rules.
* A sentence longer than `MAX_SENTENCE_CHARS` is cut at a comma or a space.

Nothing is lost: the sentences together are the text, white space at their edges aside.

A block of text is split in one go. What holds for every character or every end mark is done by numpy;
quotations, which need a stack, and what follows an English full stop, which needs words, take a loop over
those few places."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

from data_gen.text.quotations import PAIRS, outermost
from ernie2.characters import code_points

MAX_SENTENCE_CHARS = 2_000
"""A longer "sentence" (a table, text without punctuation) is cut into several."""
MAX_QUOTE = {"zh": 120, "en": 400}
"""Characters of a quotation that is kept whole."""

_BRACKETS = "》〉】）)]"
_CLOSERS = "”’」』\"'" + _BRACKETS
_BRACKET_CODES = [ord(bracket) for bracket in _BRACKETS]
_BREAK = re.compile(r"[，、；：,;:\s]")
_INK = re.compile(r"\S")

# What a character may be, as bits; a line has those of its characters.
_SPACE, _END, _DOT, _CLOSER, _SOFT, _QUOTE, _CJK, _ALNUM = (1 << bit for bit in range(8))
_FULL_WIDTH = 0x3000  # 。！？ lie beyond, ! ? … before


def _kinds() -> np.ndarray:
    """uint8 (0x110000): kinds of every code point."""
    kinds = np.zeros(0x110000, dtype=np.uint8)
    for first, stop in ((0x2E80, 0xA000), (0xF900, 0xFB00), (0x20000, 0x40000)):
        kinds[first:stop] |= _CJK
    classes = {
        _SPACE: filter(str.isspace, map(chr, range(0x10000))),
        _END: "。！？!?…",
        _DOT: ".",
        _CLOSER: _CLOSERS,
        _SOFT: "，、；：。,;:—～·）)]》〉】",
        _QUOTE: "".join([*PAIRS, *PAIRS.values()]),
        _ALNUM: filter(str.isalnum, map(chr, range(0x80))),
    }
    for kind, characters in classes.items():
        kinds[[ord(character) for character in {*characters}]] |= kind
    return kinds


_KINDS = _kinds()


def split_sentences(text: str, language: str = "zh") -> list[str]:
    """The sentences of a paragraph, in order, without white space at their edges; none is empty.

    Args:
        text: One paragraph.
        language: "zh" or "en"."""
    return [text[first:last] for first, last in _Lines(text.replace("\n", " "), language).spans().tolist()]


def sentence_spans(text: str, language: str = "zh") -> tuple[np.ndarray, list[tuple[int, int]]]:
    """The sentences of a text of many lines, by position: those of `split_sentences` line by line, long ones
    cut.

    Args:
        text: Any text; a line feed ends a paragraph, and with it a sentence.
        language: "zh" or "en".

    Returns:
        int32 (S, 2), [first, last) of each sentence in characters of `text`, in order, without white space at
        the edges, none empty, none longer than `MAX_SENTENCE_CHARS`; and [first, last) of those that were
        longer."""
    spans = _Lines(text, language).spans()
    too_long = np.flatnonzero(spans[:, 1] - spans[:, 0] > MAX_SENTENCE_CHARS)
    long_sentences = [(first, last) for first, last in spans[too_long].tolist()]
    if long_sentences:
        pieces = [np.array(cut_long(text, first, last), dtype=np.int32) for first, last in long_sentences]
        others = np.split(np.delete(spans, too_long, axis=0), too_long - np.arange(len(too_long)))
        spans = np.concatenate([part for pair in zip(others, [*pieces, spans[:0]]) for part in pair])
    return spans, long_sentences


def cut_long(text: str, first: int, last: int) -> list[tuple[int, int]]:
    """[first, last) itself, or stretches of it that end at a comma, a space or, failing both, anywhere.

    Args:
        text: The text.
        first: First character of a sentence without white space at its edges.
        last: One past its last character.

    Returns:
        [first, last) of stretches of at most `MAX_SENTENCE_CHARS`, in order, trimmed, none empty."""
    pieces = []
    while last - first > MAX_SENTENCE_CHARS:
        stop = first + MAX_SENTENCE_CHARS
        for found in _BREAK.finditer(text, first + MAX_SENTENCE_CHARS // 2, first + MAX_SENTENCE_CHARS):
            stop = found.end()
        pieces.append((first, first + len(text[first:stop].rstrip())))
        first = _INK.search(text, stop).start()
    return [*pieces, (first, last)]


class _Marks(NamedTuple):
    """End marks. M of them, all arrays int (M,), rising.

    Attributes:
        starts: First character of each.
        stops: One past its last character.
        ends: Where a sentence may end: one past the closing quotes and brackets after it."""

    starts: np.ndarray
    stops: np.ndarray
    ends: np.ndarray

    def where(self, chosen: np.ndarray) -> _Marks:
        """Those that a mask or an array of indices chooses."""
        return _Marks(self.starts[chosen], self.stops[chosen], self.ends[chosen])

    def with_others(self, others: _Marks) -> _Marks:
        """These and those, in order."""
        if len(others.starts) == 0:
            return self
        both = _Marks(*map(np.concatenate, zip(self, others)))
        return both.where(np.argsort(both.starts))


class _Lines:
    """Text of many lines. A line feed at either end saves asking what is before the first character, after
    the last."""

    def __init__(self, text: str, language: str) -> None:
        self.text = f"\n{text}\n"
        self.codes = code_points(self.text)
        self.kinds = _KINDS.take(self.codes)
        self.feeds = np.flatnonzero(self.codes == ord("\n"))
        self.ink = np.flatnonzero((self.kinds & _SPACE) == 0)
        if language == "en":
            self.english = np.ones(len(self.feeds) - 1, dtype=bool)
        else:
            self.english = np.bitwise_or.reduceat(self.kinds, self.feeds)[:-1] & _CJK == 0
        self.opened, self.closed = self._quotations()
        self._closed = frozenset(self.closed.tolist())

    def spans(self) -> np.ndarray:
        """int32 (S, 2): [first, last) of every sentence in the text as it was given."""
        ends = [self.feeds]
        if not self.english.all():
            ends.append(self._without_inner_brackets(self._ends_zh()))
        if self.english.any():
            ends.append(self._without_inner_brackets(self._ends_en()))
        edges = np.sort(np.concatenate(ends))
        # Without white space: the first ink from each edge on, and the last before the next edge.
        at = np.searchsorted(self.ink, edges)
        at = at[np.flatnonzero(np.diff(at, prepend=-1))]
        spans = (
            np.stack([self.ink[at[:-1]] - 1, self.ink[at[1:] - 1]], axis=1)
            if len(at) > 1
            else np.zeros((0, 2))
        )
        return spans.astype(np.int32)

    def _where(self, kinds: int) -> np.ndarray:
        """Places of the characters that are of one of these kinds."""
        return np.flatnonzero(self.kinds & kinds != 0)

    def _line_of(self, places: np.ndarray) -> np.ndarray:
        """Line of each place: `feeds[line] < place <= feeds[line + 1]`."""
        return np.searchsorted(self.feeds, places) - 1

    def _quotations(self) -> tuple[np.ndarray, np.ndarray]:
        """Outermost quotations and brackets of at most MAX_QUOTE characters: where they open, and where they
        close."""
        at = self._where(_QUOTE)
        line = self._line_of(at)
        return outermost(
            self.codes[at], at, line, np.where(self.english[line], MAX_QUOTE["en"], MAX_QUOTE["zh"])
        )

    def _marks(self, places: np.ndarray, english: bool, at_least: int = 1) -> _Marks:
        """Runs of the end marks at `places`, in lines of one language, that do not stand inside a
        quotation."""
        places = places[self.english[self._line_of(places)] == english]
        edges = np.flatnonzero(np.diff(places) != 1) + 1
        starts = places[np.append(0, edges)[: len(places)]]
        stops = places[np.append(edges - 1, -1)[: len(places)]] + 1
        long_enough = stops - starts >= at_least
        starts, stops = starts[long_enough], stops[long_enough]
        ends = stops.copy()
        for index in np.flatnonzero(self.kinds[stops] & _CLOSER).tolist():
            ends[index] = self._skip_closers(int(stops[index]))
        following = np.searchsorted(self.closed, ends)
        opened = np.append(self.opened, len(self.codes))[following]
        return _Marks(starts, stops, ends).where(opened >= ends)

    def _skip_closers(self, at: int) -> int:
        """Where the closing quotes and brackets that stand at `at` end."""
        text = self.text
        while text[at] in _CLOSERS:
            if text[at] in "\"'" and text[at + 1].isalnum() and at not in self._closed:
                break  # It opens what comes next, or is an apostrophe.
            at += 1
        return at

    def _ends_zh(self) -> _Marks:
        """End marks at which sentences end in Chinese lines, brackets in mid-sentence aside."""
        words = self._marks(self._where(_END), False)
        dots = self._marks(self._where(_DOT), False, at_least=3)
        marks = words.with_others(dots)
        last, following = self.codes[marks.stops - 1], self.codes[marks.ends]
        follows = self.kinds[marks.ends]
        goes_on = (follows & _SOFT != 0) | (follows & _ALNUM != 0) & (last < 0x80)
        stammer = (self.codes[marks.starts - 1] == following) & (
            (last == ord("…")) | (last == ord("."))
        )  # 我……我不知道
        pause = stammer | (last == ord("…")) & (marks.stops - marks.starts == 1)
        in_line = (marks.ends == marks.stops) & (following != ord("\n"))
        return marks.where(~(goes_on | pause & in_line))

    def _ends_en(self) -> _Marks:
        """End marks at which sentences end in English lines, brackets in mid-sentence aside."""
        places = self._where(_END | _DOT)
        marks = self._marks(places[self.codes[places] < _FULL_WIDTH], True)
        marks = marks.where(self.kinds[marks.ends] & _SPACE != 0)
        places = zip(marks.starts.tolist(), marks.stops.tolist(), marks.ends.tolist())
        return marks.where(np.array([_ends_here(self.text, *place) for place in places], dtype=bool))

    def _without_inner_brackets(self, marks: _Marks) -> np.ndarray:
        """Ends but for those after a bracket that opened in mid-sentence: 他（谁知道呢？）走了."""
        ends, line = marks.ends, self._line_of(marks.ends)
        bracket = np.searchsorted(self.closed, ends - 1)
        at = np.flatnonzero(np.append(self.closed, -1)[bracket] == ends - 1)
        text_follows = self._ink_before(ends[at]) < self._ink_before(self.feeds[line[at] + 1])
        at = at[text_follows & np.isin(self.codes[ends[at] - 1], _BRACKET_CODES)]
        follows = (at > 0) & (line[at - 1] == line[at])
        begun = self._ink_before(np.where(follows, ends[at - 1], self.feeds[line[at]])).tolist()
        opened = self._ink_before(self.opened[bracket[at]]).tolist()
        begin_of: dict[int, int] = {}  # of ends left out: where the sentence that goes on began
        for index, on, begin, before in zip(at.tolist(), follows.tolist(), begun, opened):
            begin = begin_of.get(index - 1, begin) if on else begin
            if before > begin:
                begin_of[index] = begin
        return np.delete(ends, [*begin_of])

    def _ink_before(self, places: np.ndarray) -> np.ndarray:
        """How many characters other than white space stand before each place."""
        return np.searchsorted(self.ink, places)


def _ends_here(text: str, start: int, stop: int, end: int) -> bool:
    """Whether an English sentence ends at the mark [start:stop), before white space at `end`."""
    following = text[end : end + 40].partition("\n")[0].lstrip()
    first = following.lstrip("\"'“‘([_")[:1]
    if not first:
        return True
    if not (first.isupper() or first.isdigit() or not first.isalnum() and following[0] in '"“‘([—'):
        return False
    return not (start + 1 == stop == end and text[start] == "." and is_abbreviation(text, start, following))


_LETTERS = re.compile(r"[A-Za-z]+")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_TITLES = _words(
    "mr mrs ms messrs dr prof sr jr gen col capt cpt lt sgt maj cmdr adm rev hon gov sen rep pres fr mme "
    "mlle vs e.g i.e cf viz figs eq vol vols pp op eds al approx"
)
_BEFORE_NUMBERS = _words("no nos fig ch sec art ed p")
_BEFORE_NAMES = _words("st mt ft")
_ABBREVIATIONS = _words(
    "etc inc ltd co corp bros dept univ assn ave blvd rd a.m p.m jan feb apr jun jul aug sep sept "
    "oct nov dec mon tue tues wed thu thur thurs fri ph.d m.d b.a m.a b.c a.d esq"
)
_OPENING_WORDS = _words(
    "the a an he she it we they i you this that these those there here his her its our their my "
    "your in on at by for from with to of as but and or so yet if when while after before since "
    "although though because however then now what why how who where which not no yes"
)


def is_abbreviation(text: str, dot: int, following: str) -> bool:
    """Whether a full stop belongs to an abbreviation in mid-sentence.

    Args:
        text: The text.
        dot: Index of the full stop.
        following: What comes after it, from the next word on; the first 40 characters or so are enough."""
    begin = dot
    while begin > 0 and (text[begin - 1].isalnum() or text[begin - 1] == "."):
        begin -= 1
    word = text[begin:dot]
    lower = word.lower()
    if lower in _TITLES:
        return True
    if lower in _BEFORE_NUMBERS:
        return following[:1].isdigit()
    next_word = _LETTERS.match(following)
    opens = next_word is not None and next_word.group().lower() in _OPENING_WORDS
    if len(word) == 1 and word.isupper():
        # J. A. Smith: the A here is an initial, not an article.
        return word != "I" and not (opens and len(next_word.group()) > 1)
    dotted = "." in word and all(len(part) == 1 for part in word.split("."))
    return not opens and (dotted or lower in _ABBREVIATIONS or lower in _BEFORE_NAMES)
