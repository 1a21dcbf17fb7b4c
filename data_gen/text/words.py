"""Words, phrases and entities: which tokens belong together.

Chinese: words are jieba's. A phrase is an entry of a phrase dictionary, or two to four jieba words that form
a noun phrase (adjectives, nominal verbs, nouns; the last is a noun) of at most `MAX_PHRASE_CHARS` characters;
jieba's idioms and fixed expressions are single words, so units already. An entity is an entry of an entity
dictionary, which may join words; the names in jieba's own dictionary are single words likewise. An entry that
cuts a word leaves the other parts as words of their own. Short entries that a function word opens or closes
in the text (和|文化) are not taken. English: words are runs of letters and digits, and single punctuation
marks; phrases and entities are dictionary entries, and a run of two to `MAX_NAME_WORDS` capitalised words
that does not open a sentence is an entity (a substitute for a name tagger). Pieces of one surface word are
never parted, whatever a segmenter says.

Texts come many at a time, joined by line feeds, so that array work is done once. No unit reaches over a line
feed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from data_gen.text.dictionaries import ChineseMatcher, EnglishMatcher, Entries, Matches, codes_of
from data_gen.text.hash_table import leftmost, symbols_of
from data_gen.text.lexicon import MODIFIER, NOUN, UNKNOWN, jieba_lexicon
from data_gen.text.segmenters import load_segmenter
from data_gen.text.tokens import ALL_LEVELS, CASED_CODES, ENTITY, PHRASE, WORD, case_tables
from ernie2.tokenizer import Encoding

MAX_PHRASE_CHARS, MAX_PHRASE_WORDS = 8, 4
MAX_NAME_WORDS = 5
MAX_DOUBTFUL_CHARS = 4
"""A longer entry is found even where a function word opens or closes it."""
FUNCTION_WORDS = (
    "的了着过地得在是和与及或而但并也都就还又很更最再不没无有被把将使让给对从自由向往到至比按当因"
    "所以于之其这那此该每各我你您他她它们里等吗呢吧啊"
)

_IS_FUNCTION_WORD = np.zeros(1 << 16, bool)  # by symbol; the last stands for all beyond
_IS_FUNCTION_WORD[symbols_of(FUNCTION_WORDS)] = True
# After one of these a capital is the beginning of a sentence, not a name.
_OPENERS = np.array(sorted(map(ord, ".!?:…“‘\"'([—-")))


class _Units:
    """What finds units, and the dictionary entries among them.

    Attributes:
        kinds: The dictionary entries: word -> True for an entity, False for a phrase."""

    def __init__(self, entries: Mapping[str, bool]) -> None:
        self.kinds = Entries.of(entries)
        self._found: list[np.ndarray] = []

    def take_hits(self) -> dict[int, int]:
        """Row of each entry that was found since the last call -> how often."""
        rows, counts = np.unique(np.concatenate([np.zeros(0, np.int32), *self._found]), return_counts=True)
        self._found = []
        return dict(zip(rows.tolist(), counts.tolist(), strict=True))


class ChineseUnits(_Units):
    """Finds the units of Chinese text.

    Attributes:
        segmenter: What cuts the words."""

    def __init__(self, entries: Mapping[str, bool], segmenter: str = "auto") -> None:
        """Loads what is needed, in half a second.

        Args:
            entries: User dictionaries (`data_gen.text.dictionaries.load_entries`).
            segmenter: A name of `data_gen.text.segmenters`.

        Raises:
            ConfigError: the segmenter is unknown or not installed."""
        super().__init__(entries)
        self.segmenter = load_segmenter(segmenter)
        self._matcher = ChineseMatcher(self.kinds) if self.kinds else None
        self._lexicon = jieba_lexicon()

    def find(self, text: str, tokens: Encoding, inside: np.ndarray) -> np.ndarray:
        """What begins at each token.

        Args:
            text: Sentences joined by line feeds.
            tokens: T tokens of it.
            inside: bool (T), pieces that continue a surface word.

        Returns:
            uint8 (T): the sum of WORD, PHRASE, ENTITY for the levels of which a unit begins at the token.
            Where there is no phrase (entity), words are the units of that level."""
        if len(inside) == 0:
            return np.zeros(0, np.uint8)
        symbols = symbols_of(text)
        stops = self.segmenter.stops(text)
        first = np.append(0, stops[:-1])
        kinds = self._lexicon.kinds(symbols, first, stops - first)
        # At each character, and behind the last: what begins there.
        begins = np.zeros(len(text) + 1, np.uint8)
        begins[first] = begins[-1] = ALL_LEVELS
        phrase_words, phrase_sizes = _noun_phrases(kinds, first, stops)
        if self._matcher is not None:
            matches = self._matcher.find(
                symbols, _edges(len(text), tokens, inside, first, stops, kinds == UNKNOWN)
            )
            matches.keep(~_of_function_words(matches, symbols, first))
            self._found.append(matches.rows)
            taken_first, taken_last = _join_matches(begins, matches)
            phrase_stops = stops[phrase_words + phrase_sizes - 1]
            nearest = np.searchsorted(taken_last, first[phrase_words], "right")
            free = phrase_stops <= np.append(taken_first, len(text))[nearest]
            phrase_words, phrase_sizes = phrase_words[free], phrase_sizes[free]
        for place in range(1, MAX_PHRASE_WORDS):
            begins[first[phrase_words[phrase_sizes > place] + place]] &= ~np.uint8(PHRASE)
        return _at_tokens(begins, tokens.starts, inside)


def _of_function_words(matches: Matches, symbols: np.ndarray, first: np.ndarray) -> np.ndarray:
    """bool (M): short matches whose first or last word is a function word: 和|文化 and 时间|里 are no names
    here."""
    is_edge = np.zeros(len(symbols) + 1, bool)
    is_edge[first] = True
    last = matches.last - 1
    opens, closes = (
        _IS_FUNCTION_WORD.take(symbols.take(places).view(np.int64), mode="clip")
        for places in (matches.first, last)
    )
    found = opens & is_edge[matches.first + 1] | closes & is_edge[last]
    return found & (matches.last - matches.first <= MAX_DOUBTFUL_CHARS)


def _noun_phrases(kinds: np.ndarray, first: np.ndarray, stops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Noun phrases, leftmost and longest first, by the kinds of their words: first word, number of words (two
    int64 (P))."""
    fits = kinds >= MODIFIER
    at = np.flatnonzero(fits[:-1] & fits[1:])
    sizes, more = np.zeros(len(at), np.int64), np.arange(len(at))
    for size in range(2, MAX_PHRASE_WORDS + 1):
        last = at[more] + size - 1
        more = more[last < len(kinds)]
        more = more[fits[at[more] + size - 1]]
        last = at[more] + size - 1
        sizes[more[(kinds[last] == NOUN) & (stops[last] - first[at[more]] <= MAX_PHRASE_CHARS)]] = size
    at, sizes = at[sizes > 0], sizes[sizes > 0]
    kept = leftmost(at, at + sizes)
    return at[kept], sizes[kept]


def _edges(
    size: int, tokens: Encoding, inside: np.ndarray, first: np.ndarray, stops: np.ndarray, guessed: np.ndarray
) -> np.ndarray:
    """uint8 (size + 1), places between characters: 0 where no match may begin or end, 2 where a word does, 1
    elsewhere."""
    guessed = np.flatnonzero(guessed & (stops - first > 1))
    edges = np.zeros(size + 1, np.uint8)
    edges[_inner(first.take(guessed), stops.take(guessed))] = 1
    edges[first] = edges[size] = 2
    wide = np.flatnonzero(tokens.ends - tokens.starts > 1)
    edges[_inner(tokens.starts.take(wide), tokens.ends.take(wide))] = 0
    edges[tokens.starts.take(np.flatnonzero(inside))] = 0
    return edges


def _inner(first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """The places within spans: those of [first + 1, last) of each, end to end."""
    sizes = last - first - 1
    ends = np.cumsum(sizes)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(first + 1 - ends + sizes, sizes)


def _join_matches(begins: np.ndarray, matches: Matches) -> tuple[np.ndarray, np.ndarray]:
    """Puts dictionary matches into `begins`; the spans, first and last, where no noun phrase may lie."""
    first, last = matches.first, matches.last
    if len(first) == 0:
        return first, last
    begins[first] = begins[last] = ALL_LEVELS
    inner, sizes = _inner(first, last), last - first - 1
    # A phrase that is one word may well be part of a longer noun phrase; a name may not.
    several = np.logical_or.reduceat(begins.take(inner) > 0, np.cumsum(sizes) - sizes)
    taken = np.flatnonzero(matches.is_entity | (sizes > 3) | several)
    begins[inner] &= np.repeat(_joined(matches), sizes)
    return first.take(taken), last.take(taken)


def _joined(matches: Matches) -> np.ndarray:
    """uint8 (M): the flags that remain within each match."""
    return np.where(matches.is_entity, np.uint8(WORD | PHRASE), np.uint8(WORD | ENTITY))


def _at_tokens(begins: np.ndarray, starts: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """uint8 (T): what begins at a token, or at a character before it that is in no token's beginning."""
    flags = begins.take(starts)
    flags[1:][starts[1:] == starts[:-1]] = 0
    apart = begins > 0
    apart[starts] = False
    apart = np.flatnonzero(apart[: starts[-1]])
    np.bitwise_or.at(flags, np.searchsorted(starts, apart), begins.take(apart))
    flags[0] = ALL_LEVELS
    flags[inside] = 0
    return flags


class EnglishUnits(_Units):
    """Finds the units of English text."""

    def __init__(self, entries: Mapping[str, bool]) -> None:
        """`entries`: user dictionaries, entry -> True for an entity, False for a phrase."""
        super().__init__(entries)
        self._matcher = EnglishMatcher(self.kinds) if self.kinds else None

    def find(self, text: str, tokens: Encoding, inside: np.ndarray) -> np.ndarray:
        """What begins at each token: arguments and result as in `ChineseUnits.find`."""
        if len(inside) == 0:
            return np.zeros(0, np.uint8)
        flags = np.where(inside, np.uint8(0), np.uint8(ALL_LEVELS))
        words = np.flatnonzero(~inside)
        if len(words) == 0:
            return flags
        codes = codes_of(text)
        first = tokens.starts[words]
        last = tokens.ends[np.append(words[1:], len(inside)) - 1]
        lines = np.searchsorted(np.flatnonzero(codes == ord("\n")), first)
        taken = np.zeros(len(words), bool)
        if self._matcher is not None:
            matches = self._matcher.find(codes, first, last - first, lines)
            self._found.append(matches.rows)
            inner = _inner(matches.first, matches.last)
            flags[words[inner]] &= np.repeat(_joined(matches), matches.last - matches.first - 1)
            taken[matches.first] = taken[inner] = True
        within = _names(codes, first, last, lines, taken)
        flags[words[within]] &= ~np.uint8(ENTITY)
        return flags


def _names(
    codes: np.ndarray, first: np.ndarray, last: np.ndarray, lines: np.ndarray, taken: np.ndarray
) -> np.ndarray:
    """Words that continue a run of capitalised words that may be a name, bool (W); a line in capitals alone
    has none."""
    cased, upper = case_tables()
    codes = np.minimum(codes, CASED_CODES - 1)
    before = np.concatenate([[0], np.cumsum(cased[codes], dtype=np.int32)])
    has_case = before[last] > before[first]
    capital = has_case & upper[codes[first]]
    both = np.bincount(lines[capital], minlength=lines[-1] + 1).astype(bool)
    both &= np.bincount(lines[has_case & ~capital], minlength=lines[-1] + 1).astype(bool)
    fits = capital & ~taken & both[lines]
    opens = np.ones(len(first), bool)
    opens[1:] = lines[1:] != lines[:-1]
    alone = last - first == 1
    blocked = opens | alone & (codes[first] == ord("I"))
    blocked[1:] |= (alone & np.isin(codes[first], _OPENERS))[:-1]
    run_starts = np.flatnonzero(fits & np.append(True, ~fits[:-1] | opens[1:]))
    run_stops = np.flatnonzero(fits & np.append(~fits[1:] | opens[1:], True)) + 1
    within, may_begin = np.zeros(len(first), bool), (~blocked).tolist()
    longer = run_stops - run_starts > 1
    for start, stop in zip(run_starts[longer].tolist(), run_stops[longer].tolist()):
        while start < stop - 1:
            if not may_begin[start]:
                start += 1
                continue
            end = min(start + MAX_NAME_WORDS, stop)
            within[start + 1 : end] = True
            start = end
    return within
