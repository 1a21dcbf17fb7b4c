"""From sentences to examples: which stretches of text go together as [CLS] a [SEP] b [SEP], and truncation
that keeps units whole.

A generator packs by naming stretches of the block's table of tokens; nothing is copied until `assemble`
builds the rows of all examples of a block at once."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from data_gen.rows import ID_SHIFT, NO_LABEL, SENTENCE_SHIFT, SPECIAL, Rows
from data_gen.text.hash_table import ranges
from data_gen.text.tokens import ALL_LEVELS, WORD, Sentence, Sentences, Tokens
from ernie2.shards import IGNORED

REJECTS_KEPT = 20
"""Rejected texts kept of each reason, task and block."""


@dataclass(slots=True)
class Packed:
    """N examples of as many segments each, as stretches of the block's table: what a generator yields.

    Attributes:
        tokens: The table. stretches: int64 (N, segments, 2), first and last of each segment. labels: int (N),
        classes of the examples, or NO_LABEL. token_labels: int8 array or None for each segment of the
        examples in turn; None where no segment has any."""

    tokens: Tokens
    stretches: np.ndarray
    labels: np.ndarray
    token_labels: list[np.ndarray | None] | None = None

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.labels)


@dataclass(slots=True)
class Run:
    """A stretch [first:last) of a table of tokens.

    Attributes:
        tokens: The table.
        first: First row.
        last: Row after the last.
        token_labels: int8 (last - first), class or -100; None where the task has none."""

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
        return self.tokens.ids[self.first : self.last]

    @property
    def begins(self) -> np.ndarray:
        """uint8 (last - first): what begins at each token, see `data_gen.text.annotate.Tokens`."""
        return self.tokens.begins[self.first : self.last]

    @classmethod
    def of(cls, sentences: Sequence[Sentence], token_labels: np.ndarray | None = None) -> Run:
        """Consecutive sentences as one run; `token_labels` has one value for each of their tokens."""
        opening, last = sentences[0], sentences[-1].last
        assert isinstance(sentences, Sentences) or sum(map(len, sentences)) == last - opening.first, (
            "the sentences of a segment do not follow each other"
        )
        return cls(opening.tokens, opening.first, last, token_labels)

    def safe_cut(self, limit: int) -> int:
        """The last place <= `limit` (tokens) where no unit of any level is cut through.

        Half an example is not given up for one long unit: where the second half of the limit has no such
        place, a phrase or entity is cut at the end of a word, and a word that long anywhere."""
        if limit >= len(self):
            return len(self)
        lowest = limit // 2 + 1
        begins = self.begins[lowest : limit + 1]
        for places in (np.flatnonzero(begins == ALL_LEVELS), np.flatnonzero(begins & WORD)):
            if len(places):
                return lowest + int(places[-1])
        return limit

    def safe_tail(self, limit: int) -> int:
        """The most tokens <= `limit`, counted from the end, that begin where no unit is cut through; else as
        `safe_cut`."""
        if limit >= len(self):
            return len(self)
        begins = self.begins[len(self) - limit : len(self) - limit // 2]
        for places in (np.flatnonzero(begins == ALL_LEVELS), np.flatnonzero(begins & WORD)):
            if len(places):
                return limit - int(places[0])
        return limit

    def part(self, start: int, stop: int) -> Run:
        """Tokens [start:stop)."""
        labels = None if self.token_labels is None else self.token_labels[start:stop]
        return Run(self.tokens, self.first + start, self.first + stop, labels)


class Packer:
    """Makes examples of at most `max_seq_len` tokens.

    Args:
        cls_id: Vocabulary id of [CLS].
        sep_id: Vocabulary id of [SEP].
        max_seq_len: Tokens of an example, special tokens included.
        unk_id: Vocabulary id of [UNK], which is never masked: there is nothing to learn from guessing it.

    Attributes:
        reasons: Why and how often text was rejected.
        rejected: Source, reason and text, of REJECTS_KEPT of each reason."""

    def __init__(self, cls_id: int, sep_id: int, max_seq_len: int, unk_id: int | None = None) -> None:
        self.cls_id, self.sep_id, self.max_seq_len, self.unk_id = cls_id, sep_id, max_seq_len, unk_id
        self.reasons: Counter[str] = Counter()
        self.rejected: list[tuple[str, str, str]] = []

    def reject(self, source: str, reason: str, text: str = "") -> None:
        """Says that a generator cannot use a text: counted by reason, never silently lost.

        Args:
            source: Where the text comes from, `file:line`.
            reason: Short and the same for every like case: it is counted by this text.
            text: The beginning of what is rejected."""
        self.reasons[reason] += 1
        if self.reasons[reason] <= REJECTS_KEPT:
            self.rejected.append((source, reason, text[:80]))

    def capacity(self, segments: int = 1) -> int:
        """Text tokens that fit beside [CLS] and one [SEP] for each of `segments` segments."""
        return self.max_seq_len - 1 - segments

    def pack(
        self,
        segments: Sequence[Run | Sequence[Sentence]],
        sentence_label: int | None = None,
        keep_joint: bool = False,
    ) -> Packed:
        """Packs segments as [CLS] s1 [SEP] s2 [SEP] ...

        What does not fit is cut from the ends of the longest segments, never through a unit where avoidable.
        [CLS] has the first segment's sentence id, each [SEP] that of the segment it closes (figure of Baidu's
        `repro` README).

        Args:
            segments: Each a Run, or sentences in a row; none is empty. sentence_label: Class of the whole
            example, if the task has one. keep_joint: Cut the first segment at its front: where the question
            is what follows it, its end has to stay."""
        runs = [segment if isinstance(segment, Run) else Run.of(segment) for segment in segments]
        labels = [run.token_labels for run in runs]
        stretches = np.array([[(run.first, run.last) for run in runs]])
        sentence_labels = np.array([NO_LABEL if sentence_label is None else sentence_label])
        packed = self.pack_many(runs[0].tokens, stretches, sentence_labels, keep_joint)
        if any(some is not None for some in labels):
            sizes = (packed.stretches[0, :, 1] - packed.stretches[0, :, 0]).tolist()
            packed.token_labels = [some if some is None else some[:size] for some, size in zip(labels, sizes)]
        return packed

    def pack_many(
        self, tokens: Tokens, stretches: np.ndarray, labels: np.ndarray, keep_joint: bool = False
    ) -> Packed:
        """`pack` of many examples at once, none with token labels.

        Args:
            tokens: The table. stretches: int (N, segments, 2), rows [first, last) of each segment; none is
            empty. What does not fit is cut
                in place.
            labels: int (N), classes of the examples.
            keep_joint: As for `pack`."""
        sizes = (stretches[:, :, 1] - stretches[:, :, 0]).sum(axis=1)
        for row in np.flatnonzero(sizes > self.capacity(stretches.shape[1])).tolist():
            stretches[row] = self._truncated(
                [Run(tokens, *edges) for edges in stretches[row].tolist()], keep_joint
            )
        return Packed(tokens, stretches, labels)

    def _truncated(self, runs: list[Run], keep_joint: bool) -> list[tuple[int, int]]:
        """The segments, cut to what fits."""
        limits = fit([len(run) for run in runs], self.capacity(len(runs)))
        cut = [(run.first, run.first + run.safe_cut(limit)) for run, limit in zip(runs, limits, strict=True)]
        if keep_joint:
            cut[0] = runs[0].last - runs[0].safe_tail(limits[0]), runs[0].last
        return cut


def fit(lengths: Sequence[int], capacity: int) -> list[int]:
    """Tokens each segment keeps so that all fit in `capacity`: tokens are taken from the longest, one by one.

    Segments of lengths (5, 100) in 50 keep (5, 45); (60, 100) keep (25, 25); an odd token goes to the earlier
    segment."""
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


def last_rows(sentences: Sequence[Sentence]) -> np.ndarray:
    """int64 (S): row of the table after the last of each sentence."""
    return (
        sentences.rows[:, 1]
        if isinstance(sentences, Sentences)
        else np.array([one.last for one in sentences])
    )


def fill(
    sentences: Sequence[Sentence], capacity: int, rng: np.random.Generator, short_seq_prob: float = 0.1
) -> Iterator[Run]:
    """Cuts consecutive sentences into stretches of at most `capacity` tokens, at sentence ends; uses every
    token once.

    A sentence longer than a stretch is cut at a unit's edge. With probability `short_seq_prob` a stretch aims
    at a random shorter length, so that short inputs are known too (as BERT does).

    Args:
        sentences: Of one document, in order; none is empty.
        capacity: Most tokens in a stretch.
        rng: Draws the short lengths.
        short_seq_prob: 0 to 1."""
    whole = Run.of(sentences)
    ends = (last_rows(sentences) - whole.first).tolist()
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


MAX_SENTENCE_ID = 3
"""sentence_type_vocab_size - 1 of the released configurations; segments beyond the fourth share it."""


def assemble(packed: Sequence[Packed], packer: Packer, order: np.ndarray | None = None) -> Rows:
    """Rows of examples, all of one table, none empty.

    Args:
        packed: What the packer made.
        packer: The packer.
        order: int (N), numbers of the examples in the order wanted. Default: as given."""
    tokens = packed[0].tokens
    assert all(one.tokens is tokens for one in packed), "examples of one block belong to one table of tokens"
    edges = np.concatenate([one.stretches.reshape(-1, 2) for one in packed])
    segments = np.repeat([one.stretches.shape[1] for one in packed], [len(one) for one in packed])
    labels = np.concatenate([one.labels for one in packed])
    token_labels = _token_labels(packed)
    if order is not None:
        opening, labels = np.cumsum(segments) - segments, labels[order]
        segments = segments[order]
        places = ranges(opening[order], segments)
        edges, token_labels = edges[places], token_labels and [token_labels[i] for i in places.tolist()]
    first, sizes = edges[:, 0], edges[:, 1] - edges[:, 0]
    assert sizes.min() > 0, "a segment is empty"
    opening = np.cumsum(segments) - segments  # the first segment of each example
    widths = sizes + 1  # with the [SEP] that closes a segment
    widths[opening] += 1  # and the [CLS] before the first
    ends = np.cumsum(widths)
    at = ends - sizes - 1  # where each segment begins
    # Rows of the table for each token; two rows more, at its end, stand for [CLS] and [SEP].
    source = ranges(first - (at - ends + widths), widths)
    source[at[opening] - 1], source[ends - 1] = len(tokens), len(tokens) + 1
    special = np.array([packer.cls_id << ID_SHIFT | SPECIAL, packer.sep_id << ID_SHIFT | SPECIAL], np.uint32)
    codes = np.append(_table(tokens, packer.unk_id), special).take(source)
    codes[at] |= ALL_LEVELS
    number = np.minimum(np.arange(len(sizes)) - np.repeat(opening, segments), MAX_SENTENCE_ID)
    codes |= np.repeat((number << SENTENCE_SHIFT).astype(np.uint32), widths)
    lengths = np.add.reduceat(widths, opening).astype(np.int32)
    made = None if token_labels is None else _joined_labels(token_labels, sizes, at, len(codes))
    return Rows(lengths, labels.astype(np.int32), codes, made)


def _table(tokens: Tokens, unk_id: int | None) -> np.ndarray:
    """uint32 (T): codes of the tokens of a table, see `data_gen.rows`; [UNK] is special."""
    if tokens.codes is None:
        codes = tokens.ids.astype(np.uint32)
        codes <<= ID_SHIFT
        codes |= tokens.begins
        if unk_id is not None:
            codes[np.flatnonzero(tokens.ids == unk_id)] |= SPECIAL
        tokens.codes = codes
    return tokens.codes


def _token_labels(packed: Sequence[Packed]) -> list[np.ndarray | None] | None:
    """Labels of each segment; None where no example has any."""
    if all(one.token_labels is None for one in packed):
        return None
    return [some for one in packed for some in one.token_labels or [None] * (one.stretches.size // 2)]


def _joined_labels(
    labels: Sequence[np.ndarray | None], sizes: np.ndarray, at: np.ndarray, total: int
) -> np.ndarray:
    """int8 (total), IGNORED on special tokens and where a segment has no labels."""
    made = np.full(total, IGNORED, np.int8)
    for some, begin, size in zip(labels, at.tolist(), sizes.tolist(), strict=True):
        if some is not None:
            made[begin : begin + size] = some
    return made
