"""Sentence reordering (paper section 3.2.2): n shuffled segments of a passage; which of the sum of n! orders is it?

The classes (the paper does not number them): by the number of segments n = 1..m, then by permutation in lexicographic
order. A permutation is a tuple `order`: order[i] is the original position of the i-th segment shown. With m = 4:
0 = (0), 1 = (0 1), 2 = (1 0), 3 = (0 1 2), ... 8 = (2 1 0), 9 = (0 1 2 3), ... 32 = (3 2 1 0).

`python -m data_gen.generators.sentence_reordering 4` prints the table.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, pairwise, permutations
from math import factorial

import numpy as np

from data_gen.assembling import Packed
from data_gen.packing import Packer, Rejected
from data_gen.tokens import Document
from ernie2.strict import ConfigError

MOST_SEGMENTS = 7  # 1! + ... + 8! classes no longer fit the int16 of the shards' sentence_label


def num_classes(max_segments: int = 4) -> int:
    """Number of classes for m = `max_segments`: 1! + 2! + ... + m!. Raises ConfigError outside 2..7."""
    if not 2 <= max_segments <= MOST_SEGMENTS:
        raise ConfigError(f"generator_args.max_segments: found {max_segments}, expected 2 to {MOST_SEGMENTS}")
    return sum(factorial(n) for n in range(1, max_segments + 1))


def label_of(permutation: Sequence[int]) -> int:
    """Class of a permutation of 0..n-1 (the same whatever m >= n)."""
    rest, rank = sorted(permutation), 0
    assert rest == list(range(len(rest))), "not a permutation of 0..n-1"
    for position in permutation:
        rank += rest.index(position) * factorial(len(rest) - 1)
        rest.remove(position)
    return sum(factorial(n) for n in range(1, len(permutation))) + rank


def permutation_of(label: int, max_segments: int = 4) -> tuple[int, ...]:
    """The permutation that `label` stands for: the inverse of label_of."""
    assert 0 <= label < num_classes(max_segments), f"no class {label}"
    ends = list(accumulate(factorial(n) for n in range(1, max_segments + 1)))
    length = next(n for n, end in enumerate(ends, 1) if label < end)
    rank, rest, permutation = label - sum(factorial(n) for n in range(1, length)), list(range(length)), []
    for left in range(length, 0, -1):
        place, rank = divmod(rank, factorial(left - 1))
        permutation.append(rest.pop(place))
    return tuple(permutation)


def class_table(max_segments: int = 4) -> str:
    """One line a class: label, number of segments, original position of each segment shown."""
    rows = ["label  segments  original position of each segment shown"]
    for label in range(num_classes(max_segments)):
        permutation = permutation_of(label, max_segments)
        rows.append(f"{label:5}  {len(permutation):8}  {' '.join(map(str, permutation))}")
    return "\n".join(rows)


def describe_label(label: int, max_segments: int = 4) -> str:
    """A label in words."""
    permutation = permutation_of(label, max_segments)
    if len(permutation) == 1:
        return "1 segment, nothing to order"
    order = " ".join(str(position + 1) for position in permutation)
    back = " ".join(str(permutation.index(i) + 1) for i in range(len(permutation)))
    return f"{len(permutation)} segments, shown in the order {order} of the original (read them as {back})"


def generate(source: Iterable[Document], rng: np.random.Generator, *, packer: Packer, language: str,
             max_segments: int = 4) -> Iterator[Packed | Rejected]:
    """Takes passages of about max_seq_len, splits each at sentence ends into n segments and shuffles them.

    n is drawn with probability proportional to n!, and the permutation uniformly, so that all classes are equally
    frequent wherever a document has enough sentences left and these fit into max_seq_len; where not, among the n that do.
    So segments end where sentences do (only a sentence longer than max_seq_len is cut).

    Args:
        source: Documents of a block.
        rng: Draws n, the split places and the permutation.
        packer: Makes the examples.
        language: Not used: sentences are given.
        max_segments: m, the most segments of a passage (paper: m not stated; 4 is inferred from Baidu's released code).
    """
    draws = _Draws(rng)
    upper = [list(accumulate(factorial(n) for n in range(1, most + 1))) for most in range(max_segments + 1)]
    orders = [list(permutations(range(n))) for n in range(max_segments + 1)]
    for document in source:
        sentences = document.sentences
        if len(sentences) < 2:
            yield Rejected(document.source, "document of one sentence", sentences[0].text)
            continue
        firsts, ends = sentences.rows[:, :2].T.tolist()
        total, start = len(sentences), 0
        while start < total:
            fitting = bisect_right(ends, firsts[start] + packer.capacity(max_segments)) - start
            most = max(1, min(max_segments, total - start, fitting))
            segments = bisect_right(upper[most], draws.below(upper[most][-1])) + 1
            stop = _passage_end(ends, start, segments, firsts[start] + packer.capacity(segments))
            edges = [start, *draws.places(start + 1, stop, segments - 1), stop]
            parts = [(firsts[a], ends[b - 1]) for a, b in pairwise(edges)]
            rank = draws.below(len(orders[segments]))
            label = rank + (upper[max_segments][segments - 2] if segments > 1 else 0)
            yield packer.pack_stretches(sentences.tokens, [parts[position] for position in orders[segments][rank]], label)
            start = stop


class _Draws:
    """Random whole numbers drawn many at a time: asking a Generator for each costs more than the rest of the work."""

    def __init__(self, rng: np.random.Generator, many: int = 4_096) -> None:
        self._rng, self._many, self._ready = rng, many, []

    def below(self, limit: int) -> int:
        """Uniform over 0 .. limit - 1."""
        if not self._ready:
            self._ready = self._rng.random(self._many).tolist()
        return int(self._ready.pop() * limit)

    def places(self, first: int, stop: int, count: int) -> list[int]:
        """`count` different numbers of first .. stop - 1, rising."""
        chosen: set[int] = set()
        while len(chosen) < count:
            chosen.add(first + self.below(stop - first))
        return sorted(chosen)


def _passage_end(ends: Sequence[int], start: int, fewest: int, limit: int) -> int:
    """Where a passage from sentence `start` on ends: as many as fit, at least `fewest`; it leaves two over rather than one.

    Args:
        ends: Token after the last of each sentence of the document.
        start: First sentence of the passage.
        fewest: Fewest sentences.
        limit: Token that the passage should not reach beyond.
    """
    fitting = bisect_right(ends, limit)
    stop = max(fitting, start + fewest)
    return stop - 1 if stop == len(ends) - 1 > start + fewest else stop


if __name__ == "__main__":
    print(class_table(int(sys.argv[1]) if len(sys.argv) > 1 else 4))
