"""Sentence splitting for Chinese and English.

Decisions (none is given by the paper):

* Chinese sentences end at 。 ！ ？ and at …… (half-width ! ? where no Latin text follows); ； and ： do not end one.
* Closing quotes and brackets stay with the sentence they close.
* A quotation or a bracket that closes within `MAX_QUOTE` characters is kept whole, whatever stands in it. After it the
  sentence ends when an end mark stands right before the closing quote, unless a comma or the like follows:
  “走吧。”，他说。 is one sentence. A longer quotation is split inside.
* An ellipsis inside a stammer (我……我不知道) or before a comma is a pause, not an end.
* English sentences end at . ! ? before white space and a capital, digit or opening quote; never after a title or an
  initial (Dr. Smith, J. Smith), after other abbreviations (U.S., etc., p.m.) only before a word that opens sentences.
* Text marked Chinese without a single CJK character is split by the English rules.

Nothing is lost: the sentences together are the text, white space at their edges aside.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

MAX_QUOTE = {"zh": 120, "en": 400}
"""Characters of a quotation that is kept whole."""

_PAIRS = {"“": "”", "‘": "’", "「": "」", "『": "』", "《": "》", "〈": "〉", "【": "】", "（": "）", "(": ")",
          "[": "]"}
_BRACKETS = "》〉】）)]"
_CLOSERS = "”’」』\"'" + _BRACKETS
_EVENTS = re.compile("[" + re.escape("".join(_PAIRS) + "".join(_PAIRS.values()) + '"') + "]")
_END_ZH = re.compile(r"[。！？!?…]+|\.{3,}")
_SOFT_ZH = "，、；：。,;:—～·）)]》〉】"
_LETTERS = re.compile(r"[A-Za-z]+")
_END_EN = re.compile(r"[.!?…]+")
_CJK = re.compile("[\u2e80-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_TITLES = _words("mr mrs ms messrs dr prof sr jr gen col capt cpt lt sgt maj cmdr adm rev hon gov sen rep pres fr mme "
                 "mlle vs e.g i.e cf viz figs eq vol vols pp op eds al approx")
_BEFORE_NUMBERS = _words("no nos fig ch sec art ed p")
_BEFORE_NAMES = _words("st mt ft")
_ABBREVIATIONS = _words("etc inc ltd co corp bros dept univ assn ave blvd rd a.m p.m jan feb apr jun jul aug sep sept "
                        "oct nov dec mon tue tues wed thu thur thurs fri ph.d m.d b.a m.a b.c a.d esq")
_OPENING_WORDS = _words("the a an he she it we they i you this that these those there here his her its our their my "
                        "your in on at by for from with to of as but and or so yet if when while after before since "
                        "although though because however then now what why how who where which not no yes")


def split_sentences(text: str, language: str = "zh") -> list[str]:
    """The sentences of a paragraph, in order, without white space at their edges; none is empty.

    Args:
        text: One paragraph.
        language: "zh" or "en".
    """
    english = language == "en" or _CJK.search(text) is None
    kept_whole = _quotations(text, MAX_QUOTE["en" if english else "zh"])
    sentences, start = [], 0
    for end in (_ends_en if english else _ends_zh)(text, kept_whole):
        if end <= start:
            continue
        if _closes_inner_bracket(text, start, end, kept_whole):
            continue
        sentences.append(text[start:end])
        start = end
    sentences.append(text[start:])
    return [sentence for sentence in map(str.strip, sentences) if sentence]


def _quotations(text: str, limit: int) -> dict[int, int]:
    """Outermost quotations and brackets of at most `limit` characters: {closing index: opening index}."""
    spans: list[tuple[int, int]] = []
    stack: list[tuple[str, int]] = []
    # Straight quotes open and close in turn; an odd number of them (inches, a slip) says nothing.
    straight = text.count('"') % 2 == 0
    for event in _EVENTS.finditer(text):
        mark, at = event.group(), event.start()
        if mark == '"' and not straight:
            continue
        # Looking back a few levels is enough, and keeps a million brackets that never close from taking forever.
        depth = next((d for d in range(len(stack) - 1, max(len(stack) - 9, -1), -1) if stack[d][0] == mark), None)
        if depth is None:
            if mark in _PAIRS or mark == '"':
                stack.append((_PAIRS.get(mark, '"'), at))
            continue
        opened = stack[depth][1]
        del stack[depth:]
        if at - opened <= limit:
            while spans and spans[-1][0] > opened:
                spans.pop()
            spans.append((opened, at))
    return {last: first for first, last in spans}


class _Cursor:
    """Tells, for rising positions, whether one lies inside a quotation that is kept whole."""

    def __init__(self, kept_whole: dict[int, int]) -> None:
        self._spans = list(kept_whole.items())
        self._next = 0

    def inside(self, at: int) -> bool:
        """Whether the place before character `at` is inside one."""
        while self._next < len(self._spans) and self._spans[self._next][0] < at:
            self._next += 1
        return self._next < len(self._spans) and self._spans[self._next][1] < at


def _ends_zh(text: str, kept_whole: dict[int, int]) -> Iterator[int]:
    """Where sentences of Chinese text may end: index of the character after the end mark and its closing quotes."""
    quotation = _Cursor(kept_whole)
    for mark in _END_ZH.finditer(text):
        end = _skip_closers(text, mark.end(), kept_whole)
        if quotation.inside(end):
            continue
        following = text[end:end + 1]
        if following and following in _SOFT_ZH:
            continue
        if mark.group()[-1] in "!?." and following.isascii() and following.isalnum():
            continue
        if mark.group()[-1] in "….":
            # A pause: 我……我不知道.
            if mark.end() == end and following and mark.start() > 0 and text[mark.start() - 1] == following:
                continue
            if mark.group() == "…" and mark.end() == end and following:
                continue
        yield end


def _ends_en(text: str, kept_whole: dict[int, int]) -> Iterator[int]:
    """Where sentences of English text may end."""
    quotation = _Cursor(kept_whole)
    for mark in _END_EN.finditer(text):
        end = _skip_closers(text, mark.end(), kept_whole)
        if quotation.inside(end):
            continue
        rest = text[end:end + 40]
        if rest and not rest[0].isspace():
            continue
        following = rest.lstrip()
        first = following.lstrip("\"'“‘([_")[:1]
        if first and not (first.isupper() or first.isdigit() or not first.isalnum() and following[0] in "\"“‘([—"):
            continue
        if mark.group() == "." and mark.end() == end and first and _is_abbreviation(text, mark.start(), following):
            continue
        yield end


def _is_abbreviation(text: str, dot: int, following: str) -> bool:
    """Whether the full stop at `dot` belongs to an abbreviation in mid-sentence."""
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


def _skip_closers(text: str, at: int, kept_whole: dict[int, int]) -> int:
    """Index after the closing quotes and brackets that stand at `at`."""
    while at < len(text) and text[at] in _CLOSERS:
        if text[at] in "\"'" and text[at + 1:at + 2].isalnum() and at not in kept_whole:
            break  # It opens what comes next, or is an apostrophe.
        at += 1
    return at


def _closes_inner_bracket(text: str, start: int, end: int, kept_whole: dict[int, int]) -> bool:
    """Whether `end` is the end of a bracket that opened in mid-sentence: 他（谁知道呢？）走了."""
    if text[end - 1] not in _BRACKETS:
        return False
    opened = kept_whole.get(end - 1)
    return opened is not None and text[start:opened].strip() != "" and end < len(text.rstrip())
