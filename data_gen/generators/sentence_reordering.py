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
from itertools import accumulate, pairwise
from math import factorial

import numpy as np

from data_gen.annotate import Document
from data_gen.packing import Packer, Rejected
from ernie2.config import ConfigError
from ernie2.shards import Example

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
             max_segments: int = 4) -> Iterator[Example | Rejected]:
    """Takes passages of about max_seq_len, splits each at sentence ends into n segments and shuffles them.

    n is drawn with probability proportional to n!, and the permutation uniformly, so that all classes are equally
    frequent wherever a document has enough sentences left; where it has not, among the n that it has.

    Args:
        source: Documents of a block.
        rng: Draws n, the split places and the permutation.
        packer: Makes the examples.
        language: Not used: sentences are given.
        max_segments: m, the most segments of a passage (paper: m not stated; 4 is inferred from Baidu's released code).
    """
    for document in source:
        if len(document.sentences) < 2:
            yield Rejected(document.source, "document of one sentence", document.sentences[0].text)
            continue
        ends = np.cumsum([0] + [len(sentence) for sentence in document.sentences])
        start = 0
        while start < len(document.sentences):
            segments = draw_segments(rng, min(max_segments, len(document.sentences) - start))
            stop = _passage_end(ends, start, segments, packer.capacity(segments))
            inner = rng.permutation(stop - start - 1)[:segments - 1] + start + 1
            parts = [document.sentences[a:b] for a, b in pairwise([start, *sorted(inner.tolist()), stop])]
            order = tuple(rng.permutation(segments).tolist())
            yield packer.pack([parts[position] for position in order], label_of(order))
            start = stop


def draw_segments(rng: np.random.Generator, most: int) -> int:
    """n from 1..most with probability n! / (1! + ... + most!)."""
    upper = list(accumulate(factorial(n) for n in range(1, most + 1)))
    return bisect_right(upper, int(rng.integers(upper[-1]))) + 1


def _passage_end(ends: np.ndarray, start: int, fewest: int, capacity: int) -> int:
    """Where a passage from sentence `start` on ends: as many as fit, at least `fewest`, never leaving one over.

    Args:
        ends: int (sentences + 1), tokens before each sentence of the document, and all.
        start: First sentence of the passage.
        fewest: Fewest sentences.
        capacity: Tokens that fit.
    """
    fitting = int(np.searchsorted(ends, ends[start] + capacity, side="right")) - 1
    stop, total = max(fitting, start + fewest), len(ends) - 1
    return total if stop == total - 1 else stop


if __name__ == "__main__":
    print(class_table(int(sys.argv[1]) if len(sys.argv) > 1 else 4))
