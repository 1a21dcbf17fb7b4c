"""Words, phrases and entities: which tokens belong together.

Chinese: words are jieba's. A phrase is an entry of a phrase dictionary, or two to four jieba words that form
a noun phrase (adjectives, nominal verbs, nouns; the last is a noun) of at most `MAX_PHRASE_CHARS` characters.
An entity is an entry of an entity dictionary. An entry may join words and cut words that jieba guessed, but
not words of jieba's own dictionary (财政部 is not found in 财政|部门); short entries that a function word
opens or closes in the text (和|文化) are not taken.

English: words are runs of letters and digits, and single punctuation marks; phrases and entities are
dictionary entries, and a run of two to `MAX_NAME_WORDS` capitalised words that does not open a sentence is an
entity (a substitute for a name tagger).

Pieces of one surface word stay together, whatever a segmenter says. Texts come many at a time, joined by line
feeds; no unit reaches over one."""

import numpy as np

from data_gen.text.dictionaries import (
    MODIFIER,
    NOUN,
    UNKNOWN,
    EnglishMatcher,
    Entries,
    Matches,
    jieba_lexicon,
)
from data_gen.text.hash_table import SequenceTable, leftmost, ranges, symbols_of
from data_gen.text.segmenters import load_segmenter
from data_gen.text.tokens import ALL_LEVELS, ENTITY, PHRASE, WORD, case_tables, codes_of
from ernie2.tokenizer import Encoding

MAX_PHRASE_CHARS, MAX_PHRASE_WORDS = 8, 4
MAX_NAME_WORDS = 5
MAX_DOUBTFUL_CHARS = 4
"""A longer entry is found even if a function word opens or closes it."""
FUNCTION_WORDS = (
    "的了着过地得在是和与及或而但并也都就还又很更最再不没无有被把将使让给对从自由向往到至比按当因"
    "所以于之其这那此该每各我你您他她它们里等吗呢吧啊"
)
_IS_FUNCTION_WORD = np.zeros(1 << 16, bool)  # by symbol; the last stands for all beyond
_IS_FUNCTION_WORD[symbols_of(FUNCTION_WORDS)] = True
# A capital after one of these begins a sentence, not a name.
_OPENERS = np.array(sorted(map(ord, ".!?:…“‘\"'([—-")))


class ChineseUnits:
    """Finds the units of Chinese text.

    Attributes:
        segmenter: What cuts the words."""

    def __init__(self, entries: Entries, segmenter: str = "auto") -> None:
        """`segmenter`: as for `load_segmenter`. Raises ConfigError: it is unknown or not installed."""
        self._entries, self.segmenter, self._lexicon = entries, load_segmenter(segmenter), jieba_lexicon()
        sizes = np.diff(entries.starts)
        self._table = SequenceTable(symbols_of(entries.text), entries.starts[:-1], sizes, entries.table)

    def find(self, text: str, tokens: Encoding, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What begins at each token, and the dictionary entries found.

        Args:
            text: Sentences joined by line feeds.
            tokens: T tokens of it, 1 or more.
            inside: bool (T), pieces that continue a surface word.

        Returns:
            uint8 (T): the sum of WORD, PHRASE, ENTITY for the levels of which a unit begins at the token;
            where there is no phrase (entity), words are the units of that level. int32: rows of the
            entries."""
        symbols = symbols_of(text)
        stops = self.segmenter.stops(text)
        first = np.append(0, stops[:-1])
        kinds = self._lexicon.kinds(symbols, first, stops - first)
        begins = np.zeros(len(text) + 1, np.uint8)  # what begins at each character, and behind the last
        begins[first] = begins[-1] = ALL_LEVELS
        words, sizes = _noun_phrases(kinds, first, stops)
        rows = np.zeros(0, np.int32)
        if len(self._entries):
            edges = _edges(len(text), tokens, inside, first, stops, kinds == UNKNOWN)
            matches = self.matches(symbols, edges, begins)
            rows = matches.rows
            taken_first, taken_last = _join_matches(begins, matches)
            nearest = np.searchsorted(taken_last, first[words], "right")
            free = stops[words + sizes - 1] <= np.append(taken_first, len(text))[nearest]
            words, sizes = words[free], sizes[free]
        for place in range(1, MAX_PHRASE_WORDS):
            begins[first[words[sizes > place] + place]] &= ~np.uint8(PHRASE)
        return _at_tokens(begins, tokens.starts, inside), rows

    def matches(self, symbols: np.ndarray, edges: np.ndarray, begins: np.ndarray) -> Matches:
        """Dictionary entries in a text, short ones with a function word at an edge aside: 和|文化, 时间|里.

        Args:
            symbols: uint64 (N), see `hash_table.symbols_of`.
            edges: uint8 (N + 1), see `_edges`; entries of two characters are found between 2 and 2 alone.
            begins: uint8 (N + 1), 0 where no word begins."""

        def fits(at: np.ndarray, lengths: np.ndarray) -> np.ndarray:
            last = edges.take(at + lengths)
            return (last > 0) & (lengths > 2) | (edges.take(at) + last == 4) & (lengths == 2)

        found = Matches.of(self._entries, *self._table.longest(symbols, edges[:-1] > 0, fits))
        opens, closes = (
            _IS_FUNCTION_WORD.take(symbols.take(places).view(np.int64), mode="clip")
            for places in (found.first, found.last - 1)
        )
        doubtful = opens & (begins[found.first + 1] > 0) | closes & (begins[found.last - 1] > 0)
        kept = ~(doubtful & (found.last - found.first <= MAX_DOUBTFUL_CHARS))
        return Matches(*(array[kept] for array in found))


def _noun_phrases(kinds: np.ndarray, first: np.ndarray, stops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Noun phrases, leftmost and longest first: first word and number of words, int64 (P) each."""
    fits = kinds >= MODIFIER
    at = np.flatnonzero(fits[:-1] & fits[1:])
    sizes, more = np.zeros(len(at), np.int64), np.arange(len(at))
    for size in range(2, MAX_PHRASE_WORDS + 1):
        more = more[at[more] + size <= len(kinds)]
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
    return ranges(first + 1, last - first - 1)


def _join_matches(begins: np.ndarray, matches: Matches) -> tuple[np.ndarray, np.ndarray]:
    """Puts dictionary matches into `begins`; the spans, first and last, that no noun phrase may overlap."""
    first, last = matches.first, matches.last
    if len(first) == 0:
        return first, last
    begins[first] = begins[last] = ALL_LEVELS
    inner, sizes = _inner(first, last), last - first - 1
    # A phrase that is one word may be part of a longer noun phrase; a name may not.
    several = np.logical_or.reduceat(begins.take(inner) > 0, np.cumsum(sizes) - sizes)
    taken = np.flatnonzero(matches.is_entity | (sizes > 3) | several)
    begins[inner] &= np.repeat(_kept_within(matches), sizes)
    return first.take(taken), last.take(taken)


def _kept_within(matches: Matches) -> np.ndarray:
    """uint8 (M): the levels of which units may begin within each match."""
    return np.where(matches.is_entity, np.uint8(WORD | PHRASE), np.uint8(WORD | ENTITY))


def _at_tokens(begins: np.ndarray, starts: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """uint8 (T): what begins at a token, or between it and the token before it."""
    flags = begins.take(starts)
    flags[1:][starts[1:] == starts[:-1]] = 0
    between = begins > 0
    between[starts] = False
    between = np.flatnonzero(between[: starts[-1]])
    np.bitwise_or.at(flags, np.searchsorted(starts, between), begins.take(between))
    flags[0] = ALL_LEVELS
    flags[inside] = 0
    return flags


class EnglishUnits:
    """Finds the units of English text."""

    def __init__(self, entries: Entries) -> None:
        self._matcher = EnglishMatcher(entries) if len(entries) else None

    def find(self, text: str, tokens: Encoding, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `ChineseUnits.find`."""
        flags = np.where(inside, np.uint8(0), np.uint8(ALL_LEVELS))
        words = np.flatnonzero(~inside)
        codes = codes_of(text)
        first = tokens.starts[words]
        last = tokens.ends[np.append(words[1:], len(inside)) - 1]
        lines = np.searchsorted(np.flatnonzero(codes == ord("\n")), first)
        taken, rows = np.zeros(len(words), bool), np.zeros(0, np.int32)
        if self._matcher is not None:
            matches = self._matcher.find(codes, first, last - first, lines)
            rows = matches.rows
            inner = _inner(matches.first, matches.last)
            flags[words[inner]] &= np.repeat(_kept_within(matches), matches.last - matches.first - 1)
            taken[matches.first] = taken[inner] = True
        flags[words[_within_names(codes, first, last, lines, taken)]] &= ~np.uint8(ENTITY)
        return flags, rows


def _within_names(
    codes: np.ndarray, first: np.ndarray, last: np.ndarray, lines: np.ndarray, taken: np.ndarray
) -> np.ndarray:
    """bool (W): words that continue a run of capitalised words that may be a name; a line in capitals alone
    has none."""
    cased, upper = case_tables()
    before = np.concatenate([[0], np.cumsum(cased[codes], dtype=np.int32)])
    has_case = before[last] > before[first]
    capital = has_case & upper[codes[first]]
    both = np.bincount(lines[capital], minlength=lines[-1] + 1).astype(bool)
    both &= np.bincount(lines[has_case & ~capital], minlength=lines[-1] + 1).astype(bool)
    fits = capital & ~taken & both[lines]
    opens = np.append(True, lines[1:] != lines[:-1])
    single = last - first == 1
    may_begin = ~(opens | single & (codes[first] == ord("I")))
    may_begin[1:] &= ~(single & np.isin(codes[first], _OPENERS))[:-1]
    run_starts = np.flatnonzero(fits & np.append(True, ~fits[:-1] | opens[1:]))
    run_stops = np.flatnonzero(fits & np.append(~fits[1:] | opens[1:], True)) + 1
    within, longer = np.zeros(len(first), bool), run_stops - run_starts > 1
    for start, stop in zip(run_starts[longer].tolist(), run_stops[longer].tolist()):
        while start < stop - 1:
            end = start + 1
            if may_begin[start]:
                end = min(start + MAX_NAME_WORDS, stop)
                within[start + 1 : end] = True
            start = end
    return within
