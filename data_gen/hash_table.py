"""Look-ups of many short sequences at once: characters of words, words of names.

A sequence is a stretch of an array of symbols (uint64, none is 0). Its hash is the sum of its symbols, each times an odd
constant that belongs to its place (multilinear hashing: Lemire and Kaser, "Strongly universal string hashing is fast",
2014), modulo 2^64. Sequences are not compared themselves: of 10^12 look-ups, about one finds what is not there.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ernie2.characters import code_points

MAX_LENGTH = 100
"""Symbols of the longest sequence that can be looked up."""

Fits = Callable[[np.ndarray, int], np.ndarray]
"""Places int32 (n) and a length -> bool (n): whether a sequence of this length may lie there."""

_PLACES = np.random.default_rng(2019).integers(0, 1 << 64, MAX_LENGTH, np.uint64) | np.uint64(1)
_LEVELS = np.random.default_rng(2020).integers(0, 1 << 64, 64, np.uint64) | np.uint64(1)
_OPENING_BITS = 21
_WHOLE, _BEGINNING = np.uint8(1), np.uint8(2)
_ROW_BITS = np.uint64((1 << 24) - 1)
_EMPTY = np.uint64(1 << 24) - np.uint64(1)


def symbols_of(text: str) -> np.ndarray:
    """Characters as symbols: uint64 (len(text)), code point plus one."""
    return np.add(code_points(text), np.uint64(1), dtype=np.uint64)


def sequence_hashes(symbols: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Hashes of W sequences.

    Args:
        symbols: uint64 (N).
        starts: int (W), first symbol of each sequence.
        lengths: int (W), number of symbols of each, 1 or more.

    Returns:
        uint64 (W); 0, which is in no table, for those longer than MAX_LENGTH.
    """
    hashes = symbols.take(starts) * _PLACES[0]
    rest = np.flatnonzero(lengths > 1)
    for place in range(1, MAX_LENGTH):
        if len(rest) == 0:
            return hashes
        hashes[rest] += symbols.take(starts.take(rest) + place) * _PLACES[place]
        rest = rest.take(np.flatnonzero(lengths.take(rest) > place + 1))
    hashes[rest] = 0
    return hashes


def joined_hashes(symbols: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """`sequence_hashes` of W sequences that lie end to end, in one pass over them.

    Args:
        symbols: uint64 (sum of lengths).
        lengths: int (W), number of symbols of each, 1 or more.
    """
    if len(lengths) == 0:
        return np.zeros(0, np.uint64)
    starts = np.cumsum(lengths) - lengths
    places = np.arange(len(symbols)) - np.repeat(starts, lengths)
    hashes = np.add.reduceat(symbols * _PLACES.take(places, mode="clip"), starts)
    hashes[lengths > MAX_LENGTH] = 0
    return hashes


def ranges(first: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """int64: the numbers from first[i] on, sizes[i] of them, for one i after the other; both int (n)."""
    ends = np.cumsum(sizes)
    made = np.repeat(first - ends + sizes, sizes)
    made += np.arange(len(made))
    return made


def _slots(hashes: np.ndarray, level: int, bits: int) -> np.ndarray:
    """Slot of each hash in a table of 2^bits slots, int64 (indexing with other types is slower)."""
    return ((hashes * _LEVELS[level]) >> np.uint64(64 - bits)).view(np.int64)


class HashTable:
    """Hash -> row number. A slot holds one hash; those that find it taken go to a smaller table, and so on.

    A slot is 64 bits: the upper 40 of the hash, and the row.
    """

    def __init__(self, hashes: np.ndarray) -> None:
        """Takes n < 2^24 - 1 hashes, whose rows are 0 to n-1: of two alike the first is found; so are early ones sooner."""
        assert len(hashes) < int(_EMPTY)
        self._tables: list[tuple[int, np.ndarray]] = []
        rows = np.arange(len(hashes), dtype=np.uint64)
        while len(rows):
            level, bits = len(self._tables), max(4, int(len(rows) - 1).bit_length() + 1)
            slots = _slots(hashes[rows], level, bits)
            table = np.full(1 << bits, _EMPTY, np.uint64)
            table[slots[::-1]] = rows[::-1]  # of those that meet in a slot the first stays
            stayed = table[slots] == rows
            table[slots[stayed]] = hashes[rows[stayed]] & ~_ROW_BITS | rows[stayed]
            self._tables.append((bits, table))
            rows = rows[~stayed]

    def find(self, hashes: np.ndarray) -> np.ndarray:
        """Rows int32 (n) of hashes uint64 (n); -1 for those that are not in the table."""
        found = np.full(len(hashes), -1, np.int32)
        rest = None
        for level, (bits, table) in enumerate(self._tables):
            entries = table.take(_slots(hashes, level, bits), mode="clip")  # no slot is out of range: clip is fastest
            empty = entries == _EMPTY
            same = (entries ^ hashes) <= _ROW_BITS
            same &= ~empty
            hits = np.flatnonzero(same)
            found[hits if rest is None else rest.take(hits)] = entries.take(hits) & _ROW_BITS
            # An empty slot ends the search: whatever is in a later table has met another hash here.
            onward = np.flatnonzero(~(same | empty))
            if len(onward) == 0:
                break
            rest, hashes = onward if rest is None else rest.take(onward), hashes.take(onward)
        return found


class SequenceTable:
    """Finds which sequences of a set begin where in a long array of symbols."""

    def __init__(self, symbols: np.ndarray, starts: np.ndarray, lengths: np.ndarray, rows: HashTable | None = None) -> None:
        """Takes n sequences, none longer than MAX_LENGTH; arguments as in `sequence_hashes`.

        `rows`: the table of their hashes, where there is one already. Of two alike the first is found.
        """
        self._shortest, self._longest = (int(lengths.min()), int(lengths.max())) if len(lengths) else (1, 0)
        self._rows = HashTable(sequence_hashes(symbols, starts, lengths)) if rows is None else rows
        # By the hash of a sequence: whether it is the beginning of a longer one, whether it is one itself. Hashes that
        # meet in a slot cost time only, as what is found here is looked up in the table or goes on to a longer one.
        self._bits = min(max(10, int(lengths.sum()).bit_length() + 1), 26)
        self._beginnings = np.zeros(1 << self._bits, np.uint8)
        # By the leading bits of the same: whether anything begins so. Small enough for the processor's cache, where nearly
        # all places of a text are found to be none.
        self._opening_shift = max(self._bits - _OPENING_BITS, 0)
        self._openings = np.zeros(1 << (self._bits - self._opening_shift), bool)
        hashes, rest = symbols[starts] * _PLACES[0], np.arange(len(starts))
        for length in range(1, self._longest + 1):
            if length > 1:
                hashes[rest] += symbols[starts[rest] + length - 1] * _PLACES[length - 1]
            longer = lengths[rest] > length
            if length >= self._shortest:
                self._beginnings[_slots(hashes[rest[longer]], -1, self._bits)] |= _BEGINNING
                self._beginnings[_slots(hashes[rest[~longer]], -1, self._bits)] |= _WHOLE
            if length == self._shortest:
                self._openings[_slots(hashes[rest], -1, self._bits) >> self._opening_shift] = True
            rest = rest[longer]

    def _marks(self, hashes: np.ndarray) -> np.ndarray:
        """uint8: what is known of sequences by their hashes."""
        return self._beginnings.take(_slots(hashes, -1, self._bits), mode="clip")

    def longest(self, symbols: np.ndarray, at: np.ndarray, fits: Fits) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The longest fitting sequence that begins at each place.

        Args:
            symbols: uint64 (N).
            at: bool (N), places where a sequence may begin.
            fits: Says which may be taken.

        Returns:
            Three int arrays (M): the places, rising, where one was found, its length, its row.
        """
        size, length = len(symbols), self._shortest
        lengths, rows = np.zeros(size, np.uint8), np.empty(size, np.int32)
        if size < length or not self._longest:
            return (np.zeros(0, np.int64),) * 3
        hashes = symbols[:size - length + 1] * _PLACES[0]
        for place in range(1, length):
            hashes += symbols[place:size - length + 1 + place] * _PLACES[place]
        slots = _slots(hashes, -1, self._bits)
        places = np.flatnonzero(self._openings.take(slots >> self._opening_shift, mode="clip") & at[:len(hashes)])
        marks = self._beginnings.take(slots.take(places), mode="clip")
        real = np.flatnonzero(marks)
        places, marks = places.take(real), marks.take(real)
        hashes = hashes.take(places)
        while len(places):
            likely = np.flatnonzero((marks & _WHOLE).view(bool))
            whole = places.take(likely)
            # Behind the end of the text stands its last symbol, as it were: what reaches over the end is no match.
            good = np.flatnonzero(whole <= size - length)
            good = good[fits(whole.take(good), length)]  # before the table is asked, which takes longer
            found = self._rows.find(hashes.take(likely.take(good)))
            real = np.flatnonzero(found >= 0)
            whole = whole.take(good.take(real))
            lengths[whole], rows[whole] = length, found.take(real)
            if length == self._longest:
                break
            onward = np.flatnonzero(marks >= _BEGINNING)
            places = places.take(onward)
            hashes = hashes.take(onward) + symbols.take(places + length, mode="clip") * _PLACES[length]
            length += 1
            marks = self._marks(hashes)
        found = np.flatnonzero(lengths > 0)
        return found, lengths.take(found).astype(np.int64), rows.take(found)


def leftmost(starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """Which of the spans [start, stop) remain if, from left to right, each that begins before the last one's end is dropped.

    Args:
        starts: int (S), rising, no two alike.
        stops: int (S), each greater than its start.

    Returns:
        int64, numbers of the remaining spans.
    """
    kept = np.ones(len(starts), bool)
    # What begins behind the end of all spans before it stays, whatever becomes of these; few do not.
    kept[1:] = starts[1:] >= np.maximum.accumulate(stops)[:-1]
    last = 0
    for at in np.flatnonzero(~kept).tolist():
        if kept[at - 1]:
            last = at - 1
        if starts[at] >= stops[last]:
            kept[at] = True
            last = at
    return np.flatnonzero(kept)
