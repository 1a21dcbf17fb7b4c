"""Sentence distance (paper section 3.2.2): 0 adjacent, 1 same document but not adjacent, 2 two documents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

import numpy as np

from data_gen.generators import Labels
from data_gen.packing import Packed, Packer
from data_gen.text.tokens import Document
from ernie2.schema import between

LABELS = ("adjacent", "same document, not adjacent", "different documents")


def labels() -> Labels:
    """Classes of the sentence head."""
    return Labels(LABELS, next_sentence=(0, 2))


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

    Adjacent sentences keep their order in the text; those of class 1 come in any order. Documents of two
    sentences serve classes 0 and 2 only; a block of a single usable document makes no pairs, as it has no
    class 2.

    Args:
        source: Documents of a block.
        rng: Draws the pairs.
        packer: Makes the examples.
        language: Not used: sentences are given.
        min_tokens: Sentences of fewer tokens are not used (a date, a page number)."""
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
    first, second, labels = _Usable([fitting for _, fitting in usable]).draw(rng)
    rows = np.concatenate([sentences.rows[fitting, :2] for sentences, fitting in usable])
    yield packer.pack_many(
        usable[0][0].tokens, np.stack([rows[first], rows[second]], axis=1), labels, keep_joint=True
    )


class _Usable:
    """The usable sentences of a block end to end, S of them in D documents, and the drawing of pairs among
    them."""

    def __init__(self, fitting: Sequence[np.ndarray]) -> None:
        """`fitting`: of each document the numbers of its usable sentences."""
        sizes = np.array([len(some) for some in fitting])
        self.stops = np.cumsum(sizes)
        self.starts = self.stops - sizes
        self.document = np.repeat(np.arange(len(sizes)), sizes)
        self.place = np.concatenate(fitting)  # number of the sentence in its document
        self.before = np.zeros(len(self.place), bool)  # the sentence before it is usable too
        self.before[1:] = (self.place[1:] == self.place[:-1] + 1) & (self.document[1:] == self.document[:-1])

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Numbers of first and second sentences and labels, int64 (pairs) each, in random order."""
        anchors = rng.permutation(self._pair_starts(rng))
        near_first, near_last = (
            anchors - self.before[anchors],
            anchors + 1,
        )  # the sentence after it is usable by choice
        documents = self.document[anchors]
        far = (self.stops - self.starts)[documents] - (near_last - near_first + 1)
        has_far = np.flatnonzero(far > 0)
        share = min(len(has_far), len(anchors) // 3)
        labels = np.full(len(anchors), -1)
        labels[has_far[:share]] = 1
        rest = np.flatnonzero(labels < 0)
        labels[rest[:share]], labels[rest[share : 2 * share]] = 0, 2
        second = anchors + 1
        one, two = np.flatnonzero(labels == 1), np.flatnonzero(labels == 2)
        drawn = self.starts[documents[one]] + (rng.random(len(one)) * far[one]).astype(np.int64)
        second[one] = drawn + (drawn >= near_first[one]) * (near_last - near_first + 1)[one]
        other = rng.integers(len(self.starts) - 1, size=len(two))
        other += other >= documents[two]
        second[two] = self.starts[other] + (rng.random(len(two)) * (self.stops - self.starts)[other]).astype(
            np.int64
        )
        order = rng.permutation(np.flatnonzero(labels >= 0))
        return anchors[order], second[order], labels[order]

    def _pair_starts(self, rng: np.random.Generator) -> np.ndarray:
        """Sentences followed by a usable one; no two pairs overlap; the first may be skipped, so that all can
        be first."""
        stretch = np.cumsum(~self.before) - 1  # unbroken stretches of usable sentences
        first = np.flatnonzero(~self.before)
        sizes = np.diff(first, append=len(self.before))
        skip = np.zeros(len(first), np.int64)
        opening = stretch[self.starts]
        long = sizes[opening] > 2
        skip[opening[long]] = rng.integers(2, size=int(long.sum()))
        offset = np.arange(len(stretch)) - first[stretch] - skip[stretch]
        left = sizes[stretch] - skip[stretch] - offset
        return np.flatnonzero((offset >= 0) & (offset % 2 == 0) & (left > 1))
