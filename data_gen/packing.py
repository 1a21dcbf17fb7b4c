"""From sentences to one example: [CLS] a [SEP] b [SEP], sentence ids, span ids, and truncation that keeps units whole.

Shapes: T tokens of an example. A run is a stretch of tokens, of one sentence or of several in a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

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
    """A stretch of tokens. All arrays have shape (T,).

    Attributes:
        token_ids: int32, no special tokens.
        span_ids: Level -> int32; unit of each token, rising, unique in the run.
        token_labels: int8, class or -100; None where the task has none.
    """

    token_ids: np.ndarray
    span_ids: dict[str, np.ndarray]
    token_labels: np.ndarray | None = None

    def __len__(self) -> int:
        """Number of tokens."""
        return len(self.token_ids)

    @classmethod
    def of(cls, sentences: Sequence[Sentence], token_labels: np.ndarray | None = None) -> Run:
        """Sentences in a row as one run; `token_labels` has one value for each of their tokens."""
        spans = {level: _renumbered([getattr(sentence, f"{level}_ids") for sentence in sentences]) for level in LEVELS}
        tokens = np.concatenate([sentence.token_ids for sentence in sentences]) if sentences else np.zeros(0, np.int32)
        return cls(tokens, spans, token_labels)

    def safe_cut(self, limit: int) -> int:
        """The last place <= `limit` (tokens) where no unit of any level is cut through.

        Units longer than half the limit are cut through all the same: half an example is not given up for one long unit.
        """
        if limit >= len(self):
            return len(self)
        for place in range(limit, max(limit // 2, 0), -1):
            if all(ids[place - 1] != ids[place] for ids in self.span_ids.values()):
                return place
        return limit

    def part(self, start: int, stop: int) -> Run:
        """Tokens [start:stop)."""
        labels = None if self.token_labels is None else self.token_labels[start:stop]
        return Run(self.token_ids[start:stop], {level: ids[start:stop] for level, ids in self.span_ids.items()}, labels)


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

        What does not fit is cut from the ends of the longest segments, never through a unit where avoidable. [CLS] has the
        first segment's sentence id, each [SEP] that of the segment it closes (model figure of Baidu's `repro` README).

        Args:
            segments: Each a Run, or sentences in a row; none is empty.
            sentence_label: Class of the whole example, if the task has one.

        Returns:
            Example with span ids of every level: unique over the example, -1 on special tokens. Token labels are those of
            the runs, -100 on special tokens, or None where no run has any.
        """
        runs = [segment if isinstance(segment, Run) else Run.of(segment) for segment in segments]
        assert runs and all(len(run) for run in runs), "a segment is empty"
        limits = fit([len(run) for run in runs], self.capacity(len(runs)))
        runs = [run.part(0, run.safe_cut(limit)) for run, limit in zip(runs, limits, strict=True)]
        ids = [min(i, MAX_SENTENCE_ID) for i in range(len(runs))]
        return Example(
            token_ids=self._framed([run.token_ids for run in runs], self.cls_id, self.sep_id, np.int32),
            sentence_ids=np.repeat(np.array(ids, np.int8), [len(run) + 1 + (i == 0) for i, run in enumerate(runs)]),
            span_ids={level: self._spans([run.span_ids[level] for run in runs]) for level in LEVELS},
            token_labels=self._labels(runs),
            sentence_label=sentence_label,
        )

    def _spans(self, parts: list[np.ndarray]) -> np.ndarray:
        lengths = np.cumsum([0] + [len(part) for part in parts])
        whole = _renumbered(parts)
        parts = [whole[a:b] for a, b in pairwise(lengths)]
        return self._framed(parts, -1, -1, np.int16)

    def _labels(self, runs: list[Run]) -> np.ndarray | None:
        if all(run.token_labels is None for run in runs):
            return None
        parts = [np.full(len(run), IGNORED) if run.token_labels is None else run.token_labels for run in runs]
        return self._framed(parts, IGNORED, IGNORED, np.int8)

    @staticmethod
    def _framed(parts: list[np.ndarray], first: int, last: int, dtype: type) -> np.ndarray:
        pieces = [np.array([first])]
        for part in parts:
            pieces += [part, np.array([last])]
        return np.concatenate(pieces).astype(dtype)


def fit(lengths: Sequence[int], capacity: int) -> list[int]:
    """Tokens each segment keeps so that all fit in `capacity`: tokens are taken from the longest, one by one.

    Segments of lengths (5, 100) in 50 keep (5, 45); (60, 100) keep (25, 25); an odd token goes to the earlier segment.
    """
    if sum(lengths) <= capacity:
        return list(lengths)
    level = max(n for n in range(capacity + 1) if sum(min(length, n) for length in lengths) <= capacity)
    kept = [min(length, level) for length in lengths]
    for i, length in enumerate(lengths):
        if sum(kept) < capacity and length > level:
            kept[i] += 1
    return kept


def fill(sentences: Sequence[Sentence], capacity: int, rng: np.random.Generator, short_seq_prob: float = 0.1,
         token_labels: np.ndarray | None = None) -> Iterator[Run]:
    """Cuts consecutive sentences into stretches of at most `capacity` tokens, at sentence ends; every token is used once.

    A sentence longer than a stretch is cut at a unit's edge. With probability `short_seq_prob` a stretch aims at a random
    shorter length, so that short inputs are known too (as BERT does).

    Args:
        sentences: Of one document, in order; none is empty.
        capacity: Most tokens in a stretch.
        rng: Draws the short lengths.
        short_seq_prob: 0 to 1.
        token_labels: int8, one for each token of all sentences in a row; the stretches carry their share.

    Yields:
        Runs whose span ids are those of `Run.of(sentences)`: unique over all stretches, so that they name units of the whole.
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


def _renumbered(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Unit ids of several stretches in a row, counted on from 0 so that none occurs in two of them; int32 (sum of T)."""
    shifted, offset = [np.zeros(0, np.int32)], 0
    for part in parts:
        if len(part):
            shifted.append(part.astype(np.int32) - int(part[0]) + offset)
            offset = int(shifted[-1][-1]) + 1
    return np.concatenate(shifted)
