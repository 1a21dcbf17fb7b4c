"""Sentence reordering (paper section 3.2.2): n shuffled segments of a passage; which of the sum of n! orders
is it?

The classes (the paper does not number them): by the number of segments n = 1..m, then by permutation in
lexicographic order. A permutation is a tuple `order`: order[i] is the original position of the i-th segment
shown. With m = 4: 0 = (0), 1 = (0 1), 2 = (1 0), 3 = (0 1 2), ... 8 = (2 1 0), 9 = (0 1 2 3), ... 32 = (3 2 1
0).

`python -m data_gen.generators.sentence_reordering 4` prints the table."""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, permutations
from math import factorial

import numpy as np

from data_gen.generators import Labels
from data_gen.packing import Packed, Packer
from data_gen.text.tokens import Document
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


def labels(max_segments: int = 4) -> Labels:
    """Classes of the sentence head."""
    orders = [permutation_of(label, max_segments) for label in range(num_classes(max_segments))]
    return Labels(list(map(_described, orders)), orders)


def _described(permutation: Sequence[int]) -> str:
    if len(permutation) == 1:
        return "1 segment, nothing to order"
    order = " ".join(str(position + 1) for position in permutation)
    back = " ".join(str(permutation.index(i) + 1) for i in range(len(permutation)))
    return f"{len(permutation)} segments, shown in the order {order} of the original (read them as {back})"


def generate(
    source: Iterable[Document],
    rng: np.random.Generator,
    *,
    packer: Packer,
    language: str,
    max_segments: int = 4,
) -> Iterator[Packed]:
    """Takes passages of about max_seq_len, splits each at sentence ends into n segments and shuffles them.

    n is drawn with probability proportional to n!, and the permutation uniformly, so that all classes are
    equally frequent wherever a document has enough sentences left and these fit into max_seq_len; where not,
    among the n that do. So segments end where sentences do (only a sentence longer than max_seq_len is cut).

    Args:
        source: Documents of a block. rng: Draws n, the split places and the permutation. packer: Makes the
        examples. language: Not used: sentences are given. max_segments: m, the most segments of a passage
        (paper: m not stated; 4 is inferred from Baidu's released code)."""
    usable = []
    for document in source:
        if len(document.sentences) < 2:
            packer.reject(document.source, "document of one sentence", document.sentences[0].text)
        else:
            usable.append(document.sentences)
    if not usable:
        return
    rows = np.concatenate([sentences.rows[:, :2] for sentences in usable])
    starts, stops, segments = _passages(
        rows, [len(sentences) for sentences in usable], rng, packer, max_segments
    )
    before = 0  # classes of fewer segments
    for n in range(1, max_segments + 1):
        these = np.flatnonzero(segments == n)
        edges = _edges(starts[these], stops[these], n, rng)
        stretches = np.stack([rows[edges[:, :-1], 0], rows[edges[:, 1:] - 1, 1]], axis=2)
        ranks = rng.integers(factorial(n), size=len(these))
        orders = np.array(list(permutations(range(n))))[ranks]
        if len(these):
            yield packer.pack_many(
                usable[0].tokens, np.take_along_axis(stretches, orders[:, :, None], axis=1), before + ranks
            )
        before += factorial(n)


def _passages(
    rows: np.ndarray, sizes: Sequence[int], rng: np.random.Generator, packer: Packer, max_segments: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Parts documents into passages, and says into how many segments each is split; three int arrays
    (passages).

    Args:
        rows: int (S, 2), first token of each sentence of all documents, end to end, and the token after its
        last. sizes: Sentences of each document. rng: Draws the numbers of segments. packer: Says what fits.
        max_segments: See `generate`.

    Returns:
        First sentence, sentence after the last, segments."""
    upper = [list(accumulate(factorial(n) for n in range(1, most + 1))) for most in range(max_segments + 1)]
    room = [packer.capacity(n) for n in range(max_segments + 1)]
    chances = rng.random(
        len(rows)
    ).tolist()  # that of its first sentence is a passage's: asking for one at a time is slow
    firsts, ends = rows.T.tolist()
    passages, start = [], 0
    for last in accumulate(sizes):
        while start < last:
            fitting = bisect_right(ends, firsts[start] + room[max_segments], start, last) - start
            most = max(1, min(max_segments, last - start, fitting))
            n = bisect_right(upper[most], int(chances[start] * upper[most][-1])) + 1
            stop = max(bisect_right(ends, firsts[start] + room[n], start, last), start + n)
            if stop == last - 1 > start + n:
                stop -= 1  # leave two sentences over rather than one
            passages.append((start, stop, n))
            start = stop
    return tuple(np.array(passages).T)


def _edges(starts: np.ndarray, stops: np.ndarray, segments: int, rng: np.random.Generator) -> np.ndarray:
    """int (N, segments + 1): the first sentence of each segment of passages [start, stop), and where the last
    segment ends.

    The places are drawn uniformly, by Floyd's algorithm (Bentley and Floyd, "A sample of brilliance", 1987).
    """
    edges = np.stack([starts, *[stops] * segments], axis=1)
    for i in range(1, segments):
        highest = stops - segments + i
        drawn = starts + 1 + (rng.random(len(starts)) * (highest - starts)).astype(np.int64)
        taken = (edges[:, 1:i] == drawn[:, None]).any(axis=1)
        edges[:, i] = np.where(taken, highest, drawn)
    edges[:, 1:-1].sort(axis=1)
    return edges


if __name__ == "__main__":
    print(class_table(int(sys.argv[1]) if len(sys.argv) > 1 else 4))
