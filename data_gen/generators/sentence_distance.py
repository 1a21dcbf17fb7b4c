"""Sentence distance (paper section 3.2.2): 0 adjacent, 1 same document but not adjacent, 2 two documents."""

from collections.abc import Iterator, Sequence
from typing import Annotated

import numpy as np

from data_gen.generators import Labels
from data_gen.packing import Packed, Packer
from data_gen.text.tokens import Document
from ernie2.schema import between

labels = Labels(("adjacent", "same document, not adjacent", "different documents"), next_sentence=(0, 2))


def generate(
    source: Sequence[Document],
    rng: np.random.Generator,
    *,
    packer: Packer,
    language: str,
    min_tokens: Annotated[int, between(1)] = 4,
) -> Iterator[Packed]:
    """Every second sentence is the first of a pair; the classes get equally many pairs in each block (up to
    two pairs).

    Adjacent sentences keep their order; those of class 1 come in any order. Documents of two sentences serve
    classes 0 and 2 only. `min_tokens`: shorter sentences are not used (a date, a page number)."""
    usable = []
    for document in source:
        rows = document.sentences.rows
        fitting = np.flatnonzero(rows[:, 1] - rows[:, 0] >= min_tokens)
        if len(fitting) < 2:
            single = len(rows) < 2
            reason = "document of one sentence" if single else f"no two sentences of {min_tokens} tokens"
            packer.reject(document.source, reason, document.sentences[0].text)
        else:
            usable.append((document.sentences, fitting))
    if len(usable) < 2:
        for sentences, _ in usable:
            packer.reject("", "no other document in its block", sentences[0].text)
        return
    first, second, labels = _draw([fitting for _, fitting in usable], rng)
    rows = np.concatenate([sentences.rows[fitting, :2] for sentences, fitting in usable])
    stretches = np.stack([rows[first], rows[second]], axis=1)
    yield packer.pack_many(usable[0][0].tokens, stretches, labels, keep_joint=True)


def _draw(
    fitting: Sequence[np.ndarray], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First and second sentences and labels of pairs in random order, int64 (pairs) each.

    `fitting`: of each document the numbers of its usable sentences; pairs number these end to end."""
    sizes = np.array([len(some) for some in fitting])
    starts = np.cumsum(sizes) - sizes
    place, document = np.concatenate(fitting), np.repeat(np.arange(len(sizes)), sizes)
    follows = np.zeros(len(place), bool)  # the sentence before it is usable too
    follows[1:] = (place[1:] == place[:-1] + 1) & (document[1:] == document[:-1])
    first = rng.permutation(_pair_starts(follows, starts, rng))
    before, documents = follows[first].astype(int), document[first]
    far = sizes[documents] - before - 2  # sentences of the document that are not next to the first
    has_far = np.flatnonzero(far > 0)
    share = min(len(has_far), len(first) // 3)
    labels = np.full(len(first), -1)
    labels[has_far[:share]] = 1
    rest = np.flatnonzero(labels < 0)
    labels[rest[:share]], labels[rest[share : 2 * share]] = 0, 2
    second = first + 1
    one, two = np.flatnonzero(labels == 1), np.flatnonzero(labels == 2)
    drawn = starts[documents[one]] + (rng.random(len(one)) * far[one]).astype(np.int64)
    second[one] = drawn + (drawn >= first[one] - before[one]) * (before[one] + 2)
    other = rng.integers(len(sizes) - 1, size=len(two))
    other += other >= documents[two]
    second[two] = starts[other] + (rng.random(len(two)) * sizes[other]).astype(np.int64)
    order = rng.permutation(np.flatnonzero(labels >= 0))
    return first[order], second[order], labels[order]


def _pair_starts(follows: np.ndarray, starts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Sentences followed by a usable one, no two pairs overlapping; a document's first may be skipped, so
    that all can be first."""
    stretch = np.cumsum(~follows) - 1  # unbroken stretches of usable sentences
    first = np.flatnonzero(~follows)
    sizes = np.diff(first, append=len(follows))
    skip = np.zeros(len(first), np.int64)
    opening = stretch[starts]
    long = sizes[opening] > 2
    skip[opening[long]] = rng.integers(2, size=int(long.sum()))
    offset = np.arange(len(stretch)) - first[stretch] - skip[stretch]
    left = sizes[stretch] - skip[stretch] - offset
    return np.flatnonzero((offset >= 0) & (offset % 2 == 0) & (left > 1))
