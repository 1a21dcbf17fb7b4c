"""From sentences to one example: [CLS] a [SEP] b [SEP], sentence ids, span ids, and truncation that keeps units whole.

Shapes: T tokens of an example. A run is a stretch of tokens, of one sentence or of several in a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from data_gen.annotate import Sentence
from ernie2.shards import IGNORED, LEVELS, Example

MAX_SENTENCE_ID = 3
"""sentence_type_vocab_size - 1 of the released configurations; segments beyond the fourth share it."""


@dataclass(slots=True)
class Rejected:
    """What a generator yields in place of an Example for text it cannot use: counted by reason, never silently lost.

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
    """A stretch of tokens.

    Attributes:
        token_ids: int32 (T), no special tokens.
        spans: int32 (levels, T), in the order of ernie2.shards.LEVELS: unit of each token, rising, unique in the run.
        token_labels: int8 (T), class or -100; None where the task has none.
    """

    token_ids: np.ndarray
    spans: np.ndarray
    token_labels: np.ndarray | None = None

    def __len__(self) -> int:
        """Number of tokens."""
        return len(self.token_ids)

    @property
    def words(self) -> np.ndarray:
        """int32 (T): word of each token."""
        return self.spans[LEVELS.index("word")]

    @classmethod
    def of(cls, sentences: Sequence[Sentence], token_labels: np.ndarray | None = None) -> Run:
        """Sentences in a row as one run; `token_labels` has one value for each of their tokens."""
        levels = [[getattr(sentence, f"{level}_ids") for sentence in sentences] for level in LEVELS]
        if len(sentences) == 1:
            return cls(sentences[0].token_ids, np.array([ids[0] for ids in levels], np.int32), token_labels)
        spans = np.array([np.concatenate(ids) for ids in levels], np.int32)
        lengths = [len(sentence) for sentence in sentences]
        units = np.array([[int(ids[-1]) + 1 for ids in level] for level in levels], np.int32)
        spans += np.repeat(np.cumsum(units, axis=1, dtype=np.int32) - units, lengths, axis=1)
        return cls(np.concatenate([sentence.token_ids for sentence in sentences]), spans, token_labels)

    def safe_cut(self, limit: int) -> int:
        """The last place <= `limit` (tokens) where no unit of any level is cut through.

        Half an example is not given up for one long unit: where the second half of the limit has no such place, a
        phrase or entity is cut at the end of a word, and a word that long anywhere.
        """
        if limit >= len(self):
            return len(self)
        lowest = limit // 2 + 1
        begins = self.spans[:, lowest:limit + 1] != self.spans[:, lowest - 1:limit]
        for places in (np.flatnonzero(begins.all(axis=0)), np.flatnonzero(begins[LEVELS.index("word")])):
            if len(places):
                return lowest + int(places[-1])
        return limit

    def part(self, start: int, stop: int) -> Run:
        """Tokens [start:stop)."""
        labels = None if self.token_labels is None else self.token_labels[start:stop]
        return Run(self.token_ids[start:stop], self.spans[:, start:stop], labels)


class Packer:
    """Makes examples of at most `max_seq_len` tokens.

    Args:
        cls_id: Vocabulary id of [CLS].
        sep_id: Vocabulary id of [SEP].
        max_seq_len: Tokens of an example, special tokens included.
    """

    def __init__(self, cls_id: int, sep_id: int, max_seq_len: int) -> None:
        self.cls_id, self.sep_id, self.max_seq_len = cls_id, sep_id, max_seq_len

    def capacity(self, segments: int = 1) -> int:
        """Text tokens that fit beside [CLS] and one [SEP] for each of `segments` segments."""
        return self.max_seq_len - 1 - segments

    def pack(self, segments: Sequence[Run | Sequence[Sentence]], sentence_label: int | None = None) -> Example:
        """Packs segments as [CLS] s1 [SEP] s2 [SEP] ...

        What does not fit is cut from the ends of the longest segments, never through a unit where avoidable. [CLS] has
        the first segment's sentence id, each [SEP] that of the segment it closes (figure of Baidu's `repro` README).

        Args:
            segments: Each a Run, or sentences in a row; none is empty.
            sentence_label: Class of the whole example, if the task has one.

        Returns:
            Example with span ids of every level: unique over the example, -1 on special tokens. Token labels are those
            of the runs, -100 on special tokens, or None where no run has any.
        """
        runs = [segment if isinstance(segment, Run) else Run.of(segment) for segment in segments]
        assert runs and all(len(run) for run in runs), "a segment is empty"
        limits = fit([len(run) for run in runs], self.capacity(len(runs)))
        runs = [run.part(0, run.safe_cut(limit)) for run, limit in zip(runs, limits, strict=True)]
        length = 1 + sum(len(run) + 1 for run in runs)
        token_ids, sentence_ids = np.full(length, self.sep_id, np.int32), np.zeros(length, np.int8)
        spans = np.full((len(LEVELS), length), -1, np.int16)
        labelled = any(run.token_labels is not None for run in runs)
        token_labels = np.full(length, IGNORED, np.int8) if labelled else None
        token_ids[0] = self.cls_id
        start, units = 1, np.zeros((len(LEVELS), 1), np.int32)
        for number, run in enumerate(runs):
            stop = start + len(run)
            token_ids[start:stop] = run.token_ids
            sentence_ids[start:stop + 1] = min(number, MAX_SENTENCE_ID)
            spans[:, start:stop] = run.spans + (units - run.spans[:, :1])
            units = spans[:, stop - 1:stop] + np.int32(1)
            if run.token_labels is not None:
                token_labels[start:stop] = run.token_labels
            start = stop + 1
        return Example(token_ids, sentence_ids, dict(zip(LEVELS, spans, strict=True)), token_labels, sentence_label)


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


def fill(sentences: Sequence[Sentence], capacity: int, rng: np.random.Generator, short_seq_prob: float = 0.1,
         token_labels: np.ndarray | None = None) -> Iterator[Run]:
    """Cuts consecutive sentences into stretches of at most `capacity` tokens, at sentence ends; uses every token once.

    A sentence longer than a stretch is cut at a unit's edge. With probability `short_seq_prob` a stretch aims at a
    random shorter length, so that short inputs are known too (as BERT does).

    Args:
        sentences: Of one document, in order; none is empty.
        capacity: Most tokens in a stretch.
        rng: Draws the short lengths.
        short_seq_prob: 0 to 1.
        token_labels: int8, one for each token of all sentences in a row; the stretches carry their share.

    Yields:
        Runs whose span ids are those of `Run.of(sentences)`: unique over all stretches: they name units of the whole.
    """
    whole = Run.of(sentences, token_labels)
    ends = np.cumsum([len(sentence) for sentence in sentences])
    start = 0
    while start < len(whole):
        target = _target(capacity, rng, short_seq_prob)
        last = int(np.searchsorted(ends, start + target, side="right")) - 1
        stop = int(ends[last]) if last >= 0 else 0
        if stop <= start:  # the next sentence alone is longer than the stretch
            rest = whole.part(start, int(ends[last + 1]))
            stop = start + rest.safe_cut(capacity)
        yield whole.part(start, stop)
        start = stop


def _target(capacity: int, rng: np.random.Generator, short_seq_prob: float) -> int:
    if rng.random() >= short_seq_prob:
        return capacity
    return int(rng.integers(min(8, capacity), capacity + 1))
