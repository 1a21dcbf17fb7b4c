"""Words, phrases and entities: which tokens belong together.

Chinese: words are jieba's. A phrase is an entry of a phrase dictionary, or two to four jieba words that form a noun
phrase (adjectives, nominal verbs, nouns; the last is a noun) of at most `MAX_PHRASE_CHARS` characters; jieba's idioms
and fixed expressions are single words, so units already. An entity is an entry of an entity dictionary, which may
join words; the names in jieba's own dictionary are single words likewise. An entry that cuts a word leaves the other
parts as words of their own.
English: words are runs of letters and digits, and single punctuation marks; phrases and entities are dictionary
entries, and a run of two to `MAX_NAME_WORDS` capitalised words that does not open a sentence is an entity (a substitute
for a name tagger).
Pieces of one surface word are never parted, whatever a segmenter says.

Texts come many at a time, joined by line feeds, so that array work is done once. No unit reaches over a line feed.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator

import numpy as np

from data_gen.dictionaries import ChineseMatcher, EnglishMatcher, jieba_segmenter
from ernie2.tokenizer import Encoding

MAX_PHRASE_CHARS = 8
MAX_NAME_WORDS = 5

_NOUN_PHRASE = re.compile("[mn]{1,3}n")
# After one of these a capital is the beginning of a sentence, not a name.
_OPENERS = frozenset(".!?:…“‘\"'([—-\n")


class ChineseUnits:
    """Finds the units of Chinese text."""

    def __init__(self, entries: dict[str, bool]) -> None:
        """`entries`: user dictionaries, entry -> True for an entity, False for a phrase."""
        self._matcher = ChineseMatcher(entries) if entries else None
        self._jieba, self._kinds = jieba_segmenter()

    def find(self, text: str, tokens: Encoding, inside: np.ndarray) -> np.ndarray:
        """Where units begin.

        Args:
            text: Sentences joined by line feeds.
            tokens: T tokens of it, T >= 1.
            inside: bool (T), pieces that continue a surface word.

        Returns:
            bool (3, T): a word, phrase, entity begins at this token.
        """
        words = self._jieba.lcut(text)
        stops = np.cumsum([len(word) for word in words])
        # (3, characters + 1): 1 where a unit of the level begins.
        begins = np.zeros((3, len(text) + 1), np.int8)
        begins[:, 0] = begins[:, stops] = 1
        matches = self._matches(text, tokens, inside, words, stops)
        for first, last, _ in matches:
            begins[:, (first, last)] = 1
        for first, last, is_entity in matches:
            begins[2 if is_entity else 1, first + 1:last] = 0
        taken = np.zeros(len(text) + 1, bool)
        for first, last, is_entity in matches:
            # A phrase that is one word may well be part of a longer noun phrase; a name may not.
            taken[first:last] = is_entity or last - first > 4 or begins[0, first + 1:last].any()
        for first, last in self._noun_phrases(words, stops):
            if not taken[first:last].any():
                begins[1, first + 1:last] = 0
        units = np.cumsum(begins, axis=1, dtype=np.int32)[:, tokens.starts]
        found = np.ones((3, len(inside)), bool)
        np.not_equal(units[:, 1:], units[:, :-1], out=found[:, 1:])
        return found & ~inside

    def _matches(self, text: str, tokens: Encoding, inside: np.ndarray, words: list[str],
                 stops: np.ndarray) -> list[tuple[int, int, bool]]:
        """Dictionary matches (first, last, is_entity) in characters."""
        if self._matcher is None:
            return []
        edges = np.zeros(len(text) + 1, np.uint8)
        known = self._jieba.FREQ
        for word, stop in zip(words, stops.tolist()):
            if len(word) > 1 and not known.get(word):
                edges[stop - len(word):stop] = 1
        edges[0] = 2
        edges[stops] = 2
        wide = np.flatnonzero(tokens.ends - tokens.starts > 1)
        for first, last in zip(tokens.starts[wide].tolist(), tokens.ends[wide].tolist()):
            edges[first + 1:last] = 0
        edges[tokens.starts[inside]] = 0
        return self._matcher.find(text, edges)

    def _noun_phrases(self, words: list[str], stops: np.ndarray) -> Iterator[tuple[int, int]]:
        """Noun phrases [first, last) in characters, leftmost and longest first, by the tags of their words."""
        kinds = self._kinds
        pattern = "".join([kinds.get(word, ".") for word in words])
        found = _NOUN_PHRASE.search(pattern)
        while found is not None:
            at, stop = found.start(), found.end()
            first = int(stops[at]) - len(words[at])
            while stop - at > 1 and (pattern[stop - 1] != "n" or stops[stop - 1] - first > MAX_PHRASE_CHARS):
                stop -= 1
            if stop - at > 1:
                yield first, int(stops[stop - 1])
            found = _NOUN_PHRASE.search(pattern, stop if stop - at > 1 else at + 1)


class EnglishUnits:
    """Finds the units of English text."""

    def __init__(self, entries: dict[str, bool]) -> None:
        """`entries`: user dictionaries, entry -> True for an entity, False for a phrase."""
        self._matcher = EnglishMatcher(entries)

    def find(self, text: str, tokens: Encoding, inside: np.ndarray) -> np.ndarray:
        """Where units begin: arguments and result as in `ChineseUnits.find`."""
        first, _, surface = surface_words(text, tokens, inside)
        found = np.repeat(~inside[None], 3, axis=0)
        # A line feed between two words is a word of its own here, so that nothing reaches over it.
        lines = np.searchsorted(tokens.starts[first], [at for at, mark in enumerate(text) if mark == "\n"]).tolist()
        for start, stop in zip([0, *lines], [*lines, len(surface)]):
            self._sentence(surface[start:stop], first[start:stop], found)
        return found

    def _sentence(self, words: list[str], first: np.ndarray, found: np.ndarray) -> None:
        """Joins the words of a sentence's phrases and entities in `found`; `first` is the first token of each word."""
        taken = [False] * len(words)
        for start, stop, is_entity in self._matcher.find(words):
            found[2 if is_entity else 1, first[start + 1:stop]] = False
            taken[start:stop] = [True] * (stop - start)
        for start, stop in _names(words, taken):
            found[2, first[start + 1:stop]] = False


def surface_words(text: str, tokens: Encoding, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Words as they are written.

    Returns:
        int64 (W) first token and int64 (W) number of tokens of each word, and the words.
    """
    first = np.flatnonzero(~inside)
    sizes = np.diff(first, append=len(inside))
    starts, ends = tokens.starts[first].tolist(), tokens.ends[first + sizes - 1].tolist()
    return first, sizes, [text[a:b] for a, b in zip(starts, ends)]


@functools.lru_cache(maxsize=1 << 16)
def capital_label(word: str) -> int:
    """1: begins with a capital; 0: has cased letters but does not begin with a capital; -100: has none."""
    if word.lower() == word.upper():
        return -100
    return int(word[0].isupper() or word[0].istitle())


def _names(words: list[str], taken: list[bool]) -> Iterator[tuple[int, int]]:
    """Runs of capitalised words that may be names; a heading in capitals has none."""
    labels = [capital_label(word) for word in words]
    if 1 not in labels or 0 not in labels:
        return
    fits = [label == 1 and not used for label, used in zip(labels, taken)]
    start = 1
    while start < len(words):
        if not fits[start] or words[start - 1] in _OPENERS or words[start] == "I":
            start += 1
            continue
        stop = start + 1
        while stop < len(words) and fits[stop] and stop - start < MAX_NAME_WORDS:
            stop += 1
        if stop - start > 1:
            yield start, stop
        start = stop
