"""Near-duplicate documents: MinHash signatures, banding, and which documents to leave out.

The similarity of two documents is the Jaccard similarity of their sets of character n-grams, estimated by the
share of equal entries of their signatures (A. Broder, 1997; one permutation, P. Li et al., 2012; empty bins
filled after A. Shrivastava, 2017). Written with numpy because the libraries for it take a list of n-grams as
Python strings, which alone takes several times as long as all that is done here."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from ernie2.characters import code_points

NGRAM = 6
"""Characters of an n-gram: letters and digits, lower-cased; everything else is passed over."""
SIGNATURE = 40
"""Entries of a signature: 160 bytes a document."""
THRESHOLD = 0.8
"""Share of equal entries from which on documents are near-duplicates; the estimate's standard deviation is
0.06. Of changed copies with a true similarity above 0.9 more than 99% are dropped, between 0.85 and 0.9 95%,
between 0.75 and 0.8 39%, between 0.6 and 0.65 1%, below 0.6 none."""
BAND = 4
"""Entries that have to be equal, in one of SIGNATURE / BAND places, for two documents to be compared."""
LEADERS = 16
"""Documents of a band with equal entries that the later ones are compared with."""

_EMPTY = np.uint32(0xFFFFFFFF)
_END = 1  # follows the last character of a document, in place of a code point


def signatures(texts: Sequence[str]) -> np.ndarray:
    """MinHash signatures, uint32 (D, SIGNATURE), of D texts, each of its text alone; a text without letters
    and digits has 0xFFFFFFFF throughout."""
    made = np.full((len(texts), SIGNATURE), _EMPTY)
    if not len(texts):
        return made
    end = "\0" * (NGRAM - 1)
    codes = code_points(end.join(texts) + end)
    lengths = np.fromiter(map(len, texts), np.int64, len(texts)) + len(end)
    documents = np.repeat(np.arange(len(texts), dtype=np.int32), lengths)
    codes = _folded().take(codes, mode="clip")
    kept = codes > 0
    codes, documents = codes[kept].astype(np.uint64), documents[kept]
    hashes = np.zeros(len(codes) - NGRAM + 1, np.uint64)
    for place in range(NGRAM):  # a polynomial in an odd number, modulo 2^64
        hashes *= np.uint64(0x9E3779B97F4A7C15)
        hashes += codes[place : len(codes) - NGRAM + 1 + place]
    begins = codes[: len(hashes)] != _END
    hashes, documents = _mixed(hashes[begins]), documents[: len(begins)][begins]
    bins = (hashes >> np.uint64(32)) * np.uint64(SIGNATURE) >> np.uint64(32)
    np.minimum.at(
        made.reshape(-1), documents * np.int64(SIGNATURE) + bins.astype(np.int64), hashes.astype(np.uint32)
    )
    return _filled(made)


def duplicates(blocks: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Which documents to leave out, so that no two of those that stay are near-duplicates, as far as the
    bands tell.

    Args:
        blocks: Signatures of the documents in the order of the corpus.

    Returns:
        A bool array (D) for each block, True: leave out; the first of a group stays. Memory: about 40 bytes a
        document beside the signatures."""
    ends = np.cumsum([len(block) for block in blocks], dtype=np.int64)
    if not len(ends):
        return []
    stays = np.ones(ends[-1], bool)
    full = np.concatenate([(block != _EMPTY).any(axis=1) for block in blocks])
    for band in range(0, SIGNATURE, BAND):
        members = np.flatnonzero(stays & full)
        keys = np.concatenate([_band_keys(block, band) for block in blocks])[members]
        order = np.argsort(keys, kind="stable")
        members, keys = members[order], keys[order]
        for _ in range(LEADERS):
            first = np.append(True, keys[1:] != keys[:-1])[: len(keys)]
            starts = np.flatnonzero(first)
            leaders = members[np.repeat(starts, np.diff(np.append(starts, len(keys))))]
            members, keys, leaders = members[~first], keys[~first], leaders[~first]
            if not len(members):
                break
            same = _alike(blocks, ends, members, leaders)
            stays[members[same]] = False
            members, keys = members[~same], keys[~same]
    return np.split(~stays, ends[:-1])


@functools.lru_cache(maxsize=1)
def _folded() -> np.ndarray:
    """Code point -> its lower-case letter; 0 for what is passed over; _END for the character 0."""
    characters = map(chr, range(0x30000 - 1))
    folded = [ord(one.lower()[0]) if one.isalnum() else 0 for one in characters]
    return np.array([_END, *folded[1:], 0], np.uint32)


def _mixed(hashes: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 (S. Vigna)."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        hashes = (hashes ^ (hashes >> np.uint64(shift))) * np.uint64(factor)
    return hashes ^ (hashes >> np.uint64(31))


def _filled(made: np.ndarray) -> np.ndarray:
    """Signatures whose empty bins have taken over the entry of another, asked for in an order of their
    own."""
    rng = np.random.default_rng(1997)
    probes = np.stack([rng.permutation(SIGNATURE) for _ in range(SIGNATURE)])
    rows, bins = np.nonzero(made == _EMPTY)
    before = made.copy()
    for probe in range(SIGNATURE):
        entries = before[rows, probes[bins, probe]]
        found = entries != _EMPTY
        made[rows[found], bins[found]] = entries[found]
        rows, bins = rows[~found], bins[~found]
    return made


def _band_keys(block: np.ndarray, band: int) -> np.ndarray:
    """One number, uint64 (D), for the entries of a band."""
    keys = np.zeros(len(block), np.uint64)
    for place in range(band, band + BAND):
        keys = _mixed(keys + block[:, place])
    return keys


def _alike(blocks: Sequence[np.ndarray], ends: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Whether documents are near-duplicates, bool, pair by pair."""
    same = np.empty(len(one), bool)
    for n in range(0, len(one), 100_000):
        part = slice(n, n + 100_000)
        equal = _rows(blocks, ends, one[part]) == _rows(blocks, ends, other[part])
        same[part] = np.count_nonzero(equal, axis=1) >= THRESHOLD * SIGNATURE
    return same


def _rows(blocks: Sequence[np.ndarray], ends: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Signatures of documents, by their numbers in the corpus."""
    found = np.empty((len(numbers), SIGNATURE), np.uint32)
    holders = np.searchsorted(ends, numbers, side="right")
    order = np.argsort(holders, kind="stable")
    for places in np.split(order, np.flatnonzero(np.diff(holders[order])) + 1):
        block = int(holders[places[0]])
        found[places] = blocks[block][numbers[places] - (ends[block] - len(blocks[block]))]
    return found
