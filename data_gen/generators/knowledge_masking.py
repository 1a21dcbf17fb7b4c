"""Knowledge masking (paper section 3.2.1; ERNIE 1.0): running text whose words, phrases and entities are
masked whole.

The masks are drawn at training time from the span ids; here consecutive sentences are packed as one segment,
each token of the corpus in exactly one example."""

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
    """Packs each document's sentences to about max_seq_len; documents are never joined.

    `short_seq_prob`: share of examples that aim at a random shorter length (BERT's practice)."""
    stretches = [
        (run.first, run.last)
        for document in source
        for run in fill(document.sentences, packer.capacity(), rng, short_seq_prob)
    ]
    if stretches:
        labels = np.full(len(stretches), NO_LABEL)
        yield packer.pack_many(source[0].sentences.tokens, np.array(stretches)[:, None], labels)
