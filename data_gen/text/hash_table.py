"""Look-ups of many short sequences at once: characters of words, words of names.

A sequence is a stretch of an array of symbols (uint64, none is 0). Its hash is the sum of its symbols, each
times an odd constant that belongs to its place (multilinear hashing: Lemire and Kaser, "Strongly universal
string hashing is fast", 2014), modulo 2^64. Sequences are not compared themselves: of 10^12 look-ups, about
one finds what is not there."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from ernie2.characters import code_points

MAX_LENGTH = 100
"""Symbols of the longest sequence that can be looked up."""

Fits = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Places and lengths, int (n) each -> bool (n): whether a sequence of this length may lie there."""

_PLACES = np.random.default_rng(2019).integers(0, 1 << 64, MAX_LENGTH, np.uint64) | np.uint64(1)
_LEVELS = np.random.default_rng(2020).integers(0, 1 << 64, 64, np.uint64) | np.uint64(1)
_OPENING_BITS = 21
_FEW = 1 << 14
"""Places times lengths from which on all lengths are looked up at once."""
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
        uint64 (W); 0, which is in no table, for those longer than MAX_LENGTH."""
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
        lengths: int (W), number of symbols of each, 1 or more."""
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

    A slot is 64 bits: the upper 40 of the hash, and the row."""

    def __init__(self, hashes: np.ndarray) -> None:
        """Takes n < 2^24 - 1 hashes, whose rows are 0 to n-1: of two alike the first is found; so are early
        ones sooner."""
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
            entries = table.take(
                _slots(hashes, level, bits), mode="clip"
            )  # no slot is out of range: clip is fastest
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

    def __init__(
        self, symbols: np.ndarray, starts: np.ndarray, lengths: np.ndarray, rows: HashTable | None = None
    ) -> None:
        """Takes n sequences, none longer than MAX_LENGTH; arguments as in `sequence_hashes`.

        `rows`: the table of their hashes, where there is one already. Of two alike the first is found."""
        self._shortest, self._longest = (int(lengths.min()), int(lengths.max())) if len(lengths) else (1, 0)
        self._rows = HashTable(sequence_hashes(symbols, starts, lengths)) if rows is None else rows
        # By the hash of a sequence: whether it is the beginning of a longer one, whether it is one itself.
        # Hashes that meet in a slot cost time only, as what is found here is looked up in the table or goes
        # on to a longer one.
        self._bits = min(max(10, int(lengths.sum()).bit_length() + 1), 26)
        self._beginnings = np.zeros(1 << self._bits, np.uint8)
        # The same of the shortest length, at which all places of a text are looked up: small enough for the
        # processor's cache.
        self._opening_bits = min(self._bits, _OPENING_BITS)
        self._openings = np.zeros(1 << self._opening_bits, np.uint8)
        hashes, rest = symbols[starts] * _PLACES[0], np.arange(len(starts))
        for length in range(1, self._longest + 1):
            if length > 1:
                hashes[rest] += symbols[starts[rest] + length - 1] * _PLACES[length - 1]
            longer = lengths[rest] > length
            if length >= self._shortest:
                table, bits = (
                    (self._beginnings, self._bits)
                    if length > self._shortest
                    else (self._openings, self._opening_bits)
                )
                table[_slots(hashes[rest[longer]], -1, bits)] |= _BEGINNING
                table[_slots(hashes[rest[~longer]], -1, bits)] |= _WHOLE
            rest = rest[longer]

    def _marks(self, hashes: np.ndarray) -> np.ndarray:
        """uint8: what is known of sequences by their hashes."""
        return self._beginnings.take(_slots(hashes, -1, self._bits), mode="clip")

    def longest(
        self, symbols: np.ndarray, at: np.ndarray, fits: Fits
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The longest fitting sequence that begins at each place.

        Args:
            symbols: uint64 (N).
            at: bool (N), places where a sequence may begin.
            fits: Says which may be taken.

        Returns:
            Three int arrays (M): the places, rising, where one was found, its length, its row."""
        likely = [*self._likely(symbols, at)]
        if not likely:
            return (np.zeros(0, np.int64),) * 3
        # All at once: a text has few places of each length, and of most lengths so few that the calls would
        # take the time.
        places, lengths, hashes = map(np.concatenate, zip(*likely, strict=True))
        inside = np.flatnonzero(places <= len(symbols) - lengths)
        inside = inside.take(np.flatnonzero(fits(places.take(inside), lengths.take(inside))))
        rows = self._rows.find(hashes.take(inside))
        real = np.flatnonzero(rows >= 0)
        places, lengths, rows = (
            places.take(inside.take(real)),
            lengths.take(inside.take(real)),
            rows.take(real),
        )
        order = np.argsort(
            places, kind="stable"
        )  # of those at one place the longest is the last, as it was found last
        ordered = places.take(order)
        order = order[np.append(ordered[1:] != ordered[:-1], True)[: len(order)]]
        return places.take(order), lengths.take(order), rows.take(order)

    def _likely(
        self, symbols: np.ndarray, at: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Where sequences of the set may lie, nearly all of which do: places, lengths, hashes; at any place
        the short ones first.

        Behind the end of the text stands its last symbol, as it were: what reaches over the end is here too.
        """
        size, length = len(symbols), self._shortest
        if size < length or not self._longest:
            return
        hashes = symbols[: size - length + 1] * _PLACES[0]
        for place in range(1, length):
            hashes += symbols[place : size - length + 1 + place] * _PLACES[place]
        marks = self._openings.take(_slots(hashes, -1, self._opening_bits), mode="clip")
        places = np.flatnonzero(marks.view(bool) & at[: len(hashes)])
        marks, hashes = marks.take(places), hashes.take(places)
        while True:
            whole = np.flatnonzero((marks & _WHOLE).view(bool))
            yield places.take(whole), np.full(len(whole), length), hashes.take(whole)
            onward = np.flatnonzero(marks >= _BEGINNING)
            places, hashes = places.take(onward), hashes.take(onward)
            if len(places) * (self._longest - length) <= _FEW:
                break
            hashes += symbols.take(places + length, mode="clip") * _PLACES[length]
            length += 1
            marks = self._marks(hashes)
        more = np.arange(length, self._longest)
        sums = symbols.take(places[:, None] + more, mode="clip") * _PLACES[more]
        hashes = (np.cumsum(sums, axis=1) + hashes[:, None]).ravel()
        whole = np.flatnonzero((self._marks(hashes) & _WHOLE).view(bool))
        yield (
            places.repeat(len(more)).take(whole),
            np.tile(more + 1, len(places)).take(whole),
            hashes.take(whole),
        )


def leftmost(starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """Which of the spans [start, stop) remain if, from left to right, each that begins before the last one's
    end is dropped.

    Args:
        starts: int (S), rising, no two alike.
        stops: int (S), each greater than its start.

    Returns:
        int64, numbers of the remaining spans."""
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
