"""Knowledge masking (paper section 3.2.1; ERNIE 1.0): running text whose words, phrases and entities are
masked whole.

The masks are drawn at training time from the span ids; here consecutive sentences are packed as one segment,
each token of the corpus in exactly one example."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

import numpy as np

from data_gen.packing import Packed, Packer, fill
from data_gen.rows import NO_LABEL
from data_gen.text.tokens import Document
from ernie2.schema import between


def generate(
    source: Sequence[Document],
    rng: np.random.Generator,
    *,
    packer: Packer,
    language: str,
    short_seq_prob: Annotated[float, between(0, 1)] = 0.1,
) -> Iterator[Packed]:
    """Packs each document's sentences to about max_seq_len, one segment an example; documents are never
    joined.

    Args:
        source: Documents of a block.
        rng: Draws the lengths.
        packer: Makes the examples.
        language: Not used: the spans know it.
        short_seq_prob: Share of examples that aim at a random shorter length (BERT's practice)."""
    stretches = [
        (run.first, run.last)
        for document in source
        for run in fill(document.sentences, packer.capacity(), rng, short_seq_prob)
    ]
    if stretches:
        yield packer.pack_many(
            source[0].sentences.tokens, np.array(stretches)[:, None], np.full(len(stretches), NO_LABEL)
        )
