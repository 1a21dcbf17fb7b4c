"""Look-ups of many short sequences at once: characters of words, words of names.

A sequence is a stretch of an array of symbols (uint64, none is 0). Its hash is the sum of its symbols, each
times an odd constant that belongs to its place (multilinear hashing: Lemire and Kaser, "Strongly universal
string hashing is fast", 2014), modulo 2^64. Sequences are not compared themselves: of 10^12 look-ups, about
one finds what is not there."""

from collections.abc import Callable, Iterator

import numpy as np

from ernie2.characters import code_points

MAX_LENGTH = 100
"""Symbols of the longest sequence that can be looked up."""

_PLACES = np.random.default_rng(2019).integers(0, 1 << 64, MAX_LENGTH, np.uint64) | np.uint64(1)
_LEVELS = np.random.default_rng(2020).integers(0, 1 << 64, 64, np.uint64) | np.uint64(1)
_OPENING_BITS = 21
_FEW = 1 << 14  # places times lengths from which on all lengths are looked up at once
_WHOLE, _BEGINNING = np.uint8(1), np.uint8(2)
_ROW_BITS = np.uint64((1 << 24) - 1)
_EMPTY = np.uint64(1 << 24) - np.uint64(1)


def symbols_of(text: str) -> np.ndarray:
    """Characters as symbols: uint64 (len(text)), code point plus one."""
    return np.add(code_points(text), np.uint64(1), dtype=np.uint64)


def sequence_hashes(symbols: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Hashes of W sequences: uint64 (W); 0, which is in no table, for those longer than MAX_LENGTH.

    Args:
        symbols: uint64 (N).
        starts: int (W), first symbol of each sequence.
        lengths: int (W), number of symbols of each, 1 or more."""
    hashes = symbols.take(starts) * _PLACES[0]
    rest = np.flatnonzero(lengths > 1)
    for place in range(1, MAX_LENGTH):
        if len(rest) == 0:
            return hashes
        hashes[rest] += symbols.take(starts.take(rest) + place) * _PLACES[place]
        rest = rest.take(np.flatnonzero(lengths.take(rest) > place + 1))
    hashes[rest] = 0
    return hashes


def ranges(first: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """int64: first[i], first[i] + 1, ..., sizes[i] numbers, for one i after the other; both int (n)."""
    ends = np.cumsum(sizes)
    made = np.repeat(first - ends + sizes, sizes)
    made += np.arange(len(made))
    return made


def _slots(hashes: np.ndarray, level: int, bits: int) -> np.ndarray:
    """Slot of each hash in a table of 2^bits slots, int64 (indexing with other types is slower)."""
    return ((hashes * _LEVELS[level]) >> np.uint64(64 - bits)).view(np.int64)


class HashTable:
    """Hash -> row number. A hash whose slot is taken goes to the next, smaller table.

    A slot is 64 bits: the upper 40 of the hash, and the row. Early hashes are found fastest."""

    def __init__(self, hashes: np.ndarray) -> None:
        """`hashes`: n < 2^24 - 1, whose rows are 0 to n-1; of two equal ones the first is found."""
        assert len(hashes) < int(_EMPTY)
        self._tables: list[tuple[int, np.ndarray]] = []
        rows = np.arange(len(hashes), dtype=np.uint64)
        while len(rows):
            level, bits = len(self._tables), max(4, int(len(rows) - 1).bit_length() + 1)
            slots = _slots(hashes[rows], level, bits)
            table = np.full(1 << bits, _EMPTY, np.uint64)
            table[slots[::-1]] = rows[::-1]  # the first of a slot is written last and stays
            stayed = table[slots] == rows
            table[slots[stayed]] = hashes[rows[stayed]] & ~_ROW_BITS | rows[stayed]
            self._tables.append((bits, table))
            rows = rows[~stayed]

    def find(self, hashes: np.ndarray) -> np.ndarray:
        """Rows int32 (n) of hashes uint64 (n); -1 for those that are not in the table."""
        found = np.full(len(hashes), -1, np.int32)
        rest = None
        for level, (bits, table) in enumerate(self._tables):
            # No slot is out of range: clip is the fastest mode.
            entries = table.take(_slots(hashes, level, bits), mode="clip")
            empty = entries == _EMPTY
            same = (entries ^ hashes) <= _ROW_BITS
            same &= ~empty
            hits = np.flatnonzero(same)
            found[hits if rest is None else rest.take(hits)] = entries.take(hits) & _ROW_BITS
            # An empty slot ends the search: a hash of a later table found its slot here taken.
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
        """Takes n sequences of at most MAX_LENGTH symbols; arguments as in `sequence_hashes`.

        `rows`: the table of their hashes, if there is one already. Of two equal sequences the first is
        found."""
        self._shortest, self._longest = (int(lengths.min()), int(lengths.max())) if len(lengths) else (1, 0)
        self._rows = HashTable(sequence_hashes(symbols, starts, lengths)) if rows is None else rows
        # For each hash: is it a whole sequence, is it the beginning of a longer one? Hashes that share a slot
        # cost time only: what is found here is looked up in `_rows`.
        self._bits = min(max(10, int(lengths.sum()).bit_length() + 1), 26)
        self._beginnings = np.zeros(1 << self._bits, np.uint8)
        # The shortest length is looked up at all places of a text: its table fits the processor's cache.
        self._opening_bits = min(self._bits, _OPENING_BITS)
        self._openings = np.zeros(1 << self._opening_bits, np.uint8)
        hashes, rest = symbols[starts] * _PLACES[0], np.arange(len(starts))
        for length in range(1, self._longest + 1):
            if length > 1:
                hashes[rest] += symbols[starts[rest] + length - 1] * _PLACES[length - 1]
            longer = lengths[rest] > length
            if length >= self._shortest:
                table, bits = self._beginnings, self._bits
                if length == self._shortest:
                    table, bits = self._openings, self._opening_bits
                table[_slots(hashes[rest[longer]], -1, bits)] |= _BEGINNING
                table[_slots(hashes[rest[~longer]], -1, bits)] |= _WHOLE
            rest = rest[longer]

    def longest(
        self,
        symbols: np.ndarray,
        at: np.ndarray,
        fits: Callable[[np.ndarray, np.ndarray], np.ndarray],
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The longest sequence that begins at each place: places, rising, lengths and rows, int (M) each.

        Args:
            symbols: uint64 (N).
            at: bool (N), places where a sequence may begin.
            fits: Places and lengths, int (n) each -> bool (n): whether a sequence may be taken."""
        likely = [*self._likely(symbols, at)]
        if not likely:
            return (np.zeros(0, np.int64),) * 3
        # All lengths at once: there are few places of each.
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
        # Lengths rise: the longest of a place is its last.
        order = np.argsort(places, kind="stable")
        ordered = places.take(order)
        order = order[np.append(ordered[1:] != ordered[:-1], True)[: len(order)]]
        return places.take(order), lengths.take(order), rows.take(order)

    def _likely(
        self, symbols: np.ndarray, at: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Places, lengths and hashes of what is probably in the set, short before long.

        The last symbol repeats behind the end: what reaches over the end is yielded too."""
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
            marks = self._beginnings.take(_slots(hashes, -1, self._bits), mode="clip")
        more = np.arange(length, self._longest)
        sums = symbols.take(places[:, None] + more, mode="clip") * _PLACES[more]
        hashes = (np.cumsum(sums, axis=1) + hashes[:, None]).ravel()
        marks = self._beginnings.take(_slots(hashes, -1, self._bits), mode="clip")
        whole = np.flatnonzero((marks & _WHOLE).view(bool))
        places, lengths = places.repeat(len(more)), np.tile(more + 1, len(places))
        yield places.take(whole), lengths.take(whole), hashes.take(whole)


def leftmost(starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """Numbers, int64, of the spans [start, stop) that stay when, from left to right, each that begins before
    the end of the last one kept is dropped; `starts` rises."""
    kept = np.ones(len(starts), bool)
    # What begins behind the end of all spans before it stays in any case; few do not.
    kept[1:] = starts[1:] >= np.maximum.accumulate(stops)[:-1]
    last = 0
    for at in np.flatnonzero(~kept).tolist():
        if kept[at - 1]:
            last = at - 1
        if starts[at] >= stops[last]:
            kept[at] = True
            last = at
    return np.flatnonzero(kept)
