"""Between the workers and the shards: each block's examples on disk, then merged in random order in constant memory.

A worker gives every example a random 64-bit key and writes its block's examples sorted by key, one file for a task and
split. Merging reads a range of keys at a time from all files, sorts it and passes it on: a shuffle over the whole
corpus. As keys and order depend on nothing but seed, task and block, the result is the same whatever the number of
workers.

Shapes: N examples of a file, T tokens of all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from ernie2.shards import IGNORED, LEVELS, Example

NO_LABEL = -1
BUCKET_TOKENS = 8_000_000
"""Tokens sorted at a time: about 150 MB."""

_PER_TOKEN = ["token_ids", "sentence_ids", *(f"span_ids_{level}" for level in LEVELS), "token_labels"]
_DTYPES = {"keys": np.uint64, "lengths": np.int64, "labels": np.int32, "token_ids": np.int32, "sentence_ids": np.int8,
           "token_labels": np.int8} | {f"span_ids_{level}": np.int16 for level in LEVELS}


def write_spill(path: Path, examples: Sequence[Example], keys: np.ndarray) -> None:
    """Writes a block's examples, sorted by key, as consecutive .npy arrays in one file.

    Args:
        path: File to write.
        examples: N of them, N >= 1; all with the same fields.
        keys: uint64 (N).
    """
    order = np.argsort(keys, kind="stable")
    ordered = [examples[i] for i in order]
    arrays = {
        "keys": keys[order],
        "lengths": np.array([len(example.token_ids) for example in ordered]),
        "labels": np.array([NO_LABEL if e.sentence_label is None else e.sentence_label for e in ordered]),
    }
    for name in _PER_TOKEN:
        parts = [_field(example, name) for example in ordered]
        arrays[name] = np.concatenate(parts) if parts[0] is not None else np.zeros(0)
    with path.open("wb") as file:
        for name, dtype in _DTYPES.items():
            np.save(file, arrays[name].astype(dtype), allow_pickle=False)


def _field(example: Example, name: str) -> np.ndarray | None:
    if name.startswith("span_ids_"):
        return None if example.span_ids is None else example.span_ids[name.removeprefix("span_ids_")]
    return getattr(example, name)


class Spill:
    """One file of write_spill, open: keys (uint64), lengths and labels of all N examples; the rest is read by range."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offsets, self._sizes = {}, {}
        with path.open("rb") as file:
            for name, dtype in _DTYPES.items():
                np.lib.format.read_magic(file)
                shape, _, _ = np.lib.format.read_array_header_1_0(file)
                self._offsets[name], self._sizes[name] = file.tell(), shape[0]
                file.seek(shape[0] * np.dtype(dtype).itemsize, 1)
        self.keys, self.lengths, self.labels = (self._read(n, 0, self._sizes[n]) for n in ("keys", "lengths", "labels"))

    def examples(self, start: int, stop: int) -> list[Example]:
        """Examples [start:stop) in key order."""
        ends = np.cumsum(self.lengths)
        first = int(ends[start - 1]) if start else 0
        edges = [0, *(ends[start:stop] - first).tolist()]
        fields = {name: self._read(name, first, first + edges[-1]) for name in _PER_TOKEN if self._sizes[name]}
        has_spans = all(f"span_ids_{level}" in fields for level in LEVELS)
        made = []
        for i, (a, b) in enumerate(pairwise(edges)):
            label = int(self.labels[start + i])
            made.append(Example(
                fields["token_ids"][a:b], fields["sentence_ids"][a:b],
                {level: fields[f"span_ids_{level}"][a:b] for level in LEVELS} if has_spans else None,
                fields["token_labels"][a:b] if "token_labels" in fields else None,
                None if label == NO_LABEL else label))
        return made

    def _read(self, name: str, start: int, stop: int) -> np.ndarray:
        dtype = np.dtype(_DTYPES[name])
        return np.fromfile(self.path, dtype, stop - start, offset=self._offsets[name] + start * dtype.itemsize)


@dataclass(frozen=True)
class Thinning:
    """Which examples of the too frequent classes stay.

    Attributes:
        limits: uint64 (classes): an example stays when the second random number made of its key is not above the
            limit of its class.
        dropped: Examples that do not stay.
    """

    limits: np.ndarray
    dropped: int

    def stays(self, keys: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """bool (N)."""
        return _scrambled(keys) <= self.limits[labels]


def thin(paths: Sequence[Path], shares: np.ndarray) -> Thinning:
    """Chooses ceil(share x count) examples of each class, at random but the same on every run.

    Args:
        paths: Spill files of one split.
        shares: float (number of classes), share of each class that stays, 0 to 1.
    """
    draws: dict[int, list[np.ndarray]] = {label: [] for label in np.flatnonzero(shares < 1).tolist()}
    for path in paths:
        spill = Spill(path)
        for label, parts in draws.items():
            parts.append(_scrambled(spill.keys[spill.labels == label]))
    limits, dropped = np.full(len(shares), np.iinfo(np.uint64).max), 0
    for label, parts in draws.items():
        drawn = np.sort(np.concatenate(parts)) if parts else np.zeros(0, np.uint64)
        kept = int(np.ceil(shares[label] * len(drawn)))
        if kept < len(drawn):
            limits[label], dropped = drawn[kept - 1], dropped + len(drawn) - kept
    return Thinning(limits, dropped)


def label_counts(paths: Sequence[Path], num_classes: int) -> np.ndarray:
    """int64 (num_classes): examples of each class in spill files."""
    counts = np.zeros(num_classes, np.int64)
    for path in paths:
        counts += np.bincount(Spill(path).labels, minlength=num_classes)
    return counts


def balanced_shares(counts: np.ndarray, balance: float) -> np.ndarray:
    """Share of each class that stays: none keeps more than `balance` x the median count of the classes that occur."""
    limit = max(balance * float(np.median(counts[counts > 0])), 1.0)
    return np.minimum(1.0, np.floor(limit) / np.maximum(counts, 1))


def merged(paths: Sequence[Path], thinning: Thinning | None, bucket_tokens: int = BUCKET_TOKENS) -> Iterator[Example]:
    """All examples of one task and split in the order of their keys."""
    tokens = sum(int(Spill(path).lengths.sum()) for path in paths)
    buckets = -(-tokens // bucket_tokens)
    edges = [i * 2**64 // buckets for i in range(1, buckets)] if buckets else []
    for low, high in zip([0, *edges], [*edges, 2**64], strict=True):
        keys, examples = [], []
        for path in paths:
            spill = Spill(path)
            start = int(np.searchsorted(spill.keys, np.uint64(low)))
            stop = len(spill.keys) if high == 2**64 else int(np.searchsorted(spill.keys, np.uint64(high)))
            stay = np.ones(stop - start, bool)
            if thinning is not None:
                stay = thinning.stays(spill.keys[start:stop], spill.labels[start:stop])
            keys.append(spill.keys[start:stop][stay])
            examples += [example for example, kept in zip(spill.examples(start, stop), stay, strict=True) if kept]
        for i in np.argsort(np.concatenate(keys), kind="stable") if keys else []:
            yield examples[i]


def _scrambled(keys: np.ndarray) -> np.ndarray:
    """A second random number from each key (the finaliser of SplitMix64), so that thinning leaves the order random."""
    mixed = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def token_label_counts(example: Example, num_classes: int) -> np.ndarray:
    """int64 (num_classes): tokens of each class; -100 is not counted."""
    labels = example.token_labels[example.token_labels != IGNORED]
    return np.bincount(labels, minlength=num_classes)
