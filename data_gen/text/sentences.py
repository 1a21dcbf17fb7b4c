"""Sentence splitting for Chinese and English.

Rules (the paper has none):

* Chinese sentences end at 。 ！ ？ and at …… (half-width ! ? unless Latin text follows); ； and ： do not end
  one.
* Closing quotes and brackets stay with the sentence they close.
* A quotation or bracket that closes within `MAX_QUOTE` characters is kept whole, whatever stands in it. After
  it the sentence ends when an end mark stands right before the closing quote, unless a comma or the like
  follows: “走吧。”，他说。 is one sentence. A longer quotation is split inside.
* An ellipsis inside a stammer (我……我不知道) or before a comma is a pause, not an end.
* English sentences end at . ! ? before white space and a capital, digit or opening quote; never after a title
  or initial (Dr. Smith, J. Smith), after other abbreviations (U.S., etc., p.m.) only before a word that opens
  sentences.
* Lines of Chinese text without a CJK character are split by the English rules.
* A sentence longer than `MAX_SENTENCE_CHARS` is cut at a comma or a space.

Nothing is lost: the sentences together are the text but for white space at their edges. Whole blocks are
split at once by numpy; only quotations, which need a stack, and English full stops, which need words, take a
loop."""

import re
from typing import NamedTuple

import numpy as np

from ernie2.characters import code_points, to_text

MAX_SENTENCE_CHARS = 2_000
MAX_QUOTE = {"zh": 120, "en": 400}
"""Characters of a quotation that is kept whole."""

_QUOTES = dict(zip('“‘「『《〈【（(["', '”’」』》〉】）)]"'))
_QUOTE_LEVELS = 8  # a mark closes one of the last 8 open; bounds the time that a million open brackets take
_BRACKETS = "》〉】）)]"
_CLOSERS = "”’」』\"'" + _BRACKETS
_BREAK = re.compile(r"[，、；：,;:\s]")
_INK = re.compile(r"\S")

# Kinds of characters, as bits; a line has those of its characters.
_SPACE, _END, _DOT, _CLOSER, _SOFT, _QUOTE, _CJK, _ALNUM = (1 << bit for bit in range(8))
_FULL_WIDTH = 0x3000  # 。！？ are beyond, ! ? … before


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
        _QUOTE: "".join([*_QUOTES, *_QUOTES.values()]),
        _ALNUM: filter(str.isalnum, map(chr, range(0x80))),
    }
    for kind, characters in classes.items():
        kinds[[ord(character) for character in {*characters}]] |= kind
    return kinds


_KINDS = _kinds()


def split_sentences(text: str, language: str = "zh") -> list[str]:
    """The sentences of one paragraph, trimmed, none empty; `language`: "zh" or "en"."""
    return [text[first:last] for first, last in _Lines(text.replace("\n", " "), language).spans().tolist()]


def sentence_spans(text: str, language: str = "zh") -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Places of the sentences of a text of many lines, each a paragraph; `language`: "zh" or "en".

    Returns:
        int32 (S, 2), [first, last) of each sentence in characters, trimmed, none empty, none longer than
        `MAX_SENTENCE_CHARS`; and [first, last) of those that were longer."""
    spans = _Lines(text, language).spans()
    too_long = np.flatnonzero(spans[:, 1] - spans[:, 0] > MAX_SENTENCE_CHARS)
    long_sentences = [(first, last) for first, last in spans[too_long].tolist()]
    if long_sentences:
        pieces = [piece for first, last in long_sentences for piece in cut_long(text, first, last)]
        spans = np.concatenate([np.delete(spans, too_long, axis=0), np.array(pieces, np.int32)])
        spans = spans[np.argsort(spans[:, 0])]
    return spans, long_sentences


def cut_long(text: str, first: int, last: int) -> list[tuple[int, int]]:
    """A sentence [first, last) in pieces of at most `MAX_SENTENCE_CHARS`, trimmed, none empty, that end at a
    comma, a space or, failing both, anywhere."""
    pieces = []
    while last - first > MAX_SENTENCE_CHARS:
        stop = first + MAX_SENTENCE_CHARS
        for found in _BREAK.finditer(text, first + MAX_SENTENCE_CHARS // 2, first + MAX_SENTENCE_CHARS):
            stop = found.end()
        pieces.append((first, first + len(text[first:stop].rstrip())))
        first = _INK.search(text, stop).start()
    return [*pieces, (first, last)]


class _Marks(NamedTuple):
    """M end marks, all arrays int (M,), rising.

    Attributes:
        starts: First character of each.
        stops: One past its last character.
        ends: Where a sentence may end: one past the closing quotes and brackets after it."""

    starts: np.ndarray
    stops: np.ndarray
    ends: np.ndarray

    def where(self, chosen: np.ndarray) -> "_Marks":
        """Those that a mask or an array of indices chooses."""
        return _Marks(*(array[chosen] for array in self))


class _Lines:
    """A text between two line feeds, so that every character has one before and one after it."""

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
        """int32 (S, 2): [first, last) of every sentence of the text, without the line feeds around it."""
        ends = [self.feeds]
        if not self.english.all():
            ends.append(self._without_inner_brackets(self._ends_zh()))
        if self.english.any():
            ends.append(self._without_inner_brackets(self._ends_en()))
        # Trimmed: from the first ink after an edge to the last before the next.
        at = np.unique(np.searchsorted(self.ink, np.concatenate(ends)))
        return np.stack([self.ink[at[:-1]] - 1, self.ink[at[1:] - 1]], axis=1).astype(np.int32)

    def _where(self, kinds: int) -> np.ndarray:
        """Places of the characters of any of these kinds."""
        return np.flatnonzero(self.kinds & kinds != 0)

    def _line_of(self, places: np.ndarray) -> np.ndarray:
        """Line of each place: `feeds[line] < place <= feeds[line + 1]`."""
        return np.searchsorted(self.feeds, places) - 1

    def _ink_before(self, places: np.ndarray) -> np.ndarray:
        """Characters other than white space before each place."""
        return np.searchsorted(self.ink, places)

    def _quotations(self) -> tuple[np.ndarray, np.ndarray]:
        """Outermost quotations and brackets of at most MAX_QUOTE characters: where they open and close."""
        at = self._where(_QUOTE)
        line = self._line_of(at)
        # Straight quotes open and close in turn; an odd number in a line (inches, a slip) means nothing.
        straight = self.codes[at] == ord('"')
        odd = np.bincount(line[straight], minlength=len(self.feeds)) % 2 == 1
        kept = ~(straight & odd[line])
        at, line = at[kept], line[kept]
        limits = np.where(self.english[line], MAX_QUOTE["en"], MAX_QUOTE["zh"])
        spans = _outermost(to_text(self.codes[at]), at.tolist(), line.tolist(), limits.tolist())
        opened, closed = np.array(spans, np.int64).reshape(-1, 2).T
        return opened, closed

    def _marks(self, places: np.ndarray, english: bool, at_least: int = 1) -> _Marks:
        """Runs of at least so many end marks, outside quotations, in lines of one language."""
        places = places[self.english[self._line_of(places)] == english]
        edges = np.flatnonzero(np.diff(places) != 1) + 1
        starts = places[np.append(0, edges)[: len(places)]]
        stops = places[np.append(edges - 1, -1)[: len(places)]] + 1
        long_enough = stops - starts >= at_least
        starts, stops = starts[long_enough], stops[long_enough]
        ends = stops.copy()
        for index in np.flatnonzero(self.kinds[stops] & _CLOSER).tolist():
            ends[index] = self._skip_closers(int(stops[index]))
        opened = np.append(self.opened, len(self.codes))[np.searchsorted(self.closed, ends)]
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
        """End marks of sentences in Chinese lines, brackets in mid-sentence included."""
        words = self._marks(self._where(_END), False)
        dots = self._marks(self._where(_DOT), False, at_least=3)
        marks = _Marks(*map(np.concatenate, zip(words, dots)))
        marks = marks.where(np.argsort(marks.starts))
        last, following = self.codes[marks.stops - 1], self.codes[marks.ends]
        follows = self.kinds[marks.ends]
        goes_on = (follows & _SOFT != 0) | (follows & _ALNUM != 0) & (last < 0x80)
        ellipsis = last == ord("…")
        stammer = (self.codes[marks.starts - 1] == following) & (ellipsis | (last == ord(".")))
        pause = stammer | ellipsis & (marks.stops - marks.starts == 1)
        in_line = (marks.ends == marks.stops) & (following != ord("\n"))
        return marks.where(~(goes_on | pause & in_line))

    def _ends_en(self) -> _Marks:
        """End marks of sentences in English lines, brackets in mid-sentence included."""
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
        at = at[text_follows & np.isin(self.codes[ends[at] - 1], [*map(ord, _BRACKETS)])]
        follows = (at > 0) & (line[at - 1] == line[at])
        begun = self._ink_before(np.where(follows, ends[at - 1], self.feeds[line[at]])).tolist()
        opened = self._ink_before(self.opened[bracket[at]]).tolist()
        begin_of: dict[int, int] = {}  # of ends left out: where the sentence that goes on began
        for index, on, begin, before in zip(at.tolist(), follows.tolist(), begun, opened):
            begin = begin_of.get(index - 1, begin) if on else begin
            if before > begin:
                begin_of[index] = begin
        return np.delete(ends, [*begin_of])


def _outermost(marks: str, at: list[int], lines: list[int], limits: list[int]) -> list[tuple[int, int]]:
    """Where outermost quotations open and close, by their marks in order and the place, line and limit of
    each."""
    spans, stack, current = [], [], -1
    for mark, place, line, limit in zip(marks, at, lines, limits, strict=True):
        if line != current:
            stack, current = [], line
        depth, lowest = len(stack) - 1, max(len(stack) - _QUOTE_LEVELS, 0)
        while depth >= lowest and stack[depth][0] != mark:
            depth -= 1
        if depth >= lowest:
            first = stack[depth][1]
            del stack[depth:]
            if place - first <= limit:
                while spans and spans[-1][0] > first:
                    spans.pop()
                spans.append((first, place))
        elif mark in _QUOTES:
            stack.append((_QUOTES[mark], place))
    return spans


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
    """Whether the full stop at index `dot` belongs to an abbreviation in mid-sentence.

    `following`: the text from the next word on; the first 40 characters or so are enough."""
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
