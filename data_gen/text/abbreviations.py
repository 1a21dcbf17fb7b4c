"""English abbreviations: which full stops before a space do not end a sentence.

Titles never end one (Dr. Smith); nor do initials (J. Smith). Others (U.S., etc., p.m.) do before a word that opens
sentences, and those that go with a number (No. 5) unless one follows.
"""

from __future__ import annotations

import re

_LETTERS = re.compile(r"[A-Za-z]+")


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


def is_abbreviation(text: str, dot: int, following: str) -> bool:
    """Whether a full stop belongs to an abbreviation in mid-sentence.

    Args:
        text: The text.
        dot: Index of the full stop.
        following: What comes after it, from the next word on; the first 40 characters or so are enough.
    """
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
