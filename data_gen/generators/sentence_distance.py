"""Sentence distance (paper section 3.2.2): 0 adjacent, 1 same document but not adjacent, 2 two documents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from data_gen.annotate import Document, Sentence
from data_gen.packing import Packer, Rejected
from ernie2.shards import Example

LABELS = ("adjacent", "same document, not adjacent", "different documents")


def num_classes() -> int:
    """Classes of the sentence head."""
    return len(LABELS)


def describe_label(label: int) -> str:
    """A label in words."""
    return LABELS[label]


def generate(source: Sequence[Document], rng: np.random.Generator, *, packer: Packer, language: str,
             min_tokens: int = 4) -> Iterator[Example | Rejected]:
    """Every second sentence is the first of a pair; the classes get equally many pairs in each block (up to two pairs).

    Adjacent sentences keep their order in the text; those of class 1 come in any order. Documents of two sentences
    serve classes 0 and 2 only; a block of a single usable document makes no pairs, as it has no class 2.

    Args:
        source: Documents of a block.
        rng: Draws the pairs.
        packer: Makes the examples.
        language: Not used: sentences are given.
        min_tokens: Sentences of fewer tokens are not used (a date, a page number).
    """
    documents, anchors = [], []
    for document in source:
        usable = [i for i, sentence in enumerate(document.sentences) if len(sentence) >= min_tokens]
        if len(usable) < 2:
            single = len(document.sentences) < 2
            reason = "document of one sentence" if single else f"no two sentences of {min_tokens} tokens"
            yield Rejected(document.source, reason, document.sentences[0].text)
            continue
        documents.append((document.sentences, usable))
        anchors += [(len(documents) - 1, i) for i in _pair_starts(usable, rng)]
    if len(documents) < 2:
        for sentences, _ in documents:
            yield Rejected("", "no other document in its block", sentences[0].text)
        return
    for label, number, first in _labelled(anchors, documents, rng):
        sentences, usable = documents[number]
        if label == 0:
            second = sentences[first + 1]
        elif label == 1:
            second = sentences[_far(usable, first, rng)]
        else:
            second = _elsewhere(documents, number, rng)
        yield packer.pack([[sentences[first]], [second]], label)


def _pair_starts(usable: list[int], rng: np.random.Generator) -> list[int]:
    """Sentences followed by a usable one; no two pairs overlap; the first may be skipped, so that all can be first."""
    allowed, starts, free = set(usable), [], int(rng.integers(2)) if len(usable) > 2 else 0
    for i in usable:
        if i >= free and i + 1 in allowed:
            starts.append(i)
            free = i + 2
    return starts


def _labelled(anchors: list[tuple[int, int]], documents: list,
              rng: np.random.Generator) -> Iterator[tuple[int, int, int]]:
    """Shares the pair starts out among the classes; yields (label, document, first sentence) in random order."""
    anchors = [anchors[i] for i in rng.permutation(len(anchors))]
    far = [anchor for anchor in anchors if any(abs(i - anchor[1]) > 1 for i in documents[anchor[0]][1])]
    share = min(len(far), len(anchors) // 3)
    taken = set(far[:share])
    rest = [anchor for anchor in anchors if anchor not in taken]
    labelled = [(1, *anchor) for anchor in far[:share]]
    labelled += [(0, *anchor) for anchor in rest[:share]] + [(2, *anchor) for anchor in rest[share:2 * share]]
    yield from (labelled[i] for i in rng.permutation(len(labelled)))


def _far(usable: list[int], first: int, rng: np.random.Generator) -> int:
    while True:
        other = usable[rng.integers(len(usable))]
        if abs(other - first) > 1:
            return other


def _elsewhere(documents: list, number: int, rng: np.random.Generator) -> Sentence:
    other = int(rng.integers(len(documents) - 1))
    sentences, usable = documents[other + (other >= number)]
    return sentences[usable[rng.integers(len(usable))]]
