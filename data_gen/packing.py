"""From sentences to examples: [CLS] a [SEP] b [SEP], sentence ids, span ids, and truncation that keeps units whole.

A generator packs by naming stretches of the block's table of tokens; nothing is copied until `assemble` builds the rows of
all examples of a block at once.

Shapes: N examples, T tokens of all of them, end to end.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from data_gen.rows import NO_LABEL, SENTENCE_SHIFT, SPECIAL, Rows
from data_gen.tokens import ALL_LEVELS, WORD, Sentence, Tokens
from ernie2.shards import IGNORED, Example

MAX_SENTENCE_ID = 3
"""sentence_type_vocab_size - 1 of the released configurations; segments beyond the fourth share it."""


@dataclass(slots=True)
class Rejected:
    """What a generator yields in place of an example for text it cannot use: counted by reason, never silently lost.

    Attributes:
        source: Where the text comes from, `file:line`.
        reason: Short and the same for every like case: it is counted by this text.
        text: The beginning of what was rejected.
    """

    source: str
    reason: str
    text: str = ""


@dataclass(slots=True)
class Run:
    """A stretch [first:last) of a table of tokens.

    Attributes:
        tokens: The table.
        first: First row.
        last: Row after the last.
        token_labels: int8 (last - first), class or -100; None where the task has none.
    """

    tokens: Tokens
    first: int
    last: int
    token_labels: np.ndarray | None = None

    def __len__(self) -> int:
        """Number of tokens."""
        return self.last - self.first

    @property
    def token_ids(self) -> np.ndarray:
        """int32 (last - first), without special tokens."""
        return self.tokens.ids[self.first:self.last]

    @property
    def begins(self) -> np.ndarray:
        """uint8 (last - first): what begins at each token, see `data_gen.annotate.Tokens`."""
        return self.tokens.begins[self.first:self.last]

    @classmethod
    def of(cls, sentences: Sequence[Sentence], token_labels: np.ndarray | None = None) -> Run:
        """Consecutive sentences as one run; `token_labels` has one value for each of their tokens."""
        first, last = sentences[0].first, sentences[-1].last
        assert sum(map(len, sentences)) == last - first, "the sentences of a segment do not follow each other"
        return cls(sentences[0].tokens, first, last, token_labels)

    def safe_cut(self, limit: int) -> int:
        """The last place <= `limit` (tokens) where no unit of any level is cut through.

        Half an example is not given up for one long unit: where the second half of the limit has no such place, a
        phrase or entity is cut at the end of a word, and a word that long anywhere.
        """
        if limit >= len(self):
            return len(self)
        lowest = limit // 2 + 1
        begins = self.begins[lowest:limit + 1]
        for places in (np.flatnonzero(begins == ALL_LEVELS), np.flatnonzero(begins & WORD)):
            if len(places):
                return lowest + int(places[-1])
        return limit

    def safe_tail(self, limit: int) -> int:
        """The most tokens <= `limit`, counted from the end, that begin where no unit is cut through; else as `safe_cut`."""
        if limit >= len(self):
            return len(self)
        begins = self.begins[len(self) - limit:len(self) - limit // 2]
        for places in (np.flatnonzero(begins == ALL_LEVELS), np.flatnonzero(begins & WORD)):
            if len(places):
                return limit - int(places[0])
        return limit

    def part(self, start: int, stop: int) -> Run:
        """Tokens [start:stop)."""
        labels = None if self.token_labels is None else self.token_labels[start:stop]
        return Run(self.tokens, self.first + start, self.first + stop, labels)


@dataclass(slots=True)
class Packed:
    """An example as stretches of the block's table; becomes rows in `assemble`.

    Attributes:
        tokens: The table.
        stretches: (first, last) of each segment.
        sentence_label: Class of the whole example, or None.
        token_labels: One array for each segment, or None where none has any.
    """

    tokens: Tokens
    stretches: list[tuple[int, int]]
    sentence_label: int | None
    token_labels: list[np.ndarray | None] | None

    def __len__(self) -> int:
        """Number of tokens with special tokens."""
        return 1 + sum(last - first + 1 for first, last in self.stretches)

    def example(self, packer: Packer) -> Example:
        """The example by itself."""
        return assemble([self], packer).examples()[0]


class Packer:
    """Makes examples of at most `max_seq_len` tokens.

    Args:
        cls_id: Vocabulary id of [CLS].
        sep_id: Vocabulary id of [SEP].
        max_seq_len: Tokens of an example, special tokens included.
        unk_id: Vocabulary id of [UNK], which is never masked: there is nothing to learn from guessing it.
    """

    def __init__(self, cls_id: int, sep_id: int, max_seq_len: int, unk_id: int | None = None) -> None:
        self.cls_id, self.sep_id, self.max_seq_len, self.unk_id = cls_id, sep_id, max_seq_len, unk_id

    def capacity(self, segments: int = 1) -> int:
        """Text tokens that fit beside [CLS] and one [SEP] for each of `segments` segments."""
        return self.max_seq_len - 1 - segments

    def pack(self, segments: Sequence[Run | Sequence[Sentence]], sentence_label: int | None = None,
             keep_joint: bool = False) -> Packed:
        """Packs segments as [CLS] s1 [SEP] s2 [SEP] ...

        What does not fit is cut from the ends of the longest segments, never through a unit where avoidable. [CLS] has
        the first segment's sentence id, each [SEP] that of the segment it closes (figure of Baidu's `repro` README).

        Args:
            segments: Each a Run, or sentences in a row; none is empty.
            sentence_label: Class of the whole example, if the task has one.
            keep_joint: Cut the first segment at its front: where the question is what follows it, its end has to stay.
        """
        stretches, labels, size, labelled = [], [], 1, False
        for segment in segments:
            run = segment if isinstance(segment, Run) else segment[0] if len(segment) == 1 else Run.of(segment)
            stretches.append((run.first, run.last))
            size += run.last - run.first + 1
            if isinstance(run, Run) and run.token_labels is not None:
                labelled = True
                labels.append(run.token_labels)
            else:
                labels.append(None)
        packed = Packed(run.tokens, stretches, sentence_label, labels if labelled else None)
        if size > self.max_seq_len:
            self._truncate(packed, keep_joint)
        return packed

    def _truncate(self, packed: Packed, keep_joint: bool) -> None:
        """Cuts the segments to what fits."""
        runs = [Run(packed.tokens, first, last) for first, last in packed.stretches]
        limits = fit([len(run) for run in runs], self.capacity(len(runs)))
        sizes = [run.safe_cut(limit) for run, limit in zip(runs, limits, strict=True)]
        packed.stretches = [(run.first, run.first + size) for run, size in zip(runs, sizes, strict=True)]
        if keep_joint:
            packed.stretches[0] = (runs[0].last - runs[0].safe_tail(limits[0]), runs[0].last)
        if packed.token_labels is not None:
            packed.token_labels = [None if labels is None else labels[:size]
                                   for labels, size in zip(packed.token_labels, sizes, strict=True)]


def assemble(packed: Sequence[Packed], packer: Packer) -> Rows:
    """Rows of examples, in the order given; all of one table, none empty."""
    tokens = packed[0].tokens
    assert all(one.tokens is tokens for one in packed), "examples of one block belong to one table of tokens"
    count = len(packed)
    segments = np.fromiter((len(one.stretches) for one in packed), np.int64, count)
    edges = np.fromiter(chain.from_iterable(chain.from_iterable(one.stretches for one in packed)), np.int64,
                        2 * int(segments.sum())).reshape(-1, 2)
    first, sizes = edges[:, 0], edges[:, 1] - edges[:, 0]
    assert sizes.min() > 0, "a segment is empty"
    opening = np.cumsum(segments) - segments  # the first segment of each example
    widths = sizes + 1  # with the [SEP] that closes a segment
    widths[opening] += 1  # and the [CLS] before the first
    ends = np.cumsum(widths)
    at = ends - sizes - 1  # where each segment begins
    # Rows of the table for each token; two rows more, at its end, stand for [CLS] and [SEP].
    source = np.repeat(first - at, widths)
    source += np.arange(len(source))
    source[at[opening] - 1], source[ends - 1] = len(tokens), len(tokens) + 1
    # Id and flags in one number: one gathering is nearly twice as fast as two.
    special = np.array([packer.cls_id << 8 | SPECIAL, packer.sep_id << 8 | SPECIAL], np.uint32)
    both = np.append(tokens.ids.astype(np.uint32) << 8 | tokens.begins, special)[source]
    ids, flags = (both >> 8).astype(np.int32), (both & 255).astype(np.uint8)
    flags[at] |= ALL_LEVELS
    if packer.unk_id is not None:
        flags[np.flatnonzero(ids == packer.unk_id)] |= SPECIAL
    lengths = np.add.reduceat(widths, opening)
    of = np.repeat(np.arange(count), segments)
    number = np.minimum(np.arange(len(sizes)) - opening[of], MAX_SENTENCE_ID)
    flags |= np.repeat((number << SENTENCE_SHIFT).astype(np.uint8), widths)
    labels = np.array([NO_LABEL if one.sentence_label is None else one.sentence_label for one in packed], np.int32)
    return Rows(lengths.astype(np.int32), labels, ids, flags, _token_labels(packed, sizes, at, len(ids)))


def _token_labels(packed: Sequence[Packed], sizes: np.ndarray, at: np.ndarray, total: int) -> np.ndarray | None:
    """int8 (total), IGNORED on special tokens and where a segment has no labels; None where no example has any."""
    if all(one.token_labels is None for one in packed):
        return None
    made = np.full(total, IGNORED, np.int8)
    given = chain.from_iterable(one.token_labels or [None] * len(one.stretches) for one in packed)
    for labels, begin, size in zip(given, at.tolist(), sizes.tolist(), strict=True):
        if labels is not None:
            made[begin:begin + size] = labels
    return made


def fit(lengths: Sequence[int], capacity: int) -> list[int]:
    """Tokens each segment keeps so that all fit in `capacity`: tokens are taken from the longest, one by one.

    Segments of lengths (5, 100) in 50 keep (5, 45); (60, 100) keep (25, 25); an odd token goes to the earlier segment.
    """
    if sum(lengths) <= capacity:
        return list(lengths)
    left, level = capacity, 0
    for i, length in enumerate(sorted(lengths)):
        level = left // (len(lengths) - i)
        if length > level:
            break
        left -= length
    kept = [min(length, level) for length in lengths]
    for i, length in enumerate(lengths):
        if sum(kept) < capacity and length > level:
            kept[i] += 1
    return kept


def fill(sentences: Sequence[Sentence], capacity: int, rng: np.random.Generator,
         short_seq_prob: float = 0.1) -> Iterator[Run]:
    """Cuts consecutive sentences into stretches of at most `capacity` tokens, at sentence ends; uses every token once.

    A sentence longer than a stretch is cut at a unit's edge. With probability `short_seq_prob` a stretch aims at a
    random shorter length, so that short inputs are known too (as BERT does).

    Args:
        sentences: Of one document, in order; none is empty.
        capacity: Most tokens in a stretch.
        rng: Draws the short lengths.
        short_seq_prob: 0 to 1.
    """
    whole = Run.of(sentences)
    ends = [sentence.last - whole.first for sentence in sentences]
    start = 0
    while start < len(whole):
        target = _target(capacity, rng, short_seq_prob)
        last = bisect_right(ends, start + target) - 1
        stop = ends[last] if last >= 0 else 0
        if stop <= start:  # the next sentence alone is longer than the stretch
            rest = whole.part(start, ends[last + 1])
            stop = start + rest.safe_cut(capacity)
        yield whole.part(start, stop)
        start = stop


def _target(capacity: int, rng: np.random.Generator, short_seq_prob: float) -> int:
    if rng.random() >= short_seq_prob:
        return capacity
    return int(rng.integers(min(8, capacity), capacity + 1))
