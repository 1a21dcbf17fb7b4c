"""Between the workers and the shards: the examples of a block on disk, parted into buckets by a random key.

A worker gives every example a random 64-bit key and writes its block's examples sorted by key, one file for a
task. The range of keys is parted into equal buckets; a bucket of all blocks, sorted, is a shard: a shuffle
over the whole corpus, in memory that depends on neither the corpus nor the number of workers. As keys depend
on nothing but seed, task and block, the result is the same whoever does the work.

A file: header, edges of the buckets in examples and in tokens, then the columns, each end to end,
little-endian. Shapes: N examples of a file, T tokens of all of them, K buckets."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_gen.rows import Rows

_MAGIC = 0x4C4C4950_53324552
_HEADER = 5
_ROW_COLUMNS = (("keys", np.uint64), ("lengths", np.int32), ("labels", np.int32))
_TOKEN_COLUMNS = (("codes", np.uint32), ("token_labels", np.int8))


def bucket_of(keys: np.ndarray, buckets: int) -> np.ndarray:
    """int64 (N): bucket of each key, uint64 (N); rising with the key."""
    return ((keys >> np.uint64(32)) * np.uint64(buckets) >> np.uint64(32)).astype(np.int64)


def write_spill(path: Path, keys: np.ndarray, rows: Rows, buckets: int) -> None:
    """Writes a block's examples: under another name first, so that a file that has its name is whole.

    Args:
        path: File to write.
        keys: uint64 (N), rising.
        rows: The examples in the order of their keys.
        buckets: K."""
    examples = np.searchsorted(bucket_of(keys, buckets), np.arange(buckets + 1))
    tokens = np.concatenate([[0], np.cumsum(rows.lengths, dtype=np.int64)])[examples]
    header = np.array([_MAGIC, len(keys), tokens[-1], buckets, rows.token_labels is not None], np.int64)
    columns = [header, examples.astype(np.int64), tokens, keys, rows.lengths, rows.labels, rows.codes]
    if rows.token_labels is not None:
        columns.append(rows.token_labels)
    tmp = path.with_name(f"{path.name}.{os.uname().nodename}-{os.getpid()}.tmp")
    with tmp.open("wb") as file:
        for column in columns:
            file.write(np.ascontiguousarray(column).data)
    tmp.replace(path)


class Spill:
    """A file of write_spill, open. Use it in a `with`."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDONLY)
        magic, self.examples, self.tokens, self.buckets, self._has_labels = self._read(
            0, _HEADER, np.int64
        ).tolist()
        assert magic == _MAGIC, f"{path} is no spill file"
        at = _HEADER * 8
        self._edges = self._read(at, 2 * (self.buckets + 1), np.int64).reshape(2, -1)
        at += self._edges.nbytes
        self._at = {}
        for columns, count in ((_ROW_COLUMNS, self.examples), (_TOKEN_COLUMNS, self.tokens)):
            for name, dtype in columns:
                self._at[name] = at
                at += count * np.dtype(dtype).itemsize

    def __enter__(self) -> Spill:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def labels(self) -> tuple[np.ndarray, np.ndarray]:
        """uint64 (N) keys and int32 (N) sentence labels of all examples."""
        return self._column("keys", 0, self.examples, np.uint64), self._column(
            "labels", 0, self.examples, np.int32
        )

    def examples_of(self, numbers: range) -> tuple[np.ndarray, Rows]:
        """uint64 keys of the examples of buckets that follow each other, rising, and their rows."""
        (first, last), (begin, end) = self._edges[:, [numbers.start, numbers.stop]].tolist()
        keys, lengths, labels = (self._column(name, first, last, dtype) for name, dtype in _ROW_COLUMNS)
        token_labels = self._column("token_labels", begin, end, np.int8) if self._has_labels else None
        return keys, Rows(lengths, labels, self._column("codes", begin, end, np.uint32), token_labels)

    def _column(self, name: str, start: int, stop: int, dtype: type) -> np.ndarray:
        return self._read(self._at[name] + start * np.dtype(dtype).itemsize, stop - start, dtype)

    def _read(self, at: int, count: int, dtype: type) -> np.ndarray:
        return np.frombuffer(os.pread(self._file, count * np.dtype(dtype).itemsize, at), dtype)


@dataclass(frozen=True)
class Thinning:
    """Which examples of the too frequent classes stay.

    Attributes:
        limits: uint64 (classes): an example stays when the second random number made of its key is not above
        the
            limit of its class."""

    limits: np.ndarray

    def stays(self, keys: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """bool (N)."""
        return _scrambled(keys) <= self.limits[labels]


def thin(paths: Iterable[Path], limits: np.ndarray) -> Thinning:
    """Chooses `limits` examples of each class, at random but the same on every run.

    Args:
        paths: Spill files of one split.
        limits: int (number of classes), examples of each class that stay, where there are as many."""
    draws: list[list[np.ndarray]] = [[] for _ in limits]
    for path in paths:
        with Spill(path) as spill:
            keys, labels = spill.labels()
        drawn = _scrambled(keys)[np.argsort(labels, kind="stable")]
        edges = np.cumsum(np.bincount(labels, minlength=len(limits)))[:-1]
        for draw, some in zip(draws, np.split(drawn, edges), strict=True):
            draw.append(some)
    highest = np.full(len(limits), np.iinfo(np.uint64).max)
    for label, (draw, kept) in enumerate(zip(draws, limits.tolist(), strict=True)):
        drawn = np.concatenate(draw or [np.zeros(0, np.uint64)])
        if kept < len(drawn):
            highest[label] = np.partition(drawn, kept - 1)[kept - 1]
    return Thinning(highest)


def class_limits(counts: np.ndarray, balance: float | None, max_per_class: int | None) -> np.ndarray:
    """int64 (classes): examples of each class that stay.

    Args:
        counts: int64 (classes), examples of each. balance: None keeps more than this times the median count
        of the classes that occur; null: no such limit. max_per_class: None keeps more than this; null: no
        such limit."""
    limits = counts.copy()
    if balance is not None and counts.any():
        limits = np.minimum(limits, max(int(balance * float(np.median(counts[counts > 0]))), 1))
    return limits if max_per_class is None else np.minimum(limits, max_per_class)


def read_buckets(paths: Sequence[Path], numbers: range, thinning: Thinning | None) -> Iterator[Rows | None]:
    """The examples of each of some buckets, of all files, in the order of their keys; None of an empty
    bucket.

    Args:
        paths: Spill files, parted into the same buckets. numbers: Buckets that follow each other. They are
        read together: to find one in a file takes as long as to read it. thinning: What is left out."""
    if not paths:
        yield from (None for _ in numbers)
        return
    keys, parts, buckets = [], [], 0
    for path in paths:
        with Spill(path) as spill:
            found, rows = spill.examples_of(numbers)
            buckets = spill.buckets
        keys.append(found)
        parts.append(rows)
    joined, rows = np.concatenate(keys), Rows.joined(parts)
    del keys, parts  # they hold the tokens a second time
    order = np.argsort(joined, kind="stable")
    edges = np.searchsorted(bucket_of(joined[order], buckets), np.arange(numbers.start, numbers.stop + 1))
    stays = None if thinning is None else thinning.stays(joined, rows.labels)
    for first, last in itertools.pairwise(edges.tolist()):
        some = order[first:last] if stays is None else order[first:last][stays[order[first:last]]]
        yield rows.take(some) if len(some) else None


def _scrambled(keys: np.ndarray) -> np.ndarray:
    """A second random number from each key (the finaliser of SplitMix64), so that thinning leaves the order
    random."""
    mixed = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
