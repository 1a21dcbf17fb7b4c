"""Sentence reordering (paper section 3.2.2): n shuffled segments of a passage; which of the sum of n! orders
is it?

The classes (the paper does not number them): by the number of segments n = 1..m, then by permutation in
lexicographic order. A permutation is a tuple `order`: order[i] is the original position of the i-th segment
shown. With m = 4: 0 = (0), 1 = (0 1), 2 = (1 0), 3 = (0 1 2), ... 8 = (2 1 0), 9 = (0 1 2 3), ... 32 = (3 2 1
0).

`python -m data_gen.generators.sentence_reordering 4` prints the table."""

import sys
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, permutations
from math import factorial
from typing import Annotated

import numpy as np

from data_gen.generators import Labels
from data_gen.packing import Packed, Packer
from data_gen.text.tokens import Document
from ernie2.schema import between


def orders(max_segments: int = 4) -> list[tuple[int, ...]]:
    """The permutation of each class."""
    return [order for n in range(1, max_segments + 1) for order in permutations(range(n))]


def class_table(max_segments: int = 4) -> str:
    """One line a class: label, number of segments, original position of each segment shown."""
    head = "label  segments  original position of each segment shown"
    rows = (f"{i:5}  {len(one):8}  {' '.join(map(str, one))}" for i, one in enumerate(orders(max_segments)))
    return "\n".join([head, *rows])


def labels(max_segments: int = 4) -> Labels:
    """Classes of the sentence head."""
    classes = orders(max_segments)
    return Labels([_described(order) for order in classes], classes)


def _described(order: Sequence[int]) -> str:
    if len(order) == 1:
        return "1 segment, nothing to order"
    shown = " ".join(str(position + 1) for position in order)
    back = " ".join(str(order.index(i) + 1) for i in range(len(order)))
    return f"{len(order)} segments, shown in the order {shown} of the original (read them as {back})"


def generate(
    source: Iterable[Document],
    rng: np.random.Generator,
    *,
    packer: Packer,
    language: str,
    max_segments: Annotated[int, between(2, 7)] = 4,  # 1! + ... + 8! do not fit the int16 of sentence_label
) -> Iterator[Packed]:
    """Takes passages of about max_seq_len, splits each at sentence ends into n segments and shuffles them.

    n is drawn with probability proportional to n!, and the permutation uniformly: all classes are equally
    frequent wherever a document has enough sentences left that fit into max_seq_len; elsewhere among the n
    that do. Only a sentence longer than max_seq_len is cut.

    `max_segments`: m, the most segments of a passage (paper: not stated; 4 is inferred from Baidu's released
    code)."""
    usable = []
    for document in source:
        if len(document.sentences) < 2:
            packer.reject(document.source, "document of one sentence", document.sentences[0].text)
        else:
            usable.append(document.sentences)
    if not usable:
        return
    rows = np.concatenate([sentences.rows[:, :2] for sentences in usable])
    sizes = [len(sentences) for sentences in usable]
    starts, stops, segments = _passages(rows, sizes, rng, packer, max_segments)
    before = 0  # classes of fewer segments
    for n in range(1, max_segments + 1):
        these = np.flatnonzero(segments == n)
        edges = _edges(starts[these], stops[these], n, rng)
        stretches = np.stack([rows[edges[:, :-1], 0], rows[edges[:, 1:] - 1, 1]], axis=2)
        ranks = rng.integers(factorial(n), size=len(these))
        shown = np.array(list(permutations(range(n))))[ranks, :, None]
        if len(these):
            stretches = np.take_along_axis(stretches, shown, axis=1)
            yield packer.pack_many(usable[0].tokens, stretches, before + ranks)
        before += factorial(n)


def _passages(
    rows: np.ndarray, sizes: Sequence[int], rng: np.random.Generator, packer: Packer, max_segments: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First sentence, sentence after the last and number of segments of each passage, three int arrays.

    `rows`: int (S, 2), first token and token after the last of each sentence of all documents, end to end;
    `sizes`: sentences of each document."""
    upper = [list(accumulate(factorial(n) for n in range(1, most + 1))) for most in range(max_segments + 1)]
    capacity = [packer.capacity(n) for n in range(max_segments + 1)]
    # A passage takes that of its first sentence: drawing one at a time is slow.
    chances = rng.random(len(rows)).tolist()
    firsts, ends = rows.T.tolist()
    passages, start = [], 0
    for last in accumulate(sizes):
        while start < last:
            fitting = bisect_right(ends, firsts[start] + capacity[max_segments], start, last) - start
            most = max(1, min(max_segments, last - start, fitting))
            n = bisect_right(upper[most], int(chances[start] * upper[most][-1])) + 1
            stop = max(bisect_right(ends, firsts[start] + capacity[n], start, last), start + n)
            if stop == last - 1 > start + n:
                stop -= 1  # leave two sentences over rather than one
            passages.append((start, stop, n))
            start = stop
    return tuple(np.array(passages).T)


def _edges(starts: np.ndarray, stops: np.ndarray, segments: int, rng: np.random.Generator) -> np.ndarray:
    """int (N, segments + 1): the first sentence of each segment of passages [start, stop), and where the last
    ends, drawn uniformly by Floyd's algorithm (Bentley and Floyd, "A sample of brilliance", 1987)."""
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
